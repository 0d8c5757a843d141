"""What the engine's thread asks of a forward pass: queue a step, read its tokens later.

A GPU works ahead: while it runs a step, the host reads the tokens of the one before
(`Runner.ahead` steps are queued unread). A CPU has nothing to gain from that and answers at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from inference.sampling import BadLogitsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch

    from inference.engines.request import Answer
    from inference.scheduler import Move, Step

__all__ = ["BAD_LOGITS", "CpuRunner", "Model", "Runner", "Ticket"]

BAD_LOGITS = -1
"""Stands for a token where the model's output is not a number everywhere."""

Ticket = "Callable[[], list[tuple[int, int]]]"
"""Call it, once, to wait for a step: (request id, token) of each request that got one."""


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

    def run(self, step: Step, answers: Mapping[int, Answer]) -> Callable[[], list[tuple[int, int]]]:
        """Queue a step; `answers` has every request of it. Returns a `Ticket`."""
        ...

    def move(self, move: Move) -> None:
        """Copy a slot to another, behind all that is queued."""
        ...

    def shrink(self, slots: int) -> None:
        """Forget what the slots from `slots` on hold, behind all that is queued."""
        ...


class Model(Protocol):
    """A forward pass over slots on a CPU; see `inference.engines.llama.Llama`."""

    def prefill(self, tokens: Sequence[int], *, slot: int, start: int) -> torch.Tensor:
        """Logits after a stretch of one prompt: (vocabulary,)."""
        ...

    def decode(self, tokens: Sequence[int], positions: Sequence[int]) -> torch.Tensor:
        """Logits after one token for each of the first slots: (rows, vocabulary)."""
        ...

    def move(self, move: Move) -> None:
        """Copy a slot to another."""
        ...


class CpuRunner:
    """Runs a model where it stands and samples with numpy, request by request."""

    ahead = 0
    prompts = 1

    def __init__(self, model: Model, *, chunk_tokens: int) -> None:
        self._model = model
        self.chunk_tokens = chunk_tokens

    def run(self, step: Step, answers: Mapping[int, Answer]) -> Callable[[], list[tuple[int, int]]]:
        """Run it at once; see `Runner.run`."""
        tokens: list[tuple[int, int]] = []
        for prefill in step.prefills:
            answer = answers[prefill.job]
            stretch = answer.prompt[prefill.start : prefill.stop]
            logits = self._model.prefill(stretch, slot=prefill.slot, start=prefill.start)
            if prefill.last:
                tokens.append((prefill.job, _drawn(answer, logits)))
        if step.decode:
            rows = [answers[job] for job in step.decode]
            logits = self._model.decode(
                [answer.last_token for answer in rows], [answer.position for answer in rows]
            )
            tokens += [
                (job, _drawn(answer, row))
                for job, answer, row in zip(step.decode, rows, logits, strict=True)
            ]
        return lambda: tokens

    def move(self, move: Move) -> None:
        """See `Runner.move`."""
        self._model.move(move)

    def shrink(self, slots: int) -> None:
        """Nothing is read from a slot beyond what its own request has written."""


def _drawn(answer: Answer, logits: torch.Tensor) -> int:
    try:
        return answer.draw(logits.numpy())
    except BadLogitsError:
        return BAD_LOGITS
