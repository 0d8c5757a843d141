"""Counts of what happened in this process, and how long its steps took. PURE.

    counted("cache.down")
    counters()["cache.down"]

    with measured("tls.remaining_s.service.cache", lambda: holder.remaining_s):
        gauges()["tls.remaining_s.service.cache"]

Not persistent and not per tenant: names are constants of ours, so there are a few dozen of them.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "StepTime",
    "counted",
    "counters",
    "forget_step_times",
    "gauges",
    "measured",
    "step_times",
    "step_took",
]

_counters: Counter[str] = Counter()
_steps: dict[str, list[int]] = {}
_gauges: dict[str, Callable[[], float]] = {}


class StepTime(NamedTuple):
    """How often a step ran and how long all runs took together, in nanoseconds of wall time."""

    runs: int
    total_ns: int


def counted(name: str, amount: int = 1) -> None:
    """Count something under a constant name, such as `cache.down`."""
    _counters[name] += amount


def counters() -> dict[str, int]:
    """Return a copy of all counts since the process started."""
    return dict(_counters)


@contextmanager
def measured(name: str, read: Callable[[], float]) -> Iterator[None]:
    """Have a value read whenever somebody asks for `gauges`, for as long as the block runs."""
    _gauges[name] = read
    try:
        yield
    finally:
        if _gauges.get(name) is read:  # else a newer owner has taken the name over
            del _gauges[name]


def gauges() -> dict[str, float]:
    """Return what each measured value is now."""
    return {name: read() for name, read in list(_gauges.items())}


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
    return {name: StepTime(runs, total_ns) for name, (runs, total_ns) in _steps.items()}


def forget_step_times() -> None:
    """Start anew: a benchmark does after its warm-up."""
    _steps.clear()
