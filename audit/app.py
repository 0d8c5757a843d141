"""The audit service as one block: served, drained. Tests and composition roots enter here."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from audit.servicer import SERVICE, AuditServicer, admits
from meshkit.server import serving_neighbours

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from audit.servicer import Log
    from meshkit.authorization import Authorizer
    from meshkit.server import Listening
    from meshkit.tls import CertificateHolder

__all__ = ["audit_at"]


@asynccontextmanager
async def audit_at(
    settings: Listening, log: Log, authorizer: Authorizer, certificate: CertificateHolder
) -> AsyncIterator[int]:
    """Serve a log; yield the port. Tests enter here. Raises as `serving`."""
    servicer = AuditServicer(log, authorizer)
    async with serving_neighbours(
        settings, servicer.add_to, certificate, name=SERVICE, admits=admits
    ) as port:
        yield port
        servicer.drain()
