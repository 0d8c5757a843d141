"""Signing in and out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiohttp import web

from audit.console.gate import (
    COOKIE,
    LOGIN_COOKIE,
    connection_of,
    form_of,
    login_token,
    rendered,
    shown_by_browser,
)
from audit.console.house import CONSOLE
from audit.console.people import actor_now, may_enter, person_of, workload_of
from meshkit.contract import Reason, Refusal
from meshkit.counters import counted

if TYPE_CHECKING:
    from audit.console.house import Console
    from meshkit.contract import Actor

__all__ = ["ROUTES", "local_path"]

_LEAVING = "__Host-sealgate-leaving"
_LOCAL = re.compile(r"/(?:[A-Za-z0-9_-][A-Za-z0-9_./-]{0,200})?", re.ASCII)


def local_path(text: str) -> str:
    """Return a path of ours; the overview for anything else: nobody is sent elsewhere."""
    fits = _LOCAL.fullmatch(text) and not text.startswith(("/login", "/logout"))
    return text if fits and "//" not in text and ".." not in text else "/"


async def page(request: web.Request) -> web.Response:
    """GET /login."""
    console = request.app[CONSOLE]
    handle, token = login_token(request)
    reply = rendered(
        request,
        "login.html",
        named=_named(request, console),
        token=token,
        next=local_path(request.query.get("next", "/")),
        provider=urlsplit(console.settings.oidc.issuer).netloc,
    )
    _set(reply, LOGIN_COOKIE, handle, same_site="Strict")
    return reply


def _named(request: web.Request, console: Console) -> str:
    shown = shown_by_browser(request)
    try:
        return workload_of(shown, trust_domain=console.trust_domain).spiffe_id if shown else ""
    except Refusal:
        return ""


async def by_certificate(request: web.Request) -> web.Response:
    """POST /login/certificate."""
    console = request.app[CONSOLE]
    shown = shown_by_browser(request)
    if shown is None:
        raise Refusal(Reason.UNAUTHENTICATED)
    actor = workload_of(shown, trust_domain=console.trust_domain)
    await _let_in(request, console, actor_now(actor, frozenset(), console.authorizer))
    _end_former(request, console)
    token = console.sessions.open(
        actor, way="certificate", thumbprint=shown.thumbprint, ends_s=shown.ends_s
    )
    there = local_path((await form_of(request)).get("next", "/"))
    reply = web.Response(status=303, headers={"Location": there})
    _set(reply, COOKIE, token, same_site="Strict")
    return reply


async def leave(request: web.Request) -> web.Response:
    """GET /login/oidc: off to the provider."""
    console = request.app[CONSOLE]
    if console.oidc is None:
        raise Refusal(Reason.NOT_FOUND)
    handle, address = await console.oidc.begin(local_path(request.query.get("next", "/")))
    reply = web.Response(status=303, headers={"Location": address})
    # Lax: the way back begins at the provider, and a strict cookie would stay at home.
    _set(reply, _LEAVING, handle, same_site="Lax")
    return reply


async def back(request: web.Request) -> web.Response:
    """GET /login/oidc/back: from the provider."""
    console = request.app[CONSOLE]
    if console.oidc is None:
        raise Refusal(Reason.NOT_FOUND)
    try:
        person, there = await console.oidc.finish(
            request.cookies.get(_LEAVING, ""), {**request.query}
        )
        actor = person_of(
            person.tenant,
            person.subject,
            workload=console.settings.oidc.workload,
            trust_domain=console.trust_domain,
        )
    except Refusal:
        counted("console.logins_refused")
        raise
    await _let_in(request, console, actor_now(actor, person.roles, console.authorizer))
    _end_former(request, console)
    token = console.sessions.open(actor, way="oidc", claimed=person.roles, ends_s=person.ends_s)
    # A page, not a redirect: a strict cookie does not go along on a way that began elsewhere.
    reply = rendered(request, "back.html", next=there)
    _set(reply, COOKIE, token, same_site="Strict")
    reply.del_cookie(_LEAVING, path="/", secure=True, httponly=True, samesite="Lax")
    return reply


async def out(request: web.Request) -> web.Response:
    """POST /logout."""
    _end_former(request, request.app[CONSOLE])
    reply = web.Response(status=303, headers={"Location": "/login"})
    reply.del_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="Strict")
    return reply


async def _let_in(request: web.Request, console: Console, actor: Actor) -> None:
    """Record who signs in, or who was not let to; raise Refusal: DENIED for the latter."""
    connection = connection_of(request)
    allowed = may_enter(actor, connection.peer_ip, console.authorizer)
    await console.notes.note(
        "console.login",
        tenant=actor.tenant,
        actor=actor,
        connection=connection,
        outcome="ok" if allowed else Reason.DENIED.name,
    )
    if not allowed:
        counted("console.logins_refused")
        raise Refusal(Reason.DENIED)


def _end_former(request: web.Request, console: Console) -> None:
    """End the session that this browser has, if any: it must not outlive its cookie."""
    console.sessions.close(request.cookies.get(COOKIE, ""))


def _set(reply: web.Response, name: str, value: str, *, same_site: str) -> None:
    reply.set_cookie(name, value, path="/", secure=True, httponly=True, samesite=same_site)


ROUTES = (
    web.get("/login", page),
    web.post("/login/certificate", by_certificate),
    web.get("/login/oidc", leave),
    web.get("/login/oidc/back", back),
    web.post("/logout", out),
)
