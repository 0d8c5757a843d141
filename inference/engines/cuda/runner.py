"""The GPU behind the engine's thread: steps are queued, their tokens read one step behind."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import torch

from inference.engines.cuda.decode import Decoder, Slots
from inference.engines.cuda.prefill import Chunk, Prefiller

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from inference.engines.cuda.device import DeviceWeights
    from inference.engines.request import Answer
    from inference.scheduler import Move, Prefill, Step

__all__ = ["CudaRunner"]

_SEED_BITS = 63


class CudaRunner:
    """Implements `inference.engines.runner.Runner`.

    A request's tokens with temperature 0, or with a seed, are the same at each number of rows as
    far as cuBLAS's sums are: its kernels differ by that number, in the last bits. Sampling itself
    depends on (seed, position) and the logits alone.

    Args:
        weights: on the device.
        slots: requests in a forward pass.
        context_tokens: room of a slot.
        chunk_tokens: prompt tokens in a step.
    """

    ahead = 1
    tokens_max = None

    def __init__(
        self, weights: DeviceWeights, *, slots: int, context_tokens: int, chunk_tokens: int = 8_192
    ) -> None:
        self.prompts, self.chunk_tokens, self.slots_max = slots, chunk_tokens, slots
        self.vocabulary = weights.architecture.vocabulary
        self._gpu = weights.embedding.is_cuda
        self.slots = Slots(weights, slots=slots, context_tokens=context_tokens)
        self._decoder = Decoder(weights, self.slots)
        self._prefiller = Prefiller(weights, self.slots, self._decoder)
        self._live = slots
        self._spare: deque[torch.Tensor] = deque()

    def warm_up(self) -> None:
        """Compile kernels and capture graphs: seconds to a minute, once."""
        self._decoder.capture()
        self._prefiller.capture()
        self.shrink(0)

    def stops(
        self,
        prompt: Sequence[int],  # noqa: ARG002 -- a prompt is cut where a step ends, no more
        controls: Collection[int],  # noqa: ARG002 -- as above
    ) -> tuple[int, ...]:
        """See `Runner.stops`: nothing is kept on a GPU, so a prompt runs whole."""
        return ()

    def reusable(self, answer: Answer) -> int:  # noqa: ARG002 -- as above
        """See `Runner.reusable`."""
        return 0

    def release(self) -> None:
        """Give what PyTorch keeps for the next allocation back to the device."""
        if self._gpu:
            torch.cuda.empty_cache()

    def run(self, step: Step, answers: Mapping[int, Answer]) -> Callable[[], list[tuple[int, int]]]:
        """See `Runner.run`. Those who decode go first: a prompt takes longer."""
        jobs = list(enumerate(step.decode))
        # Before anything can fail: `shrink` has to take out whom a broken step began, too.
        self._live = len(step.decode) + len(step.prefills)
        if step.decode:
            self._decoder.step(len(step.decode))
            self.slots.grow(len(step.decode))
        if step.prefills:
            self._start([prefill for prefill in step.prefills if prefill.start == 0], answers)
            self._prefiller.run([_chunk(prefill, answers) for prefill in step.prefills])
            for prefill in step.prefills:
                self.slots.fill(prefill.slot, prefill.stop)
                if prefill.last:
                    jobs.append((prefill.slot, prefill.job))
        return self._ticket(jobs)

    def _start(self, prefills: Sequence[Prefill], answers: Mapping[int, Answer]) -> None:
        """Send what sampling needs of the requests that begin."""
        if not prefills:
            return
        asked = [answers[prefill.job] for prefill in prefills]
        slots = torch.tensor([prefill.slot for prefill in prefills])
        self.slots.begin(
            slots,
            temperatures=torch.tensor([answer.parameters.temperature for answer in asked]),
            top_ps=torch.tensor([answer.parameters.top_p for answer in asked]),
            seeds=torch.tensor([answer.seed % (1 << _SEED_BITS) for answer in asked]),
        )

    def _ticket(self, jobs: list[tuple[int, int]]) -> Callable[[], list[tuple[int, int]]]:
        host = self._spare.popleft() if self._spare else self._buffer()
        top = 1 + max((slot for slot, _ in jobs), default=-1)
        host[:top].copy_(self.slots.results[:top], non_blocking=True)
        done = torch.cuda.Event() if self._gpu else None  # type: ignore[no-untyped-call] # torch leaves it untyped
        if done is not None:
            done.record()

        def read() -> list[tuple[int, int]]:
            if done is not None:
                done.synchronize()
            tokens = host[:top].tolist()
            self._spare.append(host)
            return [(job, tokens[slot]) for slot, job in jobs]

        return read

    def _buffer(self) -> torch.Tensor:
        return torch.zeros(self.slots.count, dtype=torch.int32, pin_memory=self._gpu)

    def score(self, tokens: Sequence[int]) -> torch.Tensor:
        """Return the logits after each token of a text: (tokens, vocabulary). Nobody else is in."""
        return self._prefiller.score(tokens)

    def move(self, move: Move) -> None:
        """See `Runner.move`."""
        self.slots.move(move)

    def shrink(self, slots: int) -> None:
        """See `Runner.shrink`."""
        if slots < self._live:
            self.slots.clear(slots, self._live)
        self._live = slots


def _chunk(prefill: Prefill, answers: Mapping[int, Answer]) -> Chunk:
    tokens = answers[prefill.job].prompt[prefill.start : prefill.stop]
    return Chunk(prefill.slot, prefill.start, tokens, prefill.last)
