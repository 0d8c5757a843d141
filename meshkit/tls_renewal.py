"""A service's own certificate, issued by OpenBao and renewed at two thirds of its life.

    async with renewed_certificate(vault, wanted) as holder:
        server.add_secure_port(address, holder.server_credentials())

Servers show the new certificate from the next handshake on, without a restart. While OpenBao is
away the old one stays and renewal is tried again every `retry_s`; watch `holder.remaining_s`, for
nothing else tells that a renewer has been failing until the certificate is over. Channels made with
`holder.channel_credentials()` keep their certificate: make new ones before it ends.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from meshkit.contract import Refusal
from meshkit.tls import Certificate, CertificateHolder, TlsError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from meshkit.vault import Vault

__all__ = ["WantedCertificate", "renewed_certificate"]

log = structlog.get_logger()

_RENEW_AT = 2 / 3


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedCertificate:
    """What to ask OpenBao for. `role` must allow all of it; `ttl_s` and `retry_s` in seconds."""

    role: str
    spiffe_id: str
    dns_names: tuple[str, ...] = ()
    ip_addresses: tuple[str, ...] = ()
    ttl_s: int = 3_600
    retry_s: float = 10.0


@asynccontextmanager
async def renewed_certificate(
    keys: Vault, wanted: WantedCertificate
) -> AsyncIterator[CertificateHolder]:
    """Hold a certificate that does not end while the block runs.

    Raises:
        VaultDown: KEYS_DOWN, the first one cannot be had, or its role forbids it.
        TlsError: what came is no certificate of ours.
    """
    holder = CertificateHolder(await _issue(keys, wanted))
    renewer = asyncio.create_task(_renew(keys, wanted, holder), name="tls-renewal")
    try:
        yield holder
    finally:
        renewer.cancel()
        with suppress(asyncio.CancelledError):
            await renewer


async def _renew(keys: Vault, wanted: WantedCertificate, holder: CertificateHolder) -> None:
    wait_s = holder.remaining_s * _RENEW_AT
    while True:
        await asyncio.sleep(max(wait_s, 0))
        try:
            holder.replace(await _issue(keys, wanted))
        except (Refusal, TlsError) as failure:
            log.warning(
                "tls.renewal_failed",
                kind=type(failure).__name__,
                remaining_s=round(holder.remaining_s),
            )
            wait_s = wanted.retry_s
        else:
            wait_s = holder.remaining_s * _RENEW_AT


async def _issue(keys: Vault, wanted: WantedCertificate) -> Certificate:
    issued = await keys.issue(
        wanted.role,
        uri_sans=(wanted.spiffe_id,),
        dns_names=wanted.dns_names,
        ip_addresses=wanted.ip_addresses,
        ttl_s=wanted.ttl_s,
    )
    return Certificate.from_pem(
        chain=issued.chain_pem.encode(),
        key=issued.private_key_pem.encode(),
        peer_ca=issued.ca_pem.encode(),
    )
