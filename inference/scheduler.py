"""Who is in the next forward pass. PURE.

A fixed number of slots, and a number of tokens that they may hold together. Requests wait for both
and join between two steps. Each step holds one token for every request whose prompt is done
(decode, all in one forward pass) and at most `chunk_tokens` of prompts (prefill), of one prompt or
of as many as the engine runs together. So a long prompt delays the others by a chunk at a time, and
of the prompts in work all but the last are finished in the step that they began or went on in.

Order. A request waits behind all whose rank is lower: rank = arrival - priority x ageing. A point
of priority is worth `ageing_s` of waiting, no more: whoever waits grows older than every newcomer
and nobody starves. The first in rank is never passed over for a smaller one behind it.

Memory. A request takes all tokens that it may ever hold (its prompt and its longest answer) when it
gets its slot and keeps them until it leaves. So what runs can always run on: nothing is preempted,
computed twice or lost, at the price of places kept for answers that end early.

Time. A request that cannot begin by its `latest_s` never begins: `late` gives it back.

The slots in use are always 0..n-1, those that decode before the one that prefills, so that the
engine works on views of its key and value cache instead of gathered copies. When a request leaves,
`remove` says which cache slots to move to close the gap.
"""

from __future__ import annotations

import math
from bisect import insort
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PLAIN", "Move", "Prefill", "Scheduler", "Step", "Terms"]


@dataclass(frozen=True, slots=True)
class Move:
    """Copy what the cache holds in `source` to `target`; do so in the order given."""

    source: int
    target: int


@dataclass(frozen=True, slots=True)
class Prefill:
    """Run prompt tokens `start` up to `stop` of request `job`; `last` if the prompt ends there.

    first: the request has just got its slot; what is before `start` is to be put there.
    """

    job: int
    slot: int
    start: int
    stop: int
    last: bool
    first: bool = True


@dataclass(frozen=True, slots=True)
class Step:
    """One turn of the engine.

    decode: request ids; the i-th decodes in slot i. prefills: in order, in the slots behind those.
    """

    prefills: tuple[Prefill, ...]
    decode: tuple[int, ...]

    def __bool__(self) -> bool:
        return bool(self.prefills or self.decode)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """On what terms a request waits and runs.

    answer_tokens: the most that it may add to its prompt.
    stops: where its prompt is cut into chunks, besides where a step's room ends; ascending.
    arrived_s, latest_s: on one clock; beyond `latest_s` it must not begin any more.
    """

    answer_tokens: int = 0
    stops: tuple[int, ...] = ()
    priority: int = 0
    arrived_s: float = 0.0
    latest_s: float = math.inf


PLAIN = Terms()


@dataclass(slots=True, order=True)
class _Prompt:
    rank: tuple[float, int]
    job: int = field(compare=False)
    tokens: int = field(compare=False)
    terms: Terms = field(compare=False)
    done: int = field(compare=False, default=0)
    begun: bool = field(compare=False, default=False)

    @property
    def reserved(self) -> int:
        return self.tokens + self.terms.answer_tokens

    def stop(self, room: int) -> int:
        """Where the chunk that begins at `done` ends."""
        ends = (stop for stop in self.terms.stops if stop > self.done)
        return min(self.tokens, self.done + room, next(ends, self.tokens))


class Scheduler:
    """Slots and a queue in front of them.

    Args:
        slots: requests that may be in a forward pass together.
        waiting_max: requests that may wait for a slot.
        chunk_tokens: prompt tokens in one step.
        prompts: prompts in one step.
        tokens_max: that requests with a slot may hold together; None: as many as they like.
        ageing_s: of waiting that a point of priority is worth.
    """

    def __init__(
        self,
        *,
        slots: int,
        waiting_max: int,
        chunk_tokens: int,
        prompts: int = 1,
        tokens_max: int | None = None,
        ageing_s: float = 1.0,
    ) -> None:
        self._slots = slots
        self._prompts = prompts
        self._waiting_max = waiting_max
        self._chunk_tokens = chunk_tokens
        self._tokens_max = math.inf if tokens_max is None else tokens_max
        self._ageing_s = ageing_s
        self._arrivals = 0
        self._waiting: list[_Prompt] = []
        self._prefilling: _Prompt | None = None
        self._decoding: list[int] = []
        self._reserved: dict[int, int] = {}

    @property
    def waiting(self) -> int:
        """How many requests have no slot yet."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many slots are in use."""
        return len(self._decoding) + (self._prefilling is not None)

    @property
    def reserved_tokens(self) -> int:
        """What the requests with a slot may come to hold."""
        return sum(self._reserved.values())

    def submit(self, job: int, prompt_tokens: int, terms: Terms = PLAIN) -> bool:
        """Queue a request. A free slot is as good as a queue place.

        Returns:
            Whether it waits now; not if the queue is full, or if it would never fit.
        """
        rank = (terms.arrived_s - terms.priority * self._ageing_s, self._arrivals)
        prompt = _Prompt(rank, job, prompt_tokens, terms)
        free = self._slots - self.running
        if len(self._waiting) >= self._waiting_max + free or prompt.reserved > self._tokens_max:
            return False
        self._arrivals += 1
        insort(self._waiting, prompt)
        return True

    def late(self, now_s: float) -> tuple[int, ...]:
        """Take those out of the queue who cannot begin in time any more; return their ids."""
        late = tuple(prompt.job for prompt in self._waiting if prompt.terms.latest_s < now_s)
        if late:
            self._waiting = [each for each in self._waiting if each.terms.latest_s >= now_s]
        return late

    def plan(self, reusable: Callable[[int], int] | None = None) -> Step:
        """Return the next step, and reckon with its being carried out.

        Args:
            reusable: how many tokens of a request's prompt need not be run; asked once, when it
                gets its slot. Less than the prompt, and one of its `stops` if it has any.
        """
        decode = tuple(self._decoding)
        prefills: list[Prefill] = []
        room = self._chunk_tokens
        while room and len(prefills) < self._prompts and self._next_prompt(reusable):
            prefills.append(self._prefill(room))
            room -= prefills[-1].stop - prefills[-1].start
        return Step(tuple(prefills), decode)

    def _next_prompt(self, reusable: Callable[[int], int] | None) -> bool:
        if self._prefilling is None and self._waiting and self._fits(self._waiting[0]):
            prompt = self._prefilling = self._waiting.pop(0)
            self._reserved[prompt.job] = prompt.reserved
            prompt.done = 0 if reusable is None else reusable(prompt.job)
        return self._prefilling is not None

    def _fits(self, prompt: _Prompt) -> bool:
        room = self._tokens_max - self.reserved_tokens
        return self.running < self._slots and prompt.reserved <= room

    def _prefill(self, room: int) -> Prefill:
        prompt = self._prefilling
        assert prompt is not None
        start, first = prompt.done, not prompt.begun
        prompt.done, prompt.begun = prompt.stop(room), True
        last = prompt.done == prompt.tokens
        prefill = Prefill(prompt.job, len(self._decoding), start, prompt.done, last, first)
        if last:
            self._decoding.append(prompt.job)
            self._prefilling = None
        return prefill

    def remove(self, job: int) -> tuple[Move, ...]:
        """Let a request go, wherever it stands; unknown ones are none of our business."""
        self._reserved.pop(job, None)
        if self._prefilling is not None and self._prefilling.job == job:
            self._prefilling = None
            return ()
        if job in self._decoding:
            return self._close_gap(self._decoding.index(job))
        self._waiting = [prompt for prompt in self._waiting if prompt.job != job]
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
