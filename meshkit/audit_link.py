"""A service's journal over the wire: its own line to audit, for events about itself.

async with journal_over(settings.audit, certificate, AuditServiceStub) as book:
    book.note("service.start", ...)
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from meshkit.audit_client import audit_client
from meshkit.channel import Reaching, line
from meshkit.journal import Journalling, journal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import grpc

    from meshkit.journal import Journal
    from meshkit.tls import CertificateHolder

__all__ = ["AuditLink", "journal_over"]


class AuditLink(BaseModel):
    """Where audit is, for a service's own events: `CACHE_AUDIT__TARGET=localhost:50055`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    target: str = Field(default="localhost:50055", description="The audit service.")
    connect_ms: int = Field(
        default=1_000, ge=0, description="How long it is waited for before the next try."
    )
    append_ms: int = Field(
        default=4_000, gt=0, description="An event without an ack by then is sent again later."
    )
    appends_max: int = Field(default=64, gt=0, description="Events without an ack.")
    appends_retry_ms: int = Field(default=50, gt=0, description="Unused: one event at a time.")
    append_batch_max: int = Field(default=64, ge=1, le=1_024, description="Events in one message.")
    append_pause_ms: int = Field(
        default=50, gt=0, description="Before the stream is made again; doubles up to 20 times it."
    )
    journal: Journalling = Journalling()
    reaching: Reaching = Reaching.model_validate(
        {"reconnect_max_ms": 500, "keepalive_ms": 12_000, "keepalive_timeout_ms": 5_000}
    )


@asynccontextmanager
async def journal_over(
    link: AuditLink, certificate: CertificateHolder, stub: Callable[[grpc.aio.Channel], Any]
) -> AsyncIterator[Journal]:
    """Keep a journal for as long as the block runs. Audit need not be there.

    stub: Makes the audit service's stub of a channel.
    """
    async with (
        line(link.target, certificate, stub, link.reaching) as reached,
        audit_client(reached, link) as client,
        journal(client, link.journal) as book,
    ):
        yield book
