"""A service's own certificate, issued by OpenBao and renewed at two thirds of its life.

    async with renewed_certificate(vault, wanted) as holder:
        server.add_secure_port(address, holder.server_credentials())

With each renewal come the roots that peers may bear now, all of them: while one CA takes over from
another there are two, and a retired one is gone. Servers show and trust the new from the next
handshake on, without a restart; a `meshkit.channel.Line` makes a new channel for its next call.

While OpenBao is away the old certificate serves until it ends, and renewal is tried again and again
until it succeeds. Seen from outside:

    tls.remaining_s.<role>          gauge of `meshkit.counters`: seconds until it is over
    tls.renewed, tls.renewal_failed counters, and log events that bear `remaining_s`
    tls.certificate_ending          log, error: half of the time for renewing has passed in vain
    tls.certificate_over            log, error: new connections fail from now on
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from meshkit.background import running
from meshkit.contract import Refusal
from meshkit.counters import counted, measured
from meshkit.tls import Certificate, CertificateHolder, TlsError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from meshkit.vault import Vault

__all__ = ["Renewal", "WantedCertificate", "kept_renewed", "renewed_certificate"]

log = structlog.get_logger()

RENEW_AT = 2 / 3
"""Of its life: what is left must do for an OpenBao that is away."""
_WARN_AT = (1 + RENEW_AT) / 2
_TRIES_BEFORE_END = 10
"""At least so many, however short the life."""
_SHORTEST_WAIT_S = 0.05
_LONGEST_SLEEP_S = 30.0
"""A host that was suspended finds out within so long that time has passed."""


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

    async def renew() -> float:
        holder.replace(await _issue(keys, wanted))
        return holder.certificate.not_after_s

    renewal = Renewal(wanted.role, renew, holder.certificate.not_after_s, wanted.retry_s)
    async with kept_renewed(renewal):
        yield holder


async def _issue(keys: Vault, wanted: WantedCertificate) -> Certificate:
    issued = await keys.issue(
        wanted.role,
        uri_sans=(wanted.spiffe_id,),
        dns_names=wanted.dns_names,
        ip_addresses=wanted.ip_addresses,
        ttl_s=wanted.ttl_s,
    )
    # Asked for after the certificate: its own root is among them, even if a CA took over meanwhile.
    roots = await keys.roots()
    return Certificate.from_pem(
        chain=issued.chain_pem.encode(),
        key=issued.private_key_pem.encode(),
        peer_ca=(roots or issued.ca_pem).encode(),
    )


@dataclass(slots=True)
class Renewal:
    """Something with an end that is replaced before it."""

    name: str
    """Of the role it is issued under: a constant, for logs and the gauge."""
    renew: Callable[[], Awaitable[float]]
    """Replaces it and returns when the new one ends; raises Refusal, TlsError or OSError."""
    ends_s: float
    """Seconds since 1970."""
    retry_s: float
    """Between tries, at most."""

    @property
    def remaining_s(self) -> float:
        """Seconds until it is over; negative after."""
        return self.ends_s - time.time()

    async def forever(self) -> None:
        """Replace it at two thirds of each life."""
        while True:
            life_s = self.remaining_s
            await _until(self.ends_s - life_s * (1 - RENEW_AT))
            await self._until_renewed(life_s)

    async def _until_renewed(self, life_s: float) -> None:
        pause_s = min(self.retry_s, life_s * (1 - RENEW_AT) / _TRIES_BEFORE_END)
        warned: set[str] = set()
        failures = 0
        while True:
            try:
                self.ends_s = await self.renew()
            except (Refusal, TlsError, OSError) as failure:
                failures += 1
                self._tell(failure, life_s, warned)
                await asyncio.sleep(max(pause_s, _SHORTEST_WAIT_S))
            else:
                counted("tls.renewed")
                log.info(
                    "tls.renewed",
                    role=self.name,
                    remaining_s=round(self.remaining_s),
                    failures=failures,
                )
                return

    def _tell(self, failure: Exception, life_s: float, warned: set[str]) -> None:
        """Log a failure; once each, that the end is near and that it has come."""
        counted("tls.renewal_failed")
        remaining_s = self.remaining_s
        log.warning(
            "tls.renewal_failed",
            role=self.name,
            kind=type(failure).__name__,
            remaining_s=round(remaining_s),
        )
        for event, due in (
            ("tls.certificate_ending", remaining_s <= life_s * (1 - _WARN_AT)),
            ("tls.certificate_over", remaining_s <= 0),
        ):
            if due and event not in warned:
                warned.add(event)
                log.error(event, role=self.name, remaining_s=round(remaining_s))


@asynccontextmanager
async def kept_renewed(renewal: Renewal) -> AsyncIterator[None]:
    """Renew, and let the remaining seconds be seen, for as long as the block runs."""
    async with running(renewal.forever(), "tls-renewal"):
        with measured(f"tls.remaining_s.{renewal.name}", lambda: renewal.remaining_s):
            yield


async def _until(at_s: float) -> None:
    """Wait for a time of the wall clock, for that is what certificates end by."""
    wait_s = max(at_s - time.time(), _SHORTEST_WAIT_S)
    while wait_s > 0:
        await asyncio.sleep(min(wait_s, _LONGEST_SLEEP_S))
        wait_s = at_s - time.time()
