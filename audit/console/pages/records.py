"""A record with its proof, its call, its trace, its texts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from audit.console.desk import Desk
from audit.console.fields import fields_of, pretty
from audit.console.gate import rendered, visit_of
from audit.console.house import CONSOLE
from audit.console.pages.static import attached
from audit.console.waterfall import waterfall_of
from meshkit.contract import Phase, Reason, Refusal

if TYPE_CHECKING:
    from audit.console.desk import Entry
    from audit.console.waterfall import Waterfall

__all__ = ["ROUTES"]

_ID = r"[0-9a-f]{32}"
_DIGEST = re.compile(r"\b[0-9a-f]{64}\b")
_OPENABLE = ("event.model_digest", "event.prompt_template_digest", "event.detail", "event.policies")


@dataclass(frozen=True, slots=True)
class _Row:
    """A field as the table has it; `digests` name what the archive may have."""

    name: str
    value: str
    meaning: str
    digests: tuple[str, ...]


def _rows(entry: Entry) -> list[_Row]:
    rows = []
    for field in fields_of(entry.event, entry.log):
        digests = tuple(_DIGEST.findall(field.value)) if field.name in _OPENABLE else ()
        rows.append(_Row(field.name, field.value, field.meaning, digests))
    return rows


def _falls(request: web.Request, entries: list[Entry]) -> Waterfall:
    spans = request.app[CONSOLE].spans
    traces = {bytes.fromhex(entry.event["trace_id"]) for entry in entries}
    kept = [] if spans is None else [span for trace in traces for span in spans.of(trace)]
    return waterfall_of([(entry.event, entry.log) for entry in entries], kept)


async def _call(request: web.Request) -> tuple[Desk, list[Entry]]:
    desk = Desk(visit_of(request))
    return desk, await desk.call(bytes.fromhex(request.match_info["call"]))


async def _entry(request: web.Request) -> tuple[Desk, Entry, list[Entry]]:
    desk, entries = await _call(request)
    for entry in entries:
        if entry.phase == request.match_info["phase"]:
            return desk, entry, entries
    raise Refusal(Reason.NOT_FOUND)


async def call(request: web.Request) -> web.Response:
    """GET /calls/<call id>."""
    _, entries = await _call(request)
    phases = {entry.phase for entry in entries}
    return rendered(
        request,
        "call.html",
        call=entries[0].call,
        entries=entries,
        open=Phase.INTENT.value in phases and Phase.OUTCOME.value not in phases,
        trace=entries[0].event["trace_id"],
        falls=_falls(request, entries),
    )


async def record(request: web.Request) -> web.Response:
    """GET /calls/<call id>/<phase>."""
    desk, entry, entries = await _entry(request)
    return rendered(
        request,
        "record.html",
        entry=entry,
        others=entries if len(entries) > 1 else [],
        proved=await desk.proved(entry),
        vkey=request.app[CONSOLE].log.vkey,
        has_payload="payload_sha256" in entry.log,
        may_payload=visit_of(request).may("payload.read"),
        fields=_rows(entry),
        pretty=pretty(entry.leaf),
        falls=_falls(request, entries),
    )


async def proof(request: web.Request) -> web.Response:
    """GET /calls/<call id>/<phase>/proof: a C2SP tlog-proof file."""
    desk, entry, _ = await _entry(request)
    proved = await desk.proved(entry)
    if proved is None:
        raise Refusal(Reason.OVERLOADED)  # durable, and in the next checkpoint
    return attached(proved.text, f"entry-{entry.index}.tlog-proof")


async def texts(request: web.Request) -> web.Response:
    """POST /calls/<call id>/texts: an act, so no link or prefetch does it. Recorded there."""
    visit = visit_of(request)
    visit.must("payload.read")
    custody = request.app[CONSOLE].custody
    if custody is None:
        raise Refusal(Reason.NOT_FOUND)
    items = await custody.read_payload(
        visit.tenant,
        bytes.fromhex(request.match_info["call"]),
        actor=visit.actor,
        connection=visit.connection,
    )
    return rendered(request, "texts.html", call=request.match_info["call"], items=items)


async def trace(request: web.Request) -> web.Response:
    """GET /traces/<trace id>."""
    desk = Desk(visit_of(request))
    entries = await desk.trace(bytes.fromhex(request.match_info["trace"]))
    return rendered(
        request,
        "trace.html",
        trace=request.match_info["trace"],
        entries=entries,
        falls=_falls(request, entries),
        receiving=request.app[CONSOLE].spans is not None,
    )


_CALL = rf"/calls/{{call:{_ID}}}"
_RECORD = rf"{_CALL}/{{phase:intent|outcome|note}}"
ROUTES = (
    web.get(_CALL, call),
    web.get(_RECORD, record),
    web.get(f"{_RECORD}/proof", proof),
    web.post(f"{_CALL}/texts", texts),
    web.get(rf"/traces/{{trace:{_ID}}}", trace),
)
