"""The figures as bars, in SVG: what a variant loses, and what it weighs. PURE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Callable

    from inference.precision.report import Row

__all__ = ["picture"]

_LABEL, _PANEL, _GAP, _NUMBER, _LINE, _TOP = 190, 170, 24, 62, 26, 64
_FONT = "font-family='system-ui,sans-serif'"


@dataclass(frozen=True, slots=True)
class _Panel:
    title: str
    colour: str
    value: Callable[[Row], float]
    told: Callable[[float], str]


def picture(rows: list[Row], title: str) -> str:
    """Draw a row of bars a variant: perplexity's rise, agreement, size of the file.

    Bars of one panel share a scale; a rise over 100 % is drawn as 100 and told in figures.
    """
    panels = (
        _Panel("perplexity, rise", "#c2410c", lambda row: row.against(rows[0]), _percent),
        _Panel("agreement", "#15803d", lambda row: row.agreement, lambda v: f"{v:.1%}"),
        _Panel("file, MB", "#1d4ed8", lambda row: row.file_bytes / 1e6, lambda v: f"{v:,.0f}"),
    )
    width = _LABEL + len(panels) * (_PANEL + _NUMBER + _GAP)
    height = _TOP + _LINE * len(rows) + 16
    size = f"viewBox='0 0 {width} {height}' width='{width}' height='{height}'"
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' {size} role='img'>",
        f"<title>{escape(title)}</title>",
        "<rect width='100%' height='100%' fill='#ffffff'/>",
        _text(16, 26, title, size=15, weight=600),
    ]
    for i, row in enumerate(rows):
        parts.append(_text(16, _TOP + _LINE * i + 14, row.name))
    for number, panel in enumerate(panels):
        left = _LABEL + number * (_PANEL + _NUMBER + _GAP)
        parts += [_text(left, _TOP - 12, panel.title, weight=600), *_bars(panel, rows, left)]
    return "\n".join([*parts, "</svg>", ""])


def _bars(panel: _Panel, rows: list[Row], left: int) -> list[str]:
    values = [panel.value(row) for row in rows]
    top = max(min(max(values), 1.0) if panel.told is _percent else max(values), 1e-9)
    parts = []
    for i, value in enumerate(values):
        y = _TOP + _LINE * i
        length = _PANEL * min(max(value, 0.0) / top, 1.0)
        shape = f"x='{left}' y='{y + 2}' width='{length:.1f}' height='16' rx='2'"
        parts += [
            f"<rect {shape} fill='{panel.colour}'/>",
            _text(round(left + length) + 6, y + 14, panel.told(value)),
        ]
    return parts


def _percent(value: float) -> str:
    return f"{value:+.1%}"


def _text(x: int, y: int, text: str, *, size: int = 12, weight: int = 400) -> str:
    return (
        f"<text x='{x}' y='{y}' {_FONT} font-size='{size}' font-weight='{weight}' "
        f"fill='#1f2937'>{escape(text)}</text>"
    )
