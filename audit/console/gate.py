"""What stands around every page: headers, rate, sign-in, CSRF, and the last line before the wire.

    1. one address may ask so often (429)
    2. who is signed in: a session, alive, over the connection that may use it; else the login page
    3. the policies let them do something here, at this very moment (403); what, each page asks
    4. a form bears its session's token, and comes from our own pages (403)

No page is cached, framed, sniffed or scripted. Text of an exception never reaches a browser.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import structlog
from aiohttp import web

from audit.console.house import CONSOLE
from audit.console.oidc import ProviderDownError
from audit.console.people import Shown, actor_now, may_enter, shown_by
from meshkit.authorization import Request
from meshkit.contract import Connection, Reason, Refusal
from meshkit.counters import counted
from meshkit.logs import frames_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from audit.console.house import Console
    from meshkit.contract import Actor

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

__all__ = [
    "COOKIE",
    "HEADERS",
    "Visit",
    "around",
    "connection_of",
    "form_of",
    "login_token",
    "rendered",
    "shown_by_browser",
    "visit_of",
]

log = structlog.get_logger()

COOKIE = "__Host-sealgate-console"
LOGIN_COOKIE = "__Host-sealgate-login"
_TLS = "TLSv1.3"
_OPEN = ("/login", "/login/certificate", "/login/oidc", "/login/oidc/back", "/static/console.css")
"""Paths that are there for anybody who gets through the handshake."""
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self' data:; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
    # Not no-referrer: browsers then send forms with `Origin: null`.
    "Referrer-Policy": "same-origin",
    "Server": "sealgate",
    "Strict-Transport-Security": "max-age=63072000",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_CHARSETS = (None, "utf-8", "UTF-8")
"""Whoever sends a form would else pick any codec of Python's."""
_STATUS = {
    Reason.INVALID_FIELD: 400,
    Reason.UNAUTHENTICATED: 401,
    Reason.DENIED: 403,
    Reason.NOT_FOUND: 404,
    Reason.CONFLICT: 409,
    Reason.HELD: 409,
    Reason.LIMITED: 429,
    Reason.OVERLOADED: 503,
    Reason.AUDIT_DOWN: 503,
    Reason.KEYS_DOWN: 503,
}
_TITLES = {
    400: "That cannot be read",
    401: "Not signed in",
    403: "Not allowed",
    404: "Not here",
    405: "Not here",
    408: "Too slow",
    409: "In the way",
    413: "Too large",
    429: "Too many requests",
    500: "Something broke",
    503: "Not now",
}


class Visit:
    """A request by somebody who is signed in."""

    __slots__ = ("actor", "connection", "console", "csrf", "way")

    def __init__(self, console: Console, actor: Actor, connection: Connection, way: str) -> None:
        self.console = console
        self.actor = actor
        """With the roles of this moment."""
        self.connection = connection
        self.way = way
        self.csrf = ""

    @property
    def tenant(self) -> str:
        """Whose records are shown: those of the tenant that they belong to."""
        return self.actor.tenant

    def may(self, action: str) -> bool:
        """Whether the policies let them do `action` on their tenant, now."""
        request = Request(
            actor=self.actor,
            action=action,
            tenant=self.tenant,
            peer_ip=self.connection.peer_ip,
        )
        return self.console.authorizer.decide(request).allowed

    def must(self, action: str) -> None:
        """Raise Refusal: DENIED, unless they may."""
        if not self.may(action):
            raise Refusal(Reason.DENIED)


_VISIT = web.RequestKey("visit", Visit)


def visit_of(request: web.Request) -> Visit:
    """Return who asks; on pages behind the sign-in."""
    return request[_VISIT]


def connection_of(request: web.Request) -> Connection:
    """Tell how a request came, for the record."""
    name = request.transport.get_extra_info("peername") if request.transport else None
    return Connection(tls_version=_TLS, peer_ip=str(name[0]) if name else "")


def shown_by_browser(request: web.Request) -> Shown | None:
    """Return the certificate that the browser showed."""
    transport = request.transport
    return shown_by(transport.get_extra_info("ssl_object") if transport else None)


def rendered(request: web.Request, page: str, code: int = 200, **values: Any) -> web.Response:  # noqa: ANN401 -- what the template names
    """Make a page of a template; whoever is signed in stands above it."""
    console = request.app[CONSOLE]
    visit = request.get(_VISIT)
    text = console.templates.get_template(page).render(
        visit=visit, path=request.path, csrf=visit.csrf if visit else "", **values
    )
    return web.Response(text=text, status=code, content_type="text/html", charset="utf-8")


# --- around every page ----------------------------------------------------------------------


