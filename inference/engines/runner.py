"""What the engine's thread runs steps with: the protocol, and the one for a CPU.

A step is queued by `run` and its tokens are read from the ticket; a runner on a device may have
steps queued beyond the one that is read (`ahead`), so that the device never waits for the host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

import torch

from inference.engines.faults import out_of_memory
from inference.prefix import Prefixes, cuts
from inference.sampling import BadLogitsError
from meshkit.counters import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from inference.engines.request import Answer
    from inference.engines.slots import KvSlots
    from inference.scheduler import Move, Prefill, Step

__all__ = ["BAD_LOGITS", "PREFIX_LEAST_TOKENS", "CpuRunner", "Model", "Runner", "SlotModel"]

BAD_LOGITS = -1
"""In place of a token: the request's logits were not numbers."""

PREFIX_LEAST_TOKENS = 64
"""The shortest beginning that is cut off to be kept: another pass costs some 15 tokens' time."""


class Runner(Protocol):
    """Runs steps. All methods belong to the engine's thread."""

    @property
    def ahead(self) -> int:
        """Steps to queue before the first is read."""
        ...

    @property
    def prompts(self) -> int:
        """Prompts that one step may hold."""
        ...

    @property
    def chunk_tokens(self) -> int:
        """Prompt tokens that one step may hold."""
        ...

    @property
    def slots_max(self) -> int | None:
        """Requests that one step may hold; None: as many as the settings say."""
        ...

    @property
    def tokens_max(self) -> int | None:
        """Tokens that all requests in slots may hold together; None: as many as fit in them."""
        ...

    @property
    def vocabulary(self) -> int | None:
        """Token ids that the model knows, from 0 on; None: nobody can tell."""
        ...

    def stops(self, prompt: Sequence[int], controls: Collection[int]) -> tuple[int, ...]:
        """Where a prompt is cut: see `inference.prefix`. Called from any thread."""
        ...

    def reusable(self, answer: Answer) -> int:
        """How many tokens of its prompt need not be run: none, or one of its `stops`."""
        ...

    def run(self, step: Step, answers: Mapping[int, Answer]) -> Callable[[], list[tuple[int, int]]]:
        """Queue a step; `answers` has every request of it.

        Returns:
            Call it, once, to wait for the step: (request id, token) of each request that got one,
            or several: in order, and those behind an answer's last are to be ignored.
        """
        ...

    def move(self, move: Move) -> None:
        """Copy a slot to another, behind all that is queued."""
        ...

    def shrink(self, slots: int) -> None:
        """Forget what the slots from `slots` on hold, behind all that is queued."""
        ...

    def release(self) -> None:
        """Let go of all that is kept for later requests: memory is short."""
        ...


class Model(Protocol):
    """A forward pass over slots on a CPU."""

    def prefill(self, tokens: Sequence[int], *, slot: int, start: int) -> torch.Tensor:
        """Logits after a stretch of one prompt: (vocabulary,)."""
        ...

    def decode(self, tokens: Sequence[int], positions: Sequence[int]) -> torch.Tensor:
        """Logits after one token for each of the first slots: (rows, vocabulary)."""
        ...

    def move(self, move: Move) -> None:
        """Copy a slot to another."""
        ...


class SlotModel(Model, Protocol):
    """One whose slots can be copied and given back, and that runs several tokens of one at once.

    Only with these are prefixes kept, tokens guessed, memory given back: `inference.engines.llama`.
    """

    slots: KvSlots

    def decode(
        self, tokens: Sequence[int], positions: Sequence[int], slots: Sequence[int] | None = None
    ) -> torch.Tensor:
        """Logits after one token for each row; several rows may be of one slot."""
        ...


