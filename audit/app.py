"""The audit service as one block: served, drained. Tests and composition roots enter here."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from audit.servicer import SERVICE, AuditServicer, admits
from meshkit.interceptors import MeshInterceptor
from meshkit.server import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from audit.servicer import Log
    from meshkit.authorization import Authorizer
    from meshkit.server import Serving
    from meshkit.tls import CertificateHolder

__all__ = ["Listening", "audit_at"]


class Listening(Protocol):
    """Where and for whom: `meshkit.member.ServerSettings` has these, among others."""

    @property
    def host(self) -> str: ...  # noqa: D102 -- as there
    @property
    def port(self) -> int: ...  # noqa: D102 -- as there
    @property
    def trust_domain(self) -> str: ...  # noqa: D102 -- as there
    @property
    def call_budget_ms(self) -> int: ...  # noqa: D102 -- as there
    @property
    def serving(self) -> Serving: ...  # noqa: D102 -- as there


@asynccontextmanager
async def audit_at(
    settings: Listening, log: Log, authorizer: Authorizer, certificate: CertificateHolder
) -> AsyncIterator[int]:
    """Serve a log; yield the port. Tests enter here. Raises as `serving`."""
    servicer = AuditServicer(log, authorizer)
    async with serving(
        servicer.add_to,
        address=f"{settings.host}:{settings.port}",
        credentials=certificate.server_credentials(),
        guard=MeshInterceptor(
            trust_domain=settings.trust_domain,
            call_budget_ms=settings.call_budget_ms,
            admits=admits,
        ),
        settings=settings.serving,
        names=(SERVICE,),
    ) as port:
        yield port
        servicer.drain()