@web.middleware
async def around(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Steps 1 to 4, and whatever goes wrong told without a word of it."""
    try:
        reply = await _admitted(request, handler)
    except Refusal as refusal:
        reply = _told(request, _STATUS.get(refusal.reason, 500), refusal.reason.value)
    except ProviderDownError:
        reply = _told(request, 503, "the sign-in provider cannot be reached")
    except web.HTTPRedirection as redirection:
        reply = web.Response(status=303, headers={"Location": redirection.headers["Location"]})
    except web.HTTPException as error:
        reply = _told(request, error.status, _TITLES.get(error.status, "").lower())
    except Exception as bug:  # noqa: BLE001 -- the last line before the wire
        log.error("console.bug", kind=type(bug).__name__, frames=frames_of(bug))  # noqa: TRY400 -- its text may be a user's
        reply = _told(request, 500, Reason.INTERNAL.value)
    for name, value in HEADERS.items():
        reply.headers.setdefault(name, value)
    return reply


def _told(request: web.Request, status: int, why: str) -> web.Response:
    counted("console.refused")
    title = _TITLES.get(status, "Something broke")
    return rendered(request, "error.html", status, title=title, why=why, number=status)


async def _admitted(request: web.Request, handler: Handler) -> web.StreamResponse:
    console = request.app[CONSOLE]
    wait_s = console.rates.wait_s(connection_of(request).peer_ip, time.monotonic())  # 1
    if wait_s:
        raise Refusal(Reason.LIMITED, retry_after_ms=int(wait_s * 1_000) + 1)
    if request.path not in _OPEN:
        if request.match_info.http_exception is not None:
            raise Refusal(Reason.NOT_FOUND)
        _sign_in(request, console)  # 2, 3
    if request.method == "POST":
        await _check_form(request)  # 4
    return await handler(request)


def _sign_in(request: web.Request, console: Console) -> None:
    shown = shown_by_browser(request)
    session = console.sessions.of(
        request.cookies.get(COOKIE, ""), thumbprint=shown.thumbprint if shown else b""
    )
    if session is None:
        if request.method == "GET":
            there = f"/login?next={quote(request.path, safe='')}"
            raise web.HTTPSeeOther(there)
        raise Refusal(Reason.UNAUTHENTICATED)
    actor = actor_now(session.actor, session.claimed, console.authorizer)
    visit = Visit(console, actor, connection_of(request), session.way)
    visit.csrf = session.csrf
    if not may_enter(actor, visit.connection.peer_ip, console.authorizer):
        raise Refusal(Reason.DENIED)
    request[_VISIT] = visit


# --- forms ----------------------------------------------------------------------------------


async def form_of(request: web.Request) -> dict[str, str]:
    """Read a form: texts only, each once.

    Raises:
        Refusal: INVALID_FIELD, if there is a file in it, a name twice, or what is no UTF-8.
        web.HTTPRequestTimeout: it does not come in.
    """
    if request.content_type.startswith("multipart/") or request.charset not in _CHARSETS:
        raise Refusal(Reason.INVALID_FIELD, field="form")
    try:
        async with asyncio.timeout(request.app[CONSOLE].settings.body_s):
            told = await request.post()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    except ValueError:  # of which UnicodeDecodeError is one
        raise Refusal(Reason.INVALID_FIELD, field="form") from None
    form = {name: value for name, value in told.items() if isinstance(value, str)}
    if len(form) != len(told):
        raise Refusal(Reason.INVALID_FIELD, field="form")
    return form


async def _check_form(request: web.Request) -> None:
    origin = request.headers.get("Origin", "")
    if origin and urlsplit(origin).netloc != request.host:
        raise Refusal(Reason.DENIED)
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in {"same-origin", "none"}:
        raise Refusal(Reason.DENIED)
    expected = visit.csrf if (visit := request.get(_VISIT)) else _login_token_of(request)
    given = (await form_of(request)).get("csrf", "")
    if not expected or not hmac.compare_digest(expected.encode(), given.encode()):
        counted("console.csrf_refused")
        raise Refusal(Reason.DENIED)


def login_token(request: web.Request) -> tuple[str, str]:
    """Return a cookie's value and the form's token that belongs to it, for the login page."""
    handle = request.cookies.get(LOGIN_COOKIE, "") or secrets.token_urlsafe(32)
    return handle, _mac(request, handle)


def _login_token_of(request: web.Request) -> str:
    handle = request.cookies.get(LOGIN_COOKIE, "")
    return _mac(request, handle) if handle else ""


def _mac(request: web.Request, handle: str) -> str:
    key = request.app[CONSOLE].login_key
    return hmac.new(key, handle.encode(), sha256).hexdigest()
