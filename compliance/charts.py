"""Two charts as inline SVG: pairs of bars, and a curve on logarithmic axes. PURE."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Bar", "bars", "curve"]

WIDTH = 720
LABEL = 196
"""Width of the column of names."""
FULL = 440
"""Length of a bar that stands for 1."""
ROW, THICK, GAP = 36, 11, 3
LABEL_CHARS = 26


@dataclass(frozen=True, slots=True)
class Bar:
    """A share of ours, and the baseline's if there is one; 0 to 1."""

    name: str
    ours: float
    theirs: float | None


def bars(rows: Sequence[Bar], title: str) -> str:
    """Draw bars in pairs, ours above the baseline's, with their values behind them."""
    height = ROW * len(rows) + 22
    told = "; ".join(_spoken(row) for row in rows)
    parts = [_open(height, f"{title}. {told}"), *_grid_lines(height)]
    for number, row in enumerate(rows):
        parts += _pair(row, number * ROW + 6)
    return "\n".join((*parts, "</svg>"))


def _spoken(row: Bar) -> str:
    beside = f", baseline {row.theirs:.3f}" if row.theirs is not None else ""
    return f"{row.name} {row.ours:.3f}{beside}"


def _open(height: float, label: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(label)}" '
        'xmlns="http://www.w3.org/2000/svg">'
    )


def _grid_lines(height: float) -> Iterator[str]:
    for tenth in (0, 25, 50, 75, 100):
        x = LABEL + FULL * tenth / 100
        yield f'<line class="grid" x1="{x:g}" y1="0" x2="{x:g}" y2="{height - 18:g}"/>'
        yield f'<text class="axis" x="{x:g}" y="{height - 4:g}">{tenth / 100:g}</text>'


def _pair(row: Bar, top: float) -> Iterator[str]:
    name = row.name if len(row.name) <= LABEL_CHARS else row.name[: LABEL_CHARS - 1] + "…"
    middle = top + (THICK if row.theirs is not None else THICK / 2) + 2
    yield f'<text class="name" x="{LABEL - 10}" y="{middle + 2:g}">{escape(name)}</text>'
    yield from _bar("ours", row.ours, top)
    if row.theirs is not None:
        yield from _bar("theirs", row.theirs, top + THICK + GAP)


def _bar(kind: str, share: float, top: float) -> Iterator[str]:
    length = FULL * min(1.0, max(0.0, share))
    yield (
        f'<rect class="{kind}" x="{LABEL}" y="{top:g}" width="{length:.1f}" height="{THICK}" '
        'rx="2"/>'
    )
    yield (
        f'<text class="value" x="{LABEL + length + 6:.1f}" y="{top + THICK - 1:g}">'
        f"{share:.3f}</text>"
    )


# --- the curve ------------------------------------------------------------------------------

LEFT, TOP, BOTTOM, RIGHT = 90, 16, 250, 690


def curve(points: Sequence[tuple[float, float]], title: str) -> str:
    """Draw microseconds over characters, both axes logarithmic; at least two points, above 0."""
    told = "; ".join(f"{x:,.0f} characters {y:,.0f} microseconds" for x, y in points)
    xs, ys = [math.log10(x) for x, _ in points], [math.log10(y) for _, y in points]
    left, right = math.floor(min(xs)), math.ceil(max(xs))
    low, high = math.floor(min(ys)), math.ceil(max(ys))
    places = [
        (
            LEFT + (RIGHT - LEFT) * (x - left) / max(right - left, 1),
            BOTTOM - (BOTTOM - TOP) * (y - low) / max(high - low, 1),
        )
        for x, y in zip(xs, ys, strict=True)
    ]
    parts = [_open(BOTTOM + 44, f"{title}. {told}")]
    for power in range(low, high + 1):
        y = BOTTOM - (BOTTOM - TOP) * (power - low) / max(high - low, 1)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:g}" x2="{RIGHT}" y2="{y:g}"/>')
        parts.append(f'<text class="name" x="{LEFT - 8}" y="{y + 4:g}">{_time(10**power)}</text>')
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts.append(f'<polyline class="line" points="{path}"/>')
    for (x, y), (size, value) in zip(places, points, strict=True):
        parts.append(f'<circle class="ours" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
        parts.append(f'<text class="axis" x="{x:.1f}" y="{BOTTOM + 18}">{size:,.0f}</text>')
        place = f'x="{x - 7:.1f}" y="{y - 7:.1f}"'
        parts.append(f'<text class="value" text-anchor="end" {place}>{_time(value)}</text>')
    return "\n".join((*parts, "</svg>"))


def _time(microseconds: float) -> str:
    for least, unit in ((1e6, "s"), (1e3, "ms")):
        if microseconds >= least:
            return f"{microseconds / least:,.3g} {unit}"
    return f"{microseconds:,.3g} us"
