"""Who is in the next forward pass. PURE.

A fixed number of slots; requests wait in order of arrival and join between two steps. Each step
holds one token for every request whose prompt is done (decode, all in one forward pass) and at most
`chunk_tokens` of prompts (prefill), of one prompt or of as many as the engine runs together. So a
long prompt delays the others by a chunk at a time, and a request is never passed over: of the
prompts in work all but the last are finished in the step that they began or went on in.

The slots in use are always 0..n-1, those that decode before the one that prefills, so that the
engine works on views of its key and value cache instead of gathered copies. When a request leaves,
`remove` says which cache slots to move to close the gap.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

__all__ = ["Move", "Prefill", "Scheduler", "Step"]


@dataclass(frozen=True, slots=True)
class Move:
    """Copy what the cache holds in `source` to `target`; do so in the order given."""

    source: int
    target: int


@dataclass(frozen=True, slots=True)
class Prefill:
    """Run prompt tokens `start` up to `stop` of request `job`; `last` if the prompt ends there."""

    job: int
    slot: int
    start: int
    stop: int
    last: bool


@dataclass(frozen=True, slots=True)
class Step:
    """One turn of the engine.

    decode: request ids; the i-th decodes in slot i. prefills: in order, in the slots behind those.
    """

    prefills: tuple[Prefill, ...]
    decode: tuple[int, ...]

    def __bool__(self) -> bool:
        return bool(self.prefills or self.decode)


@dataclass(slots=True)
class _Prompt:
    job: int
    tokens: int
    done: int = 0


class Scheduler:
    """Slots and a queue in front of them.

    Args:
        slots: requests that may be in a forward pass together.
        waiting_max: requests that may wait for a slot.
        chunk_tokens: prompt tokens in one step.
        prompts: prompts in one step.
    """

    def __init__(
        self, *, slots: int, waiting_max: int, chunk_tokens: int, prompts: int = 1
    ) -> None:
        self._slots = slots
        self._prompts = prompts
        self._waiting_max = waiting_max
        self._chunk_tokens = chunk_tokens
        self._waiting: deque[_Prompt] = deque()
        self._prefilling: _Prompt | None = None
        self._decoding: list[int] = []

    @property
    def waiting(self) -> int:
        """How many requests have no slot yet."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many slots are in use."""
        return len(self._decoding) + (self._prefilling is not None)

    def submit(self, job: int, prompt_tokens: int) -> bool:
        """Queue a request; False if the queue is full. A free slot is as good as a queue place."""
        free = self._slots - self.running
        if len(self._waiting) >= self._waiting_max + free:
            return False
        self._waiting.append(_Prompt(job, prompt_tokens))
        return True

    def plan(self) -> Step:
        """Return the next step, and reckon with its being carried out."""
        decode = tuple(self._decoding)
        prefills: list[Prefill] = []
        room = self._chunk_tokens
        while room and len(prefills) < self._prompts and self._next_prompt():
            prefills.append(self._prefill(room))
            room -= prefills[-1].stop - prefills[-1].start
        return Step(tuple(prefills), decode)

    def _next_prompt(self) -> bool:
        if self._prefilling is None and self._waiting and self.running < self._slots:
            self._prefilling = self._waiting.popleft()
        return self._prefilling is not None

    def _prefill(self, room: int) -> Prefill:
        prompt = self._prefilling
        assert prompt is not None
        start = prompt.done
        prompt.done = min(prompt.tokens, start + room)
        last = prompt.done == prompt.tokens
        prefill = Prefill(prompt.job, len(self._decoding), start, prompt.done, last)
        if last:
            self._decoding.append(prompt.job)
            self._prefilling = None
        return prefill

    def remove(self, job: int) -> tuple[Move, ...]:
        """Let a request go, wherever it stands; unknown ones are none of our business."""
        if self._prefilling is not None and self._prefilling.job == job:
            self._prefilling = None
            return ()
        if job in self._decoding:
            return self._close_gap(self._decoding.index(job))
        self._waiting = deque(prompt for prompt in self._waiting if prompt.job != job)
        return ()

    def _close_gap(self, gap: int) -> tuple[Move, ...]:
        last = len(self._decoding) - 1
        moves = []
        if gap != last:
            self._decoding[gap] = self._decoding[last]
            moves.append(Move(last, gap))
        self._decoding.pop()
        if self._prefilling is not None:
            moves.append(Move(last + 1, last))
        return tuple(moves)
