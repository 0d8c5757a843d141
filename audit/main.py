"""`python -m audit.main`: the audit log by itself, a member of the mesh."""

from __future__ import annotations

from meshkit import tls_floor  # isort: skip -- before grpc, or TLS 1.2 would be let in

import sys
from contextlib import asynccontextmanager
from pathlib import Path  # noqa: TC003 -- pydantic reads it at run time
from typing import TYPE_CHECKING

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from audit.app import audit_at
from audit.console.app import console_if
from audit.keys.service import audit_keys
from audit.log.epoch import origin_of
from audit.log.locks import VaultLock
from audit.log.opening import open_audit
from audit.log.signer import VaultSigner
from audit.privacy.clients import CachePurger
from audit.privacy.erasure import open_custody
from audit.privacy.estate import Estate
from audit.records.own_events import InProcess, archive_of, log_noted
from audit.settings import AuditSettings
from meshkit.authorization import Authorizer
from meshkit.identity import ServiceIdentity
from meshkit.journal import Journalling, journal
from meshkit.member import Member, ServerSettings, run
from meshkit.own_events import policies_noted, service_noted
from meshkit.policies import FOLDER
from meshkit.server import Serving
from meshkit.wrapped_keys import FolderWrappedKeys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from audit.keys.service import AuditKeys
    from audit.log.appender import AuditLog
    from audit.privacy.erasure import Custody


__all__ = ["AuditServer", "serve"]

assert tls_floor.in_time()

_MIB = 1_024 * 1_024


class AuditServer(AuditSettings, ServerSettings):
    """Environment `AUDIT_*`: the service's own settings, and how it joins the mesh."""

    model_config = SettingsConfigDict(env_prefix="AUDIT_")

    port: int = Field(50_055, ge=0, le=65_535, description="0 asks the kernel for a free one.")
    checkpoint_key: str = Field("audit-checkpoint", description="Signing key in OpenBao's transit.")
    checkpoint_lock: str = Field(
        "audit/checkpoint-lock", description="Where the newest checkpoint is held, in its KV."
    )
    policies_dir: Path = Field(default=FOLDER, description="Say who may read: see the gateway's.")
    journal: Journalling = Journalling()
    cache_targets: tuple[str, ...] = Field(
        (), description="host:port of every replica of the cache: each must forget what is erased."
    )
    cache_targets_file: Path | None = Field(
        None, description="Holds more of them, a line each; read at each erasure."
    )
    cache_purge_s: float = Field(
        10.0, gt=0, description="How long a replica may take; then the erasure is tried again."
    )
    policies_every_s: float = Field(2.0, gt=0, description="How often a change is looked for.")
    # Requests: a batch of events, each with the payload of a whole call. No lame duck: there is
    # one writer, so nobody else could take events meanwhile.
    serving: Serving = Serving.model_validate({"request_bytes_max": 16 * _MIB, "lame_duck_ms": 0})


def _custody(
    settings: AuditServer, member: Member, log: AuditLog, held: AuditKeys
) -> AbstractAsyncContextManager[Custody]:
    """Keep retention of payloads, and erase: here and in every cache."""
    estate = Estate(log.parts, FolderWrappedKeys(settings.data_dir / "keys"), held.sealer)
    caches = CachePurger(
        targets=settings.cache_targets,
        file=settings.cache_targets_file,
        certificate=member.certificate,
        timeout_s=settings.cache_purge_s,
    )
    return open_custody(log, estate, purges=(caches.purge,))


async def _signer(settings: AuditServer, member: Member) -> VaultSigner:
    """Sign as the log that this folder is of."""
    return await VaultSigner.load(
        member.keys,
        settings.checkpoint_key,
        origin_of(settings.data_dir, settings.trust_domain),
        overlap_days=settings.checkpoint_key_overlap_days,
    )


@asynccontextmanager
async def serve(settings: AuditServer, member: Member) -> AsyncIterator[int]:
    """Open the log and serve it; yield the port."""
    keys = member.keys
    authorizer = Authorizer(settings.policies_dir)
    own = ServiceIdentity(settings.trust_domain, "audit").spiffe_id
    async with (
        authorizer.watching(settings.policies_every_s),
        audit_keys(keys, settings) as held,
        open_audit(
            settings,
            signer=await _signer(settings, member),
            lock=VaultLock(keys, settings.checkpoint_lock),
            sealer=held.sealer,
            pseudonym_key=(await keys.secret("pseudonym-key")).newest,
            naming_keys=held.naming,
        ) as log,
        held.taking_orders(),
        log_noted(log, own),
    ):
        archive = archive_of(settings, log, own)
        async with (
            _custody(settings, member, log, held) as custody,
            journal(InProcess(log, archive, own), settings.journal) as book,
            audit_at(
                settings,
                log,
                authorizer,
                member.certificate,
                archive=archive,
                reads_per_s_max=settings.reads_per_s_max,
                custody=custody,
            ) as port,
            console_if(
                settings.console,
                trust_domain=settings.trust_domain,
                audit=log,
                authorizer=authorizer,
                certificate=member.certificate,
                archive=archive,
                custody=custody,
            ),
        ):
            with (
                service_noted(book, "audit", certificate=member.certificate),
                policies_noted(book, authorizer),
            ):
                yield port


if __name__ == "__main__":
    sys.exit(run("audit", AuditServer, serve))
