"""What the audit service tells of itself, and how services in its process tell of themselves."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog

from audit.records.archive import Archive
from audit.records.notes import Notes
from meshkit.contract import Refusal
from meshkit.counters import counted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from audit.log.appender import AuditLog
    from audit.settings import AuditSettings
    from meshkit.contract import Appended, Document, Event

__all__ = ["InProcess", "archive_of", "log_noted"]

log = structlog.get_logger()


def archive_of(settings: AuditSettings, audit: AuditLog, producer: str) -> Archive:
    """Open the archive that lies beside the log; `producer`: the audit service's SPIFFE id."""
    return Archive(
        settings.data_dir / "archive",
        Notes(audit, producer=producer),
        document_bytes_max=settings.archive_document_bytes_max,
    )


class InProcess:
    """Implements `meshkit.journal.Recorder` over a log of this process.

    producer: SPIFFE id of the service that tells.
    """

    def __init__(self, audit: AuditLog, archive: Archive, producer: str) -> None:
        self._audit = audit
        self._archive = archive
        self._producer = producer

    async def append(self, event: Event) -> Appended:
        """See `meshkit.contract.Audit.append`."""
        return await self._audit.append(event, producer=self._producer)

    async def archive(self, document: Document) -> None:
        """See `audit.records.archive.Archive.put`."""
        await self._archive.put(document, document.digest)


@asynccontextmanager
async def log_noted(audit: AuditLog, producer: str) -> AsyncIterator[None]:
    """Record that the log starts, and when the block is left that it stops.

    A stop that cannot be recorded is counted and logged: whatever hinders it has said so before.

    Raises:
        Refusal: the start cannot be recorded, so there is no log to start with.
    """
    notes = Notes(audit, producer=producer)
    origin = audit.vkey.partition("+")[0]
    await notes.note("log.start", detail={"log": origin, "size": str(audit.stats.durable)})
    try:
        yield
    finally:
        try:
            await notes.note("log.stop", detail={"log": origin, "size": str(audit.stats.durable)})
        except Refusal as refusal:
            counted("journal.lost")
            log.warning("audit.stop_not_recorded", reason=refusal.reason.name)
