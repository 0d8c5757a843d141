"""Verdicts and outcomes over time, as charts and as tables."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

from aiohttp import web

from audit.console.charts import chart_of
from audit.console.desk import Desk
from audit.console.fields import day_of
from audit.console.gate import rendered, visit_of
from audit.console.house import CONSOLE
from audit.questions import Question

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from audit.console.desk import Entry
    from audit.console.gate import Visit

__all__ = ["ROUTES"]

_DAY_US = 86_400_000_000
_LABELS_MAX = 8
_PAGE = 1_000


async def page(request: web.Request) -> web.Response:
    """GET /verdicts."""
    settings = request.app[CONSOLE].settings
    today = time.time_ns() // 1_000
    first = today // _DAY_US * _DAY_US - (settings.chart_days - 1) * _DAY_US
    days = [day_of(first + number * _DAY_US) for number in range(settings.chart_days)]
    entries, more = await _counted(visit_of(request), Question(since_us=first))
    charts = (
        ("Found in texts", chart_of(days, _verdicts(entries)), "Findings of each type."),
        (
            "Done about them",
            chart_of(days, _actions(entries)),
            "What policy did about findings.",
        ),
        ("Outcomes of calls", chart_of(days, _outcomes(entries)), "What became of calls."),
    )
    return rendered(
        request,
        "verdicts.html",
        charts=charts,
        days=settings.chart_days,
        every=-(-settings.chart_days // _LABELS_MAX),
        partial=len(entries) if more else 0,
    )


async def _counted(visit: Visit, question: Question) -> tuple[list[Entry], bool]:
    """Read the newest records, as many as are counted; return whether there are more."""
    desk, entries, token = Desk(visit), [], ""
    while True:
        found = await desk.find(question, limit=_PAGE, token=token)
        entries += found.entries
        token = found.token
        if not token or len(entries) >= visit.console.settings.chart_records_max:
            return entries, bool(token)


def _tallied(pairs: Iterable[tuple[str, str, int]]) -> Sequence[tuple[str, str, int]]:
    tally: Counter[tuple[str, str]] = Counter()
    for day, name, count in pairs:
        tally[day, name] += count
    return [(day, name, count) for (day, name), count in tally.items()]


def _verdicts(entries: Iterable[Entry]) -> Sequence[tuple[str, str, int]]:
    return _tallied(
        (day_of(entry.event["time_us"]), row[1], row[4])
        for entry in entries
        for row in entry.event.get("verdicts", ())
    )


def _actions(entries: Iterable[Entry]) -> Sequence[tuple[str, str, int]]:
    return _tallied(
        (day_of(entry.event["time_us"]), row[3], row[4])
        for entry in entries
        for row in entry.event.get("verdicts", ())
    )


def _outcomes(entries: Iterable[Entry]) -> Sequence[tuple[str, str, int]]:
    return _tallied(
        (day_of(entry.event["time_us"]), entry.event.get("outcome", "none"), 1)
        for entry in entries
        if entry.phase == "outcome"
    )


ROUTES = (web.get("/verdicts", page),)
