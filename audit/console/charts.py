"""Verdicts over time as a stacked column chart: its geometry, and the same as a table. PURE.

What is drawn is drawn by a template; here nothing but numbers and names is made.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Chart", "Column", "Part", "Series", "chart_of"]

SERIES_MAX = 6
WIDTH, HEIGHT = 720.0, 220.0
_LEFT, _BOTTOM, _TOP = 44.0, 24.0, 8.0
_GAP = 0.28
_OTHERS = "others"


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a column: number of its series, count, and its place."""

    series: int
    count: int
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Column:
    """A day."""

    day: str
    x: float
    width: float
    parts: tuple[Part, ...]
    total: int


@dataclass(frozen=True, slots=True)
class Series:
    """What is counted, and how often on each day."""

    name: str
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """All of it; `lines` are the grid's (y, count)."""

    columns: tuple[Column, ...]
    series: tuple[Series, ...]
    lines: tuple[tuple[float, int], ...]
    total: int
    width: float = WIDTH
    height: float = HEIGHT
    left: float = _LEFT
    floor: float = HEIGHT - _BOTTOM


def chart_of(days: Sequence[str], counts: Iterable[tuple[str, str, int]]) -> Chart:
    """Lay out counts.

    Args:
        days: Shown, in order, also those without a count.
        counts: Day, name and how often. The six most frequent names have a series of their own.
    """
    totals: Counter[str] = Counter()
    by_day: dict[str, Counter[str]] = {day: Counter() for day in days}
    for day, name, count in counts:
        if day in by_day:
            totals[name] += count
            by_day[day][name] += count
    names = [name for name, _ in sorted(totals.items(), key=lambda pair: (-pair[1], pair[0]))]
    shown = names if len(names) <= SERIES_MAX else names[: SERIES_MAX - 1]
    series = [Series(name, tuple(by_day[day][name] for day in days)) for name in shown]
    if len(shown) < len(names):
        rest = names[len(shown) :]
        others = tuple(sum(by_day[day][name] for name in rest) for day in days)
        series.append(Series(_OTHERS, others))
    return _laid_out(days, series)


def _laid_out(days: Sequence[str], series: Sequence[Series]) -> Chart:
    floor, room = HEIGHT - _BOTTOM, HEIGHT - _BOTTOM - _TOP
    sums = [sum(each.counts[at] for each in series) for at in range(len(days))]
    top = _round_up(max(sums, default=0))
    step = (WIDTH - _LEFT) / max(len(days), 1)
    columns = []
    for at, day in enumerate(days):
        parts, y = [], floor
        for number, each in enumerate(series):
            height = each.counts[at] / top * room
            y -= height
            if each.counts[at]:
                parts.append(Part(number, each.counts[at], round(y, 1), round(height, 1)))
        x = _LEFT + step * (at + _GAP / 2)
        columns.append(
            Column(day, round(x, 1), round(step * (1 - _GAP), 1), tuple(parts), sums[at])
        )
    lines = tuple(
        (round(floor - room * quarter / 4, 1), top * quarter // 4) for quarter in range(5)
    )
    return Chart(columns=tuple(columns), series=tuple(series), lines=lines, total=sum(sums))


def _round_up(most: int) -> int:
    """Return the next number that four grid lines divide nicely."""
    size = 4
    while size < most:
        for factor in (2, 2.5, 2):
            size = int(size * factor)
            if size >= most:
                break
    return size
