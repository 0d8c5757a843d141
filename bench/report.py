"""Figures as `latest.json` and as a table for people."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bench.catalogue import ENTRIES, Figure

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

HEADINGS = ("figure", "value", "unit", "reference", "ratio", "spread", "budget", "stretch", "")


def as_json(figure: Figure) -> dict[str, Any]:
    """Return one figure as latest.json holds it.

    `value`, `unit`, `reference`, `ratio`, `command` are the contract; the rest is there to judge.
    """
    entry = ENTRIES[figure.name]
    return {
        "value": figure.value,
        "unit": entry.unit,
        "reference": figure.reference,
        "ratio": figure.ratio,
        "command": f"python -m bench --only {figure.name}",
        "meaning": entry.meaning,
        "spread": figure.spread,
        "budget": entry.budget and entry.budget.budget,
        "stretch": entry.budget and entry.budget.stretch,
        "verdict": figure.verdict.value,
        "note": figure.note,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def write(path: Path, machine: dict[str, Any], figures: Iterable[Figure]) -> None:
    """Write results, keeping figures of earlier runs on the same machine that are not among these.

    Written aside and renamed, so that a reader never sees half a file.
    """
    kept = _figures_of_same_machine(path, machine)
    kept.update({figure.name: as_json(figure) for figure in figures})
    ordered = {name: kept[name] for name in ENTRIES if name in kept}
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps({"machine": machine, "figures": ordered}, indent=2) + "\n")
    aside.replace(path)


def _figures_of_same_machine(path: Path, machine: dict[str, Any]) -> dict[str, Any]:
    try:
        before = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    alike = ("cpu", "instructions", "cores", "filesystem")
    same = all(before["machine"].get(key) == machine[key] for key in alike)
    return before["figures"] if same else {}


def table(figures: Sequence[Figure]) -> str:
    """Lay the figures out in columns, notes below."""
    rows = [HEADINGS, *(_row(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(r, widths, strict=True)) for r in rows]
    notes = [f"{figure.name}: {figure.note}" for figure in figures if figure.note]
    return "\n".join([line.rstrip() for line in [*lines, "", *notes]])


def _row(figure: Figure) -> tuple[str, ...]:
    entry = ENTRIES[figure.name]
    goals: tuple[str, ...] = ("", "")
    if entry.budget is not None:
        sign = ">=" if entry.budget.better == "higher" else "<="
        of = "x " if entry.budget.of == "ratio" else ""
        goals = tuple(
            f"{of}{sign} {_number(goal)}" for goal in (entry.budget.budget, entry.budget.stretch)
        )
    return (
        figure.name,
        _number(figure.value),
        entry.unit,
        _number(figure.reference),
        _number(figure.ratio),
        "" if figure.spread is None else f"{100 * figure.spread:.0f} %",
        *goals,
        figure.verdict.value,
    )


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
