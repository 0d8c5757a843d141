"""What was seen of a version lately: calls, and comparisons with the live one. PURE.

Windows slide by time and are bounded in number; the clock is the caller's.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

__all__ = [
    "SAMPLES_MAX",
    "Compared",
    "Comparison",
    "Sample",
    "Stats",
    "Window",
    "compared",
    "stats",
]

SAMPLES_MAX = 4_096
"""Of one window: beyond it the oldest go, however young."""

_TAIL = 0.99

ItemT = TypeVar("ItemT")


class Sample(NamedTuple):
    """One call as a version served it.

    took_s: From question to last token. tokens: Of the answer. failed: The version's own fault.
    """

    took_s: float
    tokens: int
    failed: bool = False


class Stats(NamedTuple):
    """A window of calls. p99_s, tokens (the mean): of those that ended well; 0: of none."""

    seen: int = 0
    error_rate: float = 0.0
    p99_s: float = 0.0
    tokens: float = 0.0


class Comparison(NamedTuple):
    """One prompt, answered by the live version and by the candidate.

    agreement: 0 to 1, see `comparison.agreement`. length_ratio: candidate's characters over live's.
    refused_*: Whether the answer reads like a refusal. slower: candidate's time over live's.
    """

    agreement: float
    length_ratio: float
    refused_live: bool
    refused_candidate: bool
    slower: float


class Compared(NamedTuple):
    """A window of comparisons: means; the refusals as rates."""

    seen: int = 0
    agreement: float = 0.0
    length_ratio: float = 0.0
    refusals_live: float = 0.0
    refusals_candidate: float = 0.0
    slower: float = 0.0


@dataclass(slots=True)
class Window(Generic[ItemT]):
    """What came within the last `life_s` seconds, at most `SAMPLES_MAX` of it."""

    life_s: float
    _items: deque[tuple[float, ItemT]] = field(default_factory=lambda: deque(maxlen=SAMPLES_MAX))

    def add(self, item: ItemT, now_s: float) -> None:
        """Note one. Cost: constant."""
        self._items.append((now_s, item))

    def recent(self, now_s: float) -> list[ItemT]:
        """Return what is young enough; a clock that was put back makes nothing old."""
        # A copy first: metrics are read from another thread.
        return [item for at_s, item in list(self._items) if at_s >= now_s - self.life_s]

    def clear(self) -> None:
        """Forget all: another state, other expectations."""
        self._items.clear()


def stats(samples: list[Sample]) -> Stats:
    """Sum calls up. Cost: a sort."""
    if not samples:
        return Stats()
    good = [sample for sample in samples if not sample.failed]
    errors = 1 - len(good) / len(samples)
    if not good:
        return Stats(seen=len(samples), error_rate=errors)
    times = sorted(sample.took_s for sample in good)
    p99_s = times[min(len(times) - 1, int(len(times) * _TAIL))]
    return Stats(len(samples), errors, p99_s, sum(sample.tokens for sample in good) / len(good))


def compared(comparisons: list[Comparison]) -> Compared:
    """Sum comparisons up."""
    count = len(comparisons)
    if not count:
        return Compared()
    sums = [sum(column) / count for column in zip(*comparisons, strict=True)]
    return Compared(count, *sums)
