"""How the log stands, and what was recorded last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from audit.console.desk import Desk
from audit.console.gate import rendered, visit_of
from audit.console.house import CONSOLE, Console
from audit.console.pages.static import attached
from audit.questions import Question
from meshkit.tlog import NoteInvalid, VerifierKey, open_checkpoint

if TYPE_CHECKING:
    from meshkit.contract import Checkpoint

__all__ = ["ROUTES"]

_NEWEST = 12
_READS = 8


@dataclass(frozen=True, slots=True)
class _Standing:
    """What overview and checkpoint page both say."""

    origin: str
    checkpoint: Checkpoint
    signed: bool
    age_s: float
    witnesses: object


async def _standing(console: Console) -> _Standing:
    checkpoint = await console.log.checkpoint()
    key = VerifierKey.parse(console.log.vkey)
    try:
        signed = open_checkpoint(checkpoint.note, key).size == checkpoint.size
    except NoteInvalid:
        signed = False
    return _Standing(
        key.name, checkpoint, signed, console.log.parts.publisher.checkpoint_age_s, None
    )


async def page(request: web.Request) -> web.Response:
    """GET /."""
    console = request.app[CONSOLE]
    standing = await _standing(console)
    desk = Desk(visit_of(request))
    return rendered(
        request,
        "overview.html",
        origin=standing.origin,
        stats=console.log.stats,
        age_s=standing.age_s,
        signed=standing.signed,
        witnesses=standing.witnesses,
        entries=(await desk.find(Question(), limit=_NEWEST)).entries,
        reads=(await desk.find(Question(action="log.read"), limit=_READS)).entries,
    )


async def checkpoint_page(request: web.Request) -> web.Response:
    """GET /checkpoint: public by nature, so no read is recorded."""
    standing = await _standing(request.app[CONSOLE])
    return rendered(
        request,
        "checkpoint.html",
        origin=standing.origin,
        checkpoint=standing.checkpoint,
        signed=standing.signed,
        age_s=standing.age_s,
        witnesses=standing.witnesses,
        policy=False,
        vkey=request.app[CONSOLE].log.vkey,
    )


async def note(request: web.Request) -> web.Response:
    """GET /checkpoint/note: as it is published."""
    return attached((await request.app[CONSOLE].log.checkpoint()).note, "checkpoint")


ROUTES = (
    web.get("/", page),
    web.get("/checkpoint", checkpoint_page),
    web.get("/checkpoint/note", note),
)
