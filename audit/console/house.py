"""What the console is made of, and how a page asks for it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    import jinja2

    from audit.console.oidc import Oidc
    from audit.console.rates import Rates
    from audit.console.sessions import Sessions
    from audit.console.settings import ConsoleSettings
    from audit.console.spans import SpanStore
    from audit.log.appender import AuditLog
    from audit.privacy.erasure import Custody
    from audit.records.archive import Archive
    from audit.records.notes import Notes
    from meshkit.authorization import Authorizer

__all__ = ["CONSOLE", "Console"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Console:
    """Everything a page may need; one for each server."""

    settings: ConsoleSettings
    trust_domain: str
    log: AuditLog
    notes: Notes
    archive: Archive | None
    custody: Custody | None
    authorizer: Authorizer
    sessions: Sessions
    rates: Rates
    oidc: Oidc | None
    spans: SpanStore | None
    templates: jinja2.Environment
    login_key: bytes
    """Makes the token of a form that is shown before there is a session."""
    charting: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Thousands of records are counted for one visit at a time."""


CONSOLE = web.AppKey("console", Console)
