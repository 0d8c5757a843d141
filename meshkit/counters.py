"""Counts of what happened in this process, how long its steps took, what is so now. PURE.

    counted("cache.down")
    counters()["cache.down"]

    with measured("tls.remaining_s.service.cache", lambda: holder.remaining_s):
        gauges()["tls.remaining_s.service.cache"]

    observed("audit.fsync", seconds, SECONDS)
    histograms()["audit.fsync"].counts

Cheap to write, and read only when somebody asks: `meshkit.metrics` does at each scrape, and turns
the names into metrics by `meshkit.metric_names`, where every one of them stands. Not persistent and
not per tenant: names are constants of ours with parts out of closed lists, so there are a few
hundred of them; of each kind there are never more than `NAMES_MAX`, and what would be more is
counted as `metrics.overflow`. Reading works from any thread.
"""

from __future__ import annotations

from bisect import bisect_left
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "NAMES_MAX",
    "SECONDS",
    "TOKENS",
    "Histogram",
    "StepTime",
    "counted",
    "counters",
    "forget_step_times",
    "gauges",
    "histograms",
    "measured",
    "observed",
    "step_times",
    "step_took",
]

NAMES_MAX: Final = 2_048
"""Of counters, and of histograms. A bug that counted under free names would fill the memory."""

SECONDS: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0),
)
"""Upper bounds of buckets, from an L1 hit to the longest call."""
TOKENS: Final = (1.0, 4.0, 16.0, 64.0, 256.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0)
"""Upper bounds of buckets, by the conventions of `gen_ai.client.token.usage`."""

_OVERFLOW = "metrics.overflow"

_counters: dict[str, int] = {}
_histograms: dict[str, _Buckets] = {}
_steps: dict[str, list[int]] = {}
_gauges: dict[str, Callable[[], float]] = {}


class StepTime(NamedTuple):
    """How often a step ran and how long all runs took together, in nanoseconds of wall time."""

    runs: int
    total_ns: int


class Histogram(NamedTuple):
    """What was observed: `counts[i]` of at most `bounds[i]`, the last of more than all bounds."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


class _Buckets:
    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0


def counted(name: str, amount: int = 1) -> None:
    """Count something under a constant name, such as `cache.down`. Cost: 0.1 us."""
    if name in _counters:
        _counters[name] += amount
    elif len(_counters) < NAMES_MAX or name == _OVERFLOW:
        _counters[name] = amount
    else:
        counted(_OVERFLOW)


def counters() -> dict[str, int]:
    """Return a copy of all counts since the process started."""
    return dict(_counters)


def observed(name: str, value: float, bounds: tuple[float, ...] = SECONDS) -> None:
    """Put a value into its bucket. The first call under a name fixes the bounds. Cost: 0.4 us."""
    known = _histograms.get(name)
    if known is None:
        if len(_histograms) >= NAMES_MAX:
            counted(_OVERFLOW)
            return
        known = _histograms[name] = _Buckets(bounds)
    known.counts[bisect_left(known.bounds, value)] += 1
    known.total += value


def histograms() -> dict[str, Histogram]:
    """Return a copy of what was observed since the process started."""
    return {
        name: Histogram(each.bounds, tuple(each.counts), each.total)
        for name, each in list(_histograms.items())
    }


@contextmanager
def measured(name: str, read: Callable[[], float]) -> Iterator[None]:
    """Have a value read whenever somebody asks for `gauges`, for as long as the block runs.

    `read` is called from any thread: it must neither wait nor change anything.
    """
    _gauges[name] = read
    try:
        yield
    finally:
        if _gauges.get(name) is read:  # else a newer owner has taken the name over
            del _gauges[name]


def gauges() -> dict[str, float]:
    """Return what each measured value is now; one that cannot be read is left out and counted."""
    found = {}
    for name, read in list(_gauges.items()):
        try:
            found[name] = float(read())
        except Exception:  # noqa: BLE001 -- one broken gauge must not take all metrics away
            counted("metrics.unread")
    return found


def step_took(name: str, elapsed_ns: int) -> None:
    """Add one run of a step. Cost: 0.15 us."""
    entry = _steps.get(name)
    if entry is None:
        _steps[name] = [1, elapsed_ns]
        return
    entry[0] += 1
    entry[1] += elapsed_ns


def step_times() -> dict[str, StepTime]:
    """Return what each step took since the process started (or `forget_step_times`)."""
    return {name: StepTime(runs, total_ns) for name, (runs, total_ns) in list(_steps.items())}


def forget_step_times() -> None:
    """Start anew: a benchmark does after its warm-up."""
    _steps.clear()
