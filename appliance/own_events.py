"""How the five services of an appliance tell of themselves: in process, each under its own name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from audit.records.own_events import InProcess, archive_of, log_noted
from meshkit.identity import ServiceIdentity
from meshkit.journal import Journalling, journal
from meshkit.own_events import policies_noted, service_noted

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from audit.log.appender import AuditLog
    from audit.records.archive import Archive
    from audit.settings import AuditSettings
    from meshkit.authorization import Authorizer
    from meshkit.journal import Journal
    from meshkit.tls import CertificateHolder

__all__ = ["Telling"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling:
    """Journals over the log of this process, owned by the appliance."""

    owned: AsyncExitStack
    log: AuditLog
    archive: Archive
    trust_domain: str

    @classmethod
    async def start(
        cls, owned: AsyncExitStack, log: AuditLog, settings: AuditSettings, trust_domain: str
    ) -> Telling:
        """Record that the log starts, and open its archive."""
        own = ServiceIdentity(trust_domain, "audit").spiffe_id
        await owned.enter_async_context(log_noted(log, own))
        archive = archive_of(settings, log, own)
        return cls(owned=owned, log=log, archive=archive, trust_domain=trust_domain)

    async def journal(self, service: str) -> Journal:
        """Return a service's journal."""
        name = ServiceIdentity(self.trust_domain, service).spiffe_id
        recorder = InProcess(self.log, self.archive, name)
        return await self.owned.enter_async_context(journal(recorder, Journalling()))

    async def gateway_serves(self, certificate: CertificateHolder, authorizer: Authorizer) -> None:
        """Tell that the gateway starts, and of the Cedar set that it shares with audit."""
        book = await self.journal("gateway")
        self.serves(book, "gateway", certificate)
        self.owned.enter_context(policies_noted(book, authorizer))

    def serves(
        self, book: Journal, service: str, certificate: CertificateHolder | None = None
    ) -> None:
        """Tell that a service starts, and that it stops when the appliance leaves it."""
        self.owned.enter_context(service_noted(book, service, certificate=certificate))
