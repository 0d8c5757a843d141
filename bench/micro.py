"""CPU time of small things, in process: what other work on the machine does not disturb much."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

BATCH = 16
"""Calls between two looks at the clock: it costs 0.3 us."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure: CPU seconds of a repeat, and how many."""

    seconds: float
    repeats: int

    def per_call_us(self, call: Callable[[int], object]) -> list[float]:
        """See `per_call_us`."""
        return per_call_us(call, seconds=self.seconds, repeats=self.repeats)

    async def per_await_us(
        self, call: Callable[[int], Awaitable[object]], *, of: int = 1
    ) -> list[float]:
        """See `per_await_us`."""
        return await per_await_us(call, seconds=self.seconds, repeats=self.repeats, of=of)


def per_call_us(call: Callable[[int], object], *, seconds: float, repeats: int) -> list[float]:
    """Return CPU microseconds a call, one mean a repeat.

    Args:
        call: Gets 0, 1, 2 …, counted on through all repeats.
        seconds: CPU time of one repeat; at least one batch is run.
        repeats: How many; one more goes before, for warm caches.
    """
    number = 0
    means = []
    for _ in range(repeats + 1):
        start, first = time.process_time_ns(), number
        while (time.process_time_ns() - start) < seconds * 1e9 or number == first:
            for _ in range(BATCH):
                call(number)
                number += 1
        spent = time.process_time_ns() - start
        means.append(spent / (number - first) / 1_000)
    return means[1:]


async def per_await_us(
    call: Callable[[int], Awaitable[object]],
    *,
    seconds: float,
    repeats: int,
    of: int = 1,
) -> list[float]:
    """Do the same with coroutines, one at a time; threads of this process count as well.

    Args:
        call: As for `per_call_us`.
        seconds: As for `per_call_us`.
        repeats: As for `per_call_us`.
        of: How many things one call does; the mean is of one thing.
    """
    number = 0
    means = []
    for _ in range(repeats + 1):
        start, first = time.process_time_ns(), number
        while (time.process_time_ns() - start) < seconds * 1e9 or number == first:
            for _ in range(BATCH):
                await call(number)
                number += 1
        spent = time.process_time_ns() - start
        means.append(spent / (number - first) / of / 1_000)
    return means[1:]
