"""Audit's way to the caches: to have each forget a subject, and hear that it did.

The one call that audit makes to another service. It is made once an erasure, so each has a channel
of its own, with the certificate of now.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import structlog

from meshkit.channel import channel_to
from meshkit.contract import Reason, Refusal
from meshkit.status import from_rpc_error
from sealgate.v1 import cache_pb2
from sealgate.v1.cache_pb2_grpc import CacheServiceStub

if TYPE_CHECKING:
    from pathlib import Path

    from meshkit.tls import CertificateHolder

__all__ = ["CachePurger"]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePurger:
    """All replicas of the cache.

    Args:
        targets: host:port of each.
        file: Holds more of them, a line each; read anew each time: replicas come and go.
        certificate: Ours.
        timeout_s: For each.
    """

    targets: tuple[str, ...]
    file: Path | None
    certificate: CertificateHolder
    timeout_s: float

    async def purge(self, tenant: str, subject: str) -> int:
        """Have all of them forget; return how many entries went where most were.

        Raises:
            Refusal: CACHE_DOWN: one did not say that it did. Do it again.
        """
        targets = {*self.targets, *await asyncio.to_thread(self._listed)}
        request = cache_pb2.PurgeRequest(tenant=tenant, subject=subject)
        counts = [await self._purged(target, request) for target in sorted(targets)]
        return max(counts, default=0)

    def _listed(self) -> list[str]:
        if self.file is None:
            return []
        try:
            return self.file.read_text(encoding="ascii").split()
        except (OSError, UnicodeDecodeError):
            raise Refusal(Reason.CACHE_DOWN) from None

    async def _purged(self, target: str, request: cache_pb2.PurgeRequest) -> int:
        credentials = self.certificate.channel_credentials()
        async with channel_to(target, credentials) as channel:
            try:
                reply = await CacheServiceStub(channel).Purge(
                    request, timeout=self.timeout_s, wait_for_ready=True
                )
            except grpc.aio.AioRpcError as failure:
                refusal = from_rpc_error(failure, down=Reason.CACHE_DOWN)
                log.warning("audit.cache_not_purged", reason=refusal.reason.name)
                raise Refusal(Reason.CACHE_DOWN) from None
        return int(reply.entries)
