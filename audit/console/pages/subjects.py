"""People whom data is about: erasure, export and legal holds, by `audit.privacy.erasure.Custody`.

What is done here is recorded there, before it has an effect or anything leaves.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from aiohttp import web

from audit.console.gate import HEADERS, Visit, form_of, rendered, visit_of
from audit.console.house import CONSOLE
from audit.privacy.holds import HoldScope
from meshkit.contract import Reason, Refusal

if TYPE_CHECKING:
    from audit.privacy.disclosure import Item
    from audit.privacy.erasure import Custody

__all__ = ["ROUTES"]

ERASE, EXPORT, HOLD, RELEASE = "payload.erase", "payload.export", "hold.set", "hold.release"
_LIST = "hold.list"


def _custody(request: web.Request, action: str) -> tuple[Custody, Visit]:
    """Return what keeps payloads, for somebody who may do `action`. Raises Refusal."""
    visit = visit_of(request)
    visit.must(action)
    custody = request.app[CONSOLE].custody
    if custody is None:
        raise Refusal(Reason.NOT_FOUND)
    return custody, visit


async def page(request: web.Request) -> web.Response:
    """GET /subjects."""
    visit = visit_of(request)
    custody = request.app[CONSOLE].custody
    may = {action: visit.may(action) for action in (ERASE, EXPORT, HOLD, RELEASE, _LIST)}
    holds = None
    if custody is not None and may[_LIST]:
        holds = await custody.holds(visit.tenant, actor=visit.actor, connection=visit.connection)
    return rendered(
        request,
        "subjects.html",
        kept=custody is not None,
        may=may,
        holds=holds,
        scopes=[scope.value for scope in HoldScope],
    )


async def erase(request: web.Request) -> web.Response:
    """POST /subjects/erase."""
    custody, visit = _custody(request, ERASE)
    form = await form_of(request)
    if form.get("sure") != "yes":
        raise Refusal(Reason.INVALID_FIELD, field="sure")
    erased = await custody.erase_subject(
        visit.tenant, form.get("subject", ""), actor=visit.actor, connection=visit.connection
    )
    return rendered(request, "erased.html", erased=erased, call=erased.call_id.hex())


async def export(request: web.Request) -> web.StreamResponse:
    """POST /subjects/export: JSON lines, one for each payload, as they are read."""
    custody, visit = _custody(request, EXPORT)
    form = await form_of(request)
    items = custody.export_subject(
        visit.tenant, form.get("subject", ""), actor=visit.actor, connection=visit.connection
    )
    # The first is asked for before the answer begins: a refusal still has a page of its own.
    first = await anext(items, None)
    if first is None:
        raise Refusal(Reason.NOT_FOUND)
    reply = web.StreamResponse(
        headers={
            **HEADERS,
            "Content-Type": "application/x-ndjson",
            "Content-Disposition": 'attachment; filename="export.jsonl"',
        }
    )
    await reply.prepare(request)
    await reply.write(_line(first))
    async for item in items:
        await reply.write(_line(item))
    await reply.write_eof()
    return reply


def _line(item: Item) -> bytes:
    told = {
        "index": item.index,
        "call_id": item.call_id.hex(),
        "phase": item.phase.value,
        "received_us": item.received_us,
        "retention": item.retention,
        "screened": [
            {"role": message.role.value, "content": message.content}
            for message in item.payload.screened
        ],
        "released": item.payload.released,
        "salts": {name: salt.hex() for name, salt in item.salts.items()},
    }
    return json.dumps(told, ensure_ascii=False).encode() + b"\n"


async def hold(request: web.Request) -> web.Response:
    """POST /subjects/hold."""
    custody, visit = _custody(request, HOLD)
    form = await form_of(request)
    try:
        scope = HoldScope(form.get("scope", ""))
    except ValueError:
        raise Refusal(Reason.INVALID_FIELD, field="scope") from None
    await custody.set_hold(
        visit.tenant,
        scope,
        form.get("value", ""),
        form.get("reference", ""),
        actor=visit.actor,
        connection=visit.connection,
    )
    return _back()


async def release(request: web.Request) -> web.Response:
    """POST /subjects/holds/<id>/release."""
    custody, visit = _custody(request, RELEASE)
    hold_id = bytes.fromhex(request.match_info["hold"])
    await custody.release_hold(
        visit.tenant, hold_id, actor=visit.actor, connection=visit.connection
    )
    return _back()


def _back() -> web.Response:
    return web.Response(status=303, headers={"Location": "/subjects"})


ROUTES = (
    web.get("/subjects", page),
    web.post("/subjects/erase", erase),
    web.post("/subjects/export", export),
    web.post("/subjects/hold", hold),
    web.post(r"/subjects/holds/{hold:[0-9a-f]{32}}/release", release),
)