class CpuRunner:
    """Runs a model where it stands and samples with numpy, request by request.

    Args:
        model: a `SlotModel`, if any of what follows `chunk_tokens` is to be.
        chunk_tokens: prompt tokens in a step.
        vocabulary: token ids that the model knows.
        slots_max: requests that the model has slots for.
        tokens_max: that requests may hold together, where that is less than all slots do.
        prefix_bytes: of keys and values kept for prompts that begin alike.
        guess_tokens: guessed at once for one request; 0: none.
        guess_rows_max: rows of a decode step, guesses included; with more requests none are made.
    """

    ahead = 0
    prompts = 1

    def __init__(
        self,
        model: Model,
        *,
        chunk_tokens: int,
        vocabulary: int | None = None,
        slots_max: int | None = None,
        tokens_max: int | None = None,
        prefix_bytes: int = 0,
        guess_tokens: int = 0,
        guess_rows_max: int = 8,
    ) -> None:
        self._model = model
        self.chunk_tokens = chunk_tokens
        self.vocabulary = vocabulary
        self.slots_max = slots_max
        self.tokens_max = tokens_max
        self.guess_tokens = guess_tokens
        self._guess_rows_max = guess_rows_max
        self._live = 0
        self.prefixes: Prefixes[torch.Tensor] = Prefixes(prefix_bytes)
        self.reused_tokens = 0
        """Of prompts, since the start: not run, since they were kept."""
        self.guessed_tokens, self.held_tokens = 0, 0
        """Guesses since the start, and how many of them were right."""

    @property
    def _slot_model(self) -> SlotModel:
        return cast("SlotModel", self._model)

    def stops(self, prompt: Sequence[int], controls: Collection[int]) -> tuple[int, ...]:
        """See `Runner.stops`. The same whether anything is kept: the cuts are in the bits."""
        return cuts(
            prompt,
            controls=controls,
            chunk_tokens=self.chunk_tokens,
            least_tokens=min(PREFIX_LEAST_TOKENS, self.chunk_tokens),
        )

    def reusable(self, answer: Answer) -> int:
        """See `Runner.reusable`. The prompt's last chunk is run: its logits are wanted."""
        inner = [stop for stop in answer.stops if stop < len(answer.prompt)]
        kept = self.prefixes.count(answer.keys[: len(inner)])
        return inner[kept - 1] if kept else 0

    def run(self, step: Step, answers: Mapping[int, Answer]) -> Callable[[], list[tuple[int, int]]]:
        """Run it at once; see `Runner.run`."""
        tokens: list[tuple[int, int]] = []
        self._live = max(self._live, len(step.decode) + len(step.prefills))
        for prefill in step.prefills:
            answer = answers[prefill.job]
            if prefill.first and prefill.start:
                self._restore(prefill, answer)
            stretch = answer.prompt[prefill.start : prefill.stop]
            logits = self._model.prefill(stretch, slot=prefill.slot, start=prefill.start)
            self._keep(prefill, answer)
            if prefill.last:
                tokens.append((prefill.job, _drawn(answer, logits)))
        if step.decode:
            tokens += self._decoded(step.decode, [answers[job] for job in step.decode])
        return lambda: tokens

    def _restore(self, prefill: Prefill, answer: Answer) -> None:
        at = 0
        for kept in self.prefixes.find(answer.keys[: answer.stops.index(prefill.start) + 1]):
            self._slot_model.slots.restore(prefill.slot, at, kept)
            at += kept.shape[3]
        self.reused_tokens += at
        counted("inference.tokens.reused", at)

    def _keep(self, prefill: Prefill, answer: Answer) -> None:
        """Keep what the slot holds of a chunk; that it cannot be kept is no fault."""
        if not (self.prefixes.room and answer.keys and prefill.stop in answer.stops):
            return
        slots = self._slot_model.slots
        keys = answer.keys[: answer.stops.index(prefill.stop) + 1]
        size = (prefill.stop - prefill.start) * slots.bytes_per_token
        try:
            if self.prefixes.makes_room(keys, size):
                kept = slots.kept(prefill.slot, prefill.start, prefill.stop)
                self.prefixes.put(keys, kept, size)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            self.release()

    def _decoded(self, jobs: Sequence[int], rows: Sequence[Answer]) -> list[tuple[int, int]]:
        guesses = self._guesses(rows)
        if any(guesses):
            return self._verified(jobs, rows, guesses)
        logits = self._model.decode(
            [answer.last_token for answer in rows], [answer.position for answer in rows]
        )
        drawn = zip(jobs, rows, logits, strict=True)
        return [(job, _drawn(answer, row)) for job, answer, row in drawn]

    def _guesses(self, rows: Sequence[Answer]) -> list[tuple[int, ...]]:
        """What may come next, as far as the step has rows to spare."""
        free = self._guess_rows_max - len(rows)
        guesses: list[tuple[int, ...]] = []
        for answer in rows:
            limit = min(self.guess_tokens, free)
            guesses.append(answer.guess(limit) if limit > 0 else ())
            free -= len(guesses[-1])
        return guesses

    def _verified(
        self, jobs: Sequence[int], rows: Sequence[Answer], guesses: Sequence[tuple[int, ...]]
    ) -> list[tuple[int, int]]:
        """Run guesses behind the tokens they are to follow; keep those that would be drawn."""
        runs = [(answer.last_token, *guess) for answer, guess in zip(rows, guesses, strict=True)]
        logits = self._slot_model.decode(
            [token for run in runs for token in run],
            [rows[slot].position + n for slot, run in enumerate(runs) for n in range(len(run))],
            [slot for slot, run in enumerate(runs) for _ in run],
        )
        tokens: list[tuple[int, int]] = []
        parts = torch.split(logits, [len(run) for run in runs])
        for job, answer, guess, part in zip(jobs, rows, guesses, parts, strict=True):
            drawn = _followed(answer, guess, part)
            tokens += [(job, token) for token in drawn]
            self._count(len(guess), len(drawn) - 1)
        return tokens

    def _count(self, guessed: int, held: int) -> None:
        self.guessed_tokens += guessed
        self.held_tokens += held
        counted("inference.tokens.guessed", guessed)
        counted("inference.tokens.held", held)

    def move(self, move: Move) -> None:
        """See `Runner.move`."""
        self._model.move(move)

    def shrink(self, slots: int) -> None:
        """Nothing is read beyond what a request has written; its memory matters if it is short."""
        if self.tokens_max is not None:
            for slot in range(slots, self._live):
                self._slot_model.slots.forget(slot)
        self._live = slots

    def release(self) -> None:
        """See `Runner.release`."""
        self.prefixes.clear()


def _followed(answer: Answer, guess: Sequence[int], logits: torch.Tensor) -> list[int]:
    """Draw tokens as long as each is what was guessed, and the one behind the last of these.

    Each is drawn from the very logits, by the very draw, that steps of their own would have given.
    """
    drawn: list[int] = []
    for expected, row in zip((*guess, None), logits, strict=True):
        drawn.append(_drawn(answer, row))
        if drawn[-1] != expected:
            break
    if guess:
        answer.told(len(drawn) - 1)
    return drawn


def _drawn(answer: Answer, logits: torch.Tensor) -> int:
    try:
        return answer.draw(logits.numpy())
    except BadLogitsError:
        return BAD_LOGITS
