"""Verdicts and outcomes over time, as charts and as tables."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web

from audit.console.charts import chart_of
from audit.console.desk import Desk
from audit.console.fields import day_of
from audit.console.gate import rendered, visit_of
from audit.console.house import CONSOLE
from audit.search.questions import Question

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
    async with request.app[CONSOLE].charting:
        tally, more = await _counted(visit_of(request), Question(since_us=first))
    charts = (
        ("Found in texts", chart_of(days, _listed(tally.types)), "Findings of each type."),
        ("Done about them", chart_of(days, _listed(tally.done)), "What policy did about findings."),
        ("Outcomes of calls", chart_of(days, _listed(tally.outcomes)), "What became of calls."),
    )
    return rendered(
        request,
        "verdicts.html",
        charts=charts,
        days=settings.chart_days,
        every=-(-settings.chart_days // _LABELS_MAX),
        partial=tally.records if more else 0,
    )


@dataclass(slots=True)
class _Tally:
    """How often each name was there on each day."""

    records: int = 0
    types: Counter[tuple[str, str]] = field(default_factory=Counter)
    done: Counter[tuple[str, str]] = field(default_factory=Counter)
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, entries: Sequence[Entry]) -> None:
        """Count records. Blocks: 70 µs each, most of it their parsing."""
        self.records += len(entries)
        for entry in entries:
            event = entry.event
            day = day_of(event["time_us"])
            for row in event.get("verdicts", ()):
                self.types[day, row[1]] += row[4]
                self.done[day, row[3]] += row[4]
            if entry.phase == "outcome":
                self.outcomes[day, event.get("outcome", "none")] += 1


async def _counted(visit: Visit, question: Question) -> tuple[_Tally, bool]:
    """Count the newest records, as many as are to be; return whether there are more.

    In a thread: the loop takes evidence, and 20,000 records would hold it up for a second.
    """
    desk, tally, token = Desk(visit), _Tally(), ""
    while True:
        found = await desk.find(question, limit=_PAGE, token=token)
        await asyncio.to_thread(tally.add, found.entries)
        token = found.token
        if not token or tally.records >= visit.console.settings.chart_records_max:
            return tally, bool(token)


def _listed(tally: Counter[tuple[str, str]]) -> Iterable[tuple[str, str, int]]:
    """Give day, name and count of each."""
    return ((day, name, count) for (day, name), count in tally.items())


ROUTES = (web.get("/verdicts", page),)
