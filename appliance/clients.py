"""Who is a client on this host: the first tenant's workloads, and the operator at the audit log."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from gateway.clients import Hops
from meshkit.audit_client import audit_client
from meshkit.channel import line
from meshkit.identity import ServiceIdentity
from meshkit.tls import Certificate, CertificateHolder
from sealgate.v1.audit_pb2_grpc import AuditServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AsyncExitStack

    from appliance.bootstrap import Estate
    from appliance.settings import ApplianceSettings
    from meshkit.audit_client import AuditClient
    from meshkit.vault import Vault

__all__ = ["ASSISTANT", "AUDITOR", "MODELS", "PRIVACY", "appending", "keep_clients"]

OPERATOR = "operator"
OPERATOR_TTL_S = 600

ASSISTANT = "assistant"
AUDITOR = "auditor"
PRIVACY = "privacy"
MODELS = "models"
"""Workloads of the first tenant that get a certificate at start; the policies know all four."""

FOLDERS = {ASSISTANT: "tls", AUDITOR: "tls-auditor", PRIVACY: "tls-privacy", MODELS: "tls-models"}


async def keep_clients(owned: AsyncExitStack, estate: Estate, settings: ApplianceSettings) -> None:
    """Write the folders of `FOLDERS`, and renew each at two thirds of its certificate's life.

    Raises:
        VaultDown: OpenBao issues none.
        OSError: the files cannot be written.
    """
    for workload, folder in FOLDERS.items():
        await owned.enter_async_context(
            estate.kept_client(settings.tenants[0], workload, settings.data_dir / folder)
        )


@asynccontextmanager
async def appending(keys: Vault, target: str, trust_domain: str) -> AsyncIterator[AuditClient]:
    """Append to the log at `target` (host:port) as the operator, under a certificate of its own.

    Raises:
        VaultDown: OpenBao issues none to `keys`, the operator's login.
    """
    issued = await keys.issue(
        f"service.{OPERATOR}",
        uri_sans=(ServiceIdentity(trust_domain, OPERATOR).spiffe_id,),
        ttl_s=OPERATOR_TTL_S,
    )
    certificate = Certificate.from_pem(
        chain=issued.chain_pem.encode(),
        key=issued.private_key_pem.encode(),
        peer_ca=(await keys.roots() or issued.ca_pem).encode(),
    )
    async with (
        line(target, CertificateHolder(certificate), AuditServiceStub) as there,
        audit_client(there, Hops()) as audit,
    ):
        yield audit
