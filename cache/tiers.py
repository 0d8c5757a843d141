"""L2 as one replica sees it: it never fails, and what others purged goes here as well.

L1 entries and leases of a tenant belong to the stamp (generation and epoch, see `cache.redis`) that
this replica last saw of it. When it sees another (in a look-up, a put, or by `watch`, every
`purge_seen_ms`), it forgets them all. So a purge on any replica is exact in L2 at once, on that
replica too, and in the L1 of the others within that time. While Redis is away nothing can be
purged, which the purger is told.

Counted: `cache.l2.hit`, `.miss`, `.down` (looked up in vain), `.broken` (a value that does not
open: deleted), `.unkept` (not put), `.moved` (others' purges seen).
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog

from cache.redis import Names, RedisTier, RedisWrappedKeys
from meshkit.contract import Reason, Refusal
from meshkit.counters import counted
from meshkit.redis_link import RedisAway, redis_link
from meshkit.sealing import key_id_of
from meshkit.wrapped_keys import MemoryWrappedKeys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from cache.settings import CacheSettings
    from meshkit.wrapped_keys import WrappedKeys

__all__ = ["SharedTier", "shared_tier", "wrapped_keys"]

log = structlog.get_logger()

_MS_PER_S = 1_000
_UNKNOWN = b""


class SharedTier:
    """L2. Made by `shared_tier`; for one event loop.

    Args:
        tier: where values lie.
        keys: those that open them.
        value_bytes_max: larger ones stay in L1.
        purge_seen_ms: how often others' purges are looked for.
    """

    def __init__(
        self, tier: RedisTier, keys: RedisWrappedKeys, *, value_bytes_max: int, purge_seen_ms: int
    ) -> None:
        self._tier = tier
        self.keys = keys
        self._value_bytes_max = value_bytes_max
        self._purge_seen_s = purge_seen_ms / _MS_PER_S
        self._seen: dict[str, bytes] = {}
        self.forget: Callable[[str, str], int] = lambda _tenant, _tag: 0
        """Forgets a tenant's L1 entries (that bear a tag, if there is one) and all its leases;
        returns how many entries. The service's."""

    async def look_up(self, tenant: str, key: bytes) -> bytes | None:
        """Return a sealed value, or None, whatever the reason."""
        try:
            found = await self._tier.get(tenant, key)
        except RedisAway:
            counted("cache.l2.down")
            # Entries made from now on are of no known generation: the first one seen ends them.
            self._seen.setdefault(tenant, _UNKNOWN)
            return None
        self._agree(tenant, found.stamp)
        return found.value

    async def keep(
        self, tenant: str, key: bytes, sealed: bytes, tags: tuple[str, ...] = ()
    ) -> None:
        """Keep a value, if that is possible in good time.

        The stamp is read before anything is awaited, so it is that of the caller's lease.
        """
        stamp = self._seen.get(tenant, _UNKNOWN)
        wrapped = self.keys.held(tenant, key_id_of(sealed))
        if not stamp or wrapped is None or len(sealed) > self._value_bytes_max:
            counted("cache.l2.unkept")
            return
        try:
            other = await self._tier.put(
                tenant, key, sealed, stamp=stamp, wrapped=wrapped, tags=tags
            )
        except RedisAway:
            counted("cache.l2.unkept")
            return
        if other is not None:
            counted("cache.l2.unkept")
            self._agree(tenant, other)

    async def remove(self, tenant: str, key: bytes) -> None:
        """Forget a value that does not open."""
        counted("cache.l2.broken")
        try:
            await self._tier.remove(tenant, key)
        except RedisAway:
            counted("cache.l2.down")

    async def purge(self, tenant: str, tag: str = "") -> int:
        """Forget a tenant, or what bears a tag, here and in Redis.

        Returns:
            How many entries went where most were.

        Raises:
            Refusal: CACHE_DOWN: other replicas and Redis may still have some; do it again.
        """
        if tag:
            return await self._purge_part(tenant, tag)
        try:
            fresh, there, old = await self._tier.move(tenant)
        except RedisAway:
            self.forget(tenant, "")
            raise Refusal(Reason.CACHE_DOWN) from None
        self._seen[tenant] = fresh
        here = self.forget(tenant, "")
        try:
            if old:
                await self._tier.free(tenant, old)
        except RedisAway:
            # They serve nobody any more, and end by themselves.
            counted("cache.l2.unfreed")
        return max(here, there)

    async def _purge_part(self, tenant: str, tag: str) -> int:
        """Another epoch first: nothing that is under way is kept after it."""
        here = self.forget(tenant, tag)
        try:
            stamp = await self._tier.end_epoch(tenant)
            if stamp:
                self._seen[tenant] = stamp
            # What came into L1 while Redis was asked.
            here += self.forget(tenant, tag)
            return max(here, await self._tier.drop(tenant, tag))
        except RedisAway:
            raise Refusal(Reason.CACHE_DOWN) from None

    async def watch(self, tenants: Callable[[], set[str]]) -> None:
        """See others' purges of these tenants, for ever."""
        while True:
            await asyncio.sleep(self._purge_seen_s)
            await self.check(tenants())

    async def check(self, tenants: set[str]) -> None:
        """See others' purges of these tenants, now; the generations of others are of no use."""
        for gone in self._seen.keys() - tenants:
            del self._seen[gone]
        before = dict(self._seen)
        try:
            found = await self._tier.stamps(tuple(tenants))
        except RedisAway:
            return
        for tenant, stamp in found.items():
            # Seen anew meanwhile, and perhaps later than this: the next check tells.
            if self._seen.get(tenant) == before.get(tenant):
                self._agree(tenant, stamp)

    def _agree(self, tenant: str, stamp: bytes) -> None:
        seen = self._seen.get(tenant)
        self._seen[tenant] = stamp
        if seen is not None and seen != stamp:
            counted("cache.l2.moved")
            self.forget(tenant, "")


@asynccontextmanager
async def shared_tier(settings: CacheSettings, secret: bytes) -> AsyncIterator[SharedTier | None]:
    """Hold L2 for as long as the block runs; None without one.

    Args:
        settings: `redis` says whether and where.
        secret: The cache's: names in Redis are hashed under it.

    Raises:
        OSError: the CA of Redis cannot be read. Redis itself need not be there.
    """
    if not settings.redis.configured:
        yield None
        return
    async with redis_link(settings.redis, name="cache") as link:
        names = Names(secret)
        yield SharedTier(
            RedisTier(link, names, ttl_ms=settings.l2_ttl_ms, jitter=settings.ttl_jitter),
            RedisWrappedKeys(link, names),
            value_bytes_max=settings.l2_value_bytes_max,
            purge_seen_ms=settings.purge_seen_ms,
        )


def wrapped_keys(shared: SharedTier | None) -> WrappedKeys:
    """Return where the cache's data keys are kept: with L2, or in this process without."""
    return MemoryWrappedKeys() if shared is None else shared.keys
