"""How the log stands, and what was recorded last."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from audit.console.desk import Desk
from audit.console.fields import clock
from audit.console.gate import rendered, visit_of
from audit.console.house import CONSOLE, Console
from audit.console.pages.static import attached
from audit.search.questions import Question
from meshkit.contract import Phase, Reason, Refusal
from meshkit.tlog import LogKeys, NoteInvalid, open_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from audit.console.desk import Entry
    from meshkit.contract import Checkpoint

__all__ = ["ROUTES"]

_NEWEST = 12
_READS = 8


@dataclass(frozen=True, slots=True)
class _Witness:
    """A row of the table; `size` is -1 and `when` empty until it has cosigned in this run."""

    name: str
    size: int
    when: str
    why: str


@dataclass(frozen=True, slots=True)
class _Quorum:
    """What the witnesses of the policy say together, and each."""

    held: bool
    each: tuple[_Witness, ...]


def _quorum(console: Console) -> _Quorum | None:
    witnesses = console.log.witnesses
    if witnesses is None:
        return None
    rows = tuple(
        _Witness(
            name=", ".join(state.names),
            size=state.size,
            when=clock(state.cosigned_at_s * 1_000_000) if state.cosigned_at_s else "",
            why=state.failing or ("" if state.size >= 0 else "not yet"),
        )
        for state in witnesses.states
    )
    return _Quorum(witnesses.quorum, rows)


@dataclass(frozen=True, slots=True)
class _Standing:
    """What overview and checkpoint page both say."""

    origin: str
    checkpoint: Checkpoint
    signed: bool
    age_s: float
    witnesses: _Quorum | None


async def _standing(console: Console) -> _Standing:
    checkpoint = await console.log.checkpoint()
    key = LogKeys.parse(console.log.vkey)
    try:
        signed = open_checkpoint(checkpoint.note, key).size == checkpoint.size
    except NoteInvalid:
        signed = False
    return _Standing(
        key.name, checkpoint, signed, console.log.parts.publisher.checkpoint_age_s, _quorum(console)
    )


async def page(request: web.Request) -> web.Response:
    """GET /."""
    console = request.app[CONSOLE]
    standing = await _standing(console)
    visit = visit_of(request)
    entries: list[Entry] = []
    reads: list[Entry] = []
    if visit.may("audit.read"):
        desk = Desk(visit)
        entries = (await desk.find(Question(phase=Phase.OUTCOME), limit=_NEWEST)).entries
        reads = (await desk.find(Question(action="log.read"), limit=_READS)).entries
    return rendered(
        request,
        "overview.html",
        origin=standing.origin,
        stats=console.log.stats,
        age_s=standing.age_s,
        signed=standing.signed,
        witnesses=standing.witnesses,
        reading=visit.may("audit.read"),
        entries=entries,
        reads=reads,
    )


async def checkpoint_page(request: web.Request) -> web.Response:
    """GET /checkpoint: public by nature, so no read is recorded."""
    console = request.app[CONSOLE]
    standing = await _standing(console)
    return rendered(
        request,
        "checkpoint.html",
        origin=standing.origin,
        checkpoint=standing.checkpoint,
        signed=standing.signed,
        age_s=standing.age_s,
        witnesses=standing.witnesses,
        policy=_policy_file(console).exists(),
        vkey=request.app[CONSOLE].log.vkey,
    )


async def note(request: web.Request) -> web.Response:
    """GET /checkpoint/note: as it is published."""
    return attached((await request.app[CONSOLE].log.checkpoint()).note, "checkpoint")


def _policy_file(console: Console) -> Path:
    return console.log.parts.settings.data_dir / "policy"


async def policy(request: web.Request) -> web.Response:
    """GET /checkpoint/policy: the tlog-policy that auditors are handed."""
    try:
        text = await asyncio.to_thread(_policy_file(request.app[CONSOLE]).read_text)
    except FileNotFoundError:
        raise Refusal(Reason.NOT_FOUND) from None
    return attached(text, "policy")


ROUTES = (
    web.get("/", page),
    web.get("/checkpoint", checkpoint_page),
    web.get("/checkpoint/note", note),
    web.get("/checkpoint/policy", policy),
)
