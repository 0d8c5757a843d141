"""The console as one block: served, drained. Tests and composition roots enter here.

async with console_at(settings, trust_domain=..., log=log, authorizer=..., certificate=...) as c:
    c.port
"""

from __future__ import annotations

import logging
import secrets
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NotRequired, TypedDict, Unpack

import jinja2
import structlog
from aiohttp import web

from audit.console import fields
from audit.console.gate import around
from audit.console.house import CONSOLE, Console
from audit.console.oidc import Oidc
from audit.console.pages import ROUTES
from audit.console.rates import Rates
from audit.console.sessions import Sessions
from audit.console.spans import receiving_spans
from audit.console.tls import browser_context
from audit.records.notes import Notes
from meshkit.front_door import Door, front_door
from meshkit.identity import ServiceIdentity

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from audit.console.settings import ConsoleSettings
    from audit.log.appender import AuditLog
    from audit.privacy.erasure import Custody
    from audit.records.archive import Archive
    from meshkit.authorization import Authorizer
    from meshkit.tls import CertificateHolder

__all__ = ["Parts", "Serving", "console_at", "console_if"]

log = structlog.get_logger()

_HERE = Path(__file__).parent
_SHUTDOWN_S = 5.0
_silent = logging.getLogger("sealgate.console")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False
"""aiohttp would log a request it cannot read, with what stood in it."""


@dataclass(slots=True)
class Serving:
    """Where the console is, once it is."""

    port: int = 0
    spans_port: int | None = None
    oidc: Oidc | None = None


class Parts(TypedDict):
    """What the console stands on.

    trust_domain: of certificates that are let in. audit: whose records are shown. authorizer: knows
    the policies in force. certificate: shown to each browser as it then is. archive: where what
    digests stand for is kept. custody: keeps the texts; without it none is shown or erased.
    """

    trust_domain: str
    audit: AuditLog
    authorizer: Authorizer
    certificate: CertificateHolder
    archive: NotRequired[Archive | None]
    custody: NotRequired[Custody | None]


@asynccontextmanager
async def console_at(settings: ConsoleSettings, **parts: Unpack[Parts]) -> AsyncIterator[Serving]:
    """Serve the console for as long as the block runs; without a port on a free one.

    Raises:
        OSError: the address cannot be bound.
        ssl.SSLError: the certificate is none that OpenSSL takes.
    """
    serving = Serving()

    def redirect_url() -> str:
        return f"{settings.public_url or f'https://localhost:{serving.port}'}/login/oidc/back"

    async with AsyncExitStack() as owned:
        spans = await owned.enter_async_context(receiving_spans(settings))
        serving.spans_port = None if spans is None else spans.port
        serving.oidc = Oidc(settings.oidc, redirect_url) if settings.oidc.issuer else None
        own = ServiceIdentity(parts["trust_domain"], "audit").spiffe_id
        app = web.Application(middlewares=[around], client_max_size=settings.body_bytes_max)
        app[CONSOLE] = Console(
            settings=settings,
            trust_domain=parts["trust_domain"],
            log=parts["audit"],
            notes=Notes(parts["audit"], producer=own),
            archive=parts.get("archive"),
            custody=parts.get("custody"),
            authorizer=parts["authorizer"],
            sessions=Sessions(
                idle_s=settings.session_idle_s,
                life_s=settings.session_life_s,
                most=settings.sessions_max,
            ),
            rates=Rates(per_minute=settings.requests_per_minute, burst=settings.requests_burst),
            oidc=serving.oidc,
            spans=spans,
            templates=_templates(),
            login_key=secrets.token_bytes(32),
        )
        app.add_routes(ROUTES)
        serving.port = await owned.enter_async_context(
            _listening(app, settings, parts["certificate"])
        )
        yield serving


@asynccontextmanager
async def console_if(
    settings: ConsoleSettings, **parts: Unpack[Parts]
) -> AsyncIterator[Serving | None]:
    """Serve the console if settings name a port; else yield None. Raises as `console_at`."""
    if settings.port is None:
        yield None
        return
    async with console_at(settings, **parts) as serving:
        log.info("console.serving", port=serving.port)
        yield serving


def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["clock"] = fields.clock
    environment.filters["took"] = fields.span_of_time
    environment.filters["ocsf"] = fields.ocsf_name
    environment.filters["thousands"] = lambda number: f"{number:,}".replace(",", "\u202f")
    return environment


@asynccontextmanager
async def _listening(
    app: web.Application, settings: ConsoleSettings, certificate: CertificateHolder
) -> AsyncIterator[int]:
    runner = web.AppRunner(
        app,
        access_log=None,
        logger=_silent,
        max_line_size=settings.line_bytes_max,
        max_field_size=settings.line_bytes_max,
        shutdown_timeout=_SHUTDOWN_S,
    )
    await runner.setup()
    try:
        assert runner.server is not None  # set up
        door = Door(
            connections_max=settings.connections_max,
            life_s=settings.connection_life_s,
            handshake_s=settings.handshake_s,
        )
        context = browser_context(certificate, certificate_required=not settings.oidc.issuer)
        async with front_door(
            runner.server, door, settings.host, settings.port or 0, context
        ) as port:
            yield port
    finally:
        await runner.cleanup()
