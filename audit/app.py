"""The audit service as one block: served, drained. Tests and composition roots enter here."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from audit.privacy.servicer import PayloadServicer
from audit.records.notes import Notes
from audit.records.reads import Reads
from audit.servicer import SERVICE, AuditServicer, admits
from meshkit.identity import ServiceIdentity
from meshkit.server import serving_neighbours

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc

    from audit.privacy.erasure import Custody
    from audit.records.archive import Archive
    from audit.servicer import Log
    from meshkit.authorization import Authorizer
    from meshkit.server import Listening
    from meshkit.tls import CertificateHolder

__all__ = ["audit_at"]


@asynccontextmanager
async def audit_at(
    settings: Listening,
    log: Log,
    authorizer: Authorizer,
    certificate: CertificateHolder,
    *,
    archive: Archive | None = None,
    reads_per_s_max: int = 50,
    custody: Custody | None = None,
) -> AsyncIterator[int]:
    """Serve a log; yield the port. Tests enter here. Raises as `serving`.

    Args:
        settings: Where, and with which limits.
        log: What is served.
        authorizer: Says who may read.
        certificate: Shown to each handshake as it then is.
        archive: Where documents are kept by digest.
        reads_per_s_max: See `audit.records.reads`.
        custody: Of the log's payloads; without, PayloadService is not served.
    """
    own = ServiceIdentity(settings.trust_domain, "audit").spiffe_id
    reads = Reads(
        notes=Notes(log, producer=own),
        naming=log,
        authorizer=authorizer,
        per_s_max=reads_per_s_max,
    )
    servicer = AuditServicer(log, reads, archive)
    try:
        async with serving_neighbours(
            settings,
            lambda server: _add(server, servicer, custody, reads),
            certificate,
            name=SERVICE,
            admits=admits,
            on_refused=reads.stranger,
        ) as port:
            yield port
            servicer.drain()
    finally:
        await reads.settled()


def _add(
    server: grpc.aio.Server, servicer: AuditServicer, custody: Custody | None, reads: Reads
) -> None:
    servicer.add_to(server)
    if custody is not None:
        PayloadServicer(custody, reads).add_to(server)
