"""Search: what an auditor types, read strictly, and the pages of what is found."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from aiohttp import web

from audit.console.desk import Desk, Found
from audit.console.gate import rendered, visit_of
from audit.console.house import CONSOLE
from audit.search.questions import Question
from meshkit.contract import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ROUTES", "Field", "read_form"]

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}", re.ASCII)
_ID = re.compile(r"[0-9a-f]{32}")
_SUBJECT_CHARS_MAX = 128
_OUTCOMES = ("", "released", "ok", *(reason.name for reason in Reason))
_DONE = ("", "allow", "mask", "tokenise", "block")


@dataclass(frozen=True, slots=True)
class Field:
    """One field of the form, with what was typed and what is wrong with it."""

    name: str
    label: str
    value: str = ""
    hint: str = ""
    type: str = "text"
    choices: tuple[str, ...] = ()
    wrong: str = ""


_FORM = (
    Field("call", "Call id", hint="as on a receipt; other fields then do not count"),
    Field("trace", "Trace id", hint="32 hexadecimal digits"),
    Field("since", "From, UTC", type="datetime-local"),
    Field("until", "Until, UTC", type="datetime-local"),
    Field("user", "User", hint="the name itself: the log has pseudonyms only"),
    Field("subject", "Person concerned", hint="as the caller named them"),
    Field("workload", "Workload", hint="the SPIFFE id, or its last part"),
    Field("model", "Model"),
    Field("outcome", "Outcome", choices=_OUTCOMES),
    Field("action", "Action", hint="chat, log.read, subject.erase…"),
    Field("found", "Found in the text", hint="EMAIL, PERSON, SECRET…"),
    Field("done", "And done about it", choices=_DONE),
)


def _time_us(text: str) -> int:
    """Read what browsers send for `datetime-local`, or a day alone: UTC. Raises ValueError."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1_000_000)


def _wrong(name: str, text: str) -> str:
    if not text:
        return ""
    if name in {"call", "trace"} and not _ID.fullmatch(text):
        return "not 32 hexadecimal digits"
    if name in {"since", "until"}:
        try:
            return "" if _time_us(text) >= 0 else "not a time"
        except (ValueError, OverflowError):
            return "not a time"
    if name in {"user", "subject"}:
        return "" if len(text) <= _SUBJECT_CHARS_MAX else "too long"
    return "" if _LABEL.fullmatch(text) else "not a name that can stand in a record"


def read_form(asked: Mapping[str, str]) -> list[Field]:
    """Put what was typed into the form's fields, with what is wrong with each."""
    form = []
    for field in _FORM:
        text = asked.get(field.name, "").strip()
        if field.name in {"call", "trace"}:
            text = text.replace("-", "").lower()
        form.append(
            Field(
                field.name,
                field.label,
                text,
                field.hint,
                field.type,
                field.choices,
                _wrong(field.name, text),
            )
        )
    return form


def _question(typed: Mapping[str, str], *, tenant: str, trust_domain: str) -> Question:
    workload = typed["workload"]
    if workload and not workload.startswith("spiffe://"):
        workload = f"spiffe://{trust_domain}/tenant/{tenant}/{workload}"
    return Question(
        since_us=_time_us(typed["since"]) if typed["since"] else 0,
        until_us=_time_us(typed["until"]) if typed["until"] else None,
        actor=workload,
        user=typed["user"],
        subject=typed["subject"],
        model=typed["model"],
        trace_id=bytes.fromhex(typed["trace"]),
        verdict_type=typed["found"],
        verdict_action=typed["done"],
        outcome=typed["outcome"],
        action=typed["action"],
    )


async def page(request: web.Request) -> web.Response:
    """GET /search."""
    console, visit = request.app[CONSOLE], visit_of(request)
    form = read_form(request.query)
    typed = {field.name: field.value for field in form}
    if typed["call"] and not any(field.wrong for field in form):
        raise web.HTTPSeeOther(f"/calls/{typed['call']}")  # noqa: EM102 -- an address
    asked = bool(request.query) and not any(field.wrong for field in form)
    found, names = Found([], ""), {}
    if asked:
        desk = Desk(visit)
        question = _question(typed, tenant=visit.tenant, trust_domain=console.trust_domain)
        token = request.query.get("after", "")
        found = await desk.find(question, limit=console.settings.rows_max, token=token)
        names = await desk.names(question)
    return rendered(
        request,
        "search.html",
        form=form,
        asked=asked,
        entries=found.entries,
        names=names,
        more=_more(typed, found.token),
    )


def _more(typed: Mapping[str, str], token: str) -> str:
    if not token:
        return ""
    kept = {name: value for name, value in typed.items() if value}
    return f"/search?{urlencode({**kept, 'after': token})}"


ROUTES = (web.get("/search", page),)
