"""The cache service: `meshkit.contract.Cache` over its tiers.

    async with open_cache(settings, sealer=keyring, verify=verify, secret=secret) as cache:
        match await cache.get(question):
            case CachedAnswer() as hit: ...
            case CacheMiss(lease=lease): ...   # answer it, then put or abandon

L1 is this process' memory. L2, where there is one, is asked by whoever leads a question, so equal
questions ask it once; a hit there fills L1, and a put writes both. Single flight is per replica:
two replicas may answer the same question at the same time, and the later answer stays.

Only what compliance vouches for gets in (both MACs), only deterministic questions are kept, nothing
blocked or cut short by the caller is. Whatever fails on our side is a miss, counted.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from cache.flights import Flights
from cache.keys import cache_key, tag_of, tags_of
from cache.memory import MemoryTier
from cache.sealing import decoded, encoded, open_value, seal_value
from meshkit.contract import CachedAnswer, CacheMiss, FinishReason, Reason, Refusal
from meshkit.counters import counted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from cache.sealing import Sealer
    from cache.settings import CacheSettings
    from cache.tiers import SharedTier
    from meshkit.contract import Ended, Question, Released
    from meshkit.screening_mac import Verify

__all__ = ["CacheService", "open_cache"]

log = structlog.get_logger()

_SECRET_BYTES_MIN, _SECRET_BYTES_MAX = 32, 64
_MS_PER_S = 1_000
_WHOLE = frozenset({FinishReason.STOP, FinishReason.LENGTH})


@dataclass(slots=True)
class Counts:
    """What became of questions since the start."""

    hits: int = 0
    misses: int = 0
    waits: int = 0
    failures: int = 0
    """Sealer or stored value failed; counted as a miss, too."""


class CacheService:
    """Implements `meshkit.contract.Cache`. For one event loop.

    Args:
        settings: sizes and times.
        sealer: seals under keys of the tenant.
        verify: checks screening MACs.
        secret: keys the hash of questions; 32 to 64 random bytes.
        clock: seconds, steady.
        shared: L2; it must hold the keys that `sealer` seals with.
    """

    def __init__(
        self,
        settings: CacheSettings,
        *,
        sealer: Sealer,
        verify: Verify,
        secret: bytes,
        clock: Callable[[], float] = time.monotonic,
        shared: SharedTier | None = None,
    ) -> None:
        if not _SECRET_BYTES_MIN <= len(secret) <= _SECRET_BYTES_MAX:
            msg = f"the cache's secret needs {_SECRET_BYTES_MIN} to {_SECRET_BYTES_MAX} bytes"
            raise ValueError(msg)
        self._wait_max_s = settings.wait_max_ms / _MS_PER_S
        self._sealer = sealer
        self._verify = verify
        self._secret = secret
        self._clock = clock
        self._memory = MemoryTier(
            bytes_max=settings.l1_bytes_max,
            ttl_s=settings.l1_ttl_ms / _MS_PER_S,
            jitter=settings.ttl_jitter,
        )
        self._flights = Flights(lease_s=settings.lease_ms / _MS_PER_S, clock=clock)
        self.counts = Counts()
        self._shared = shared
        if shared is not None:
            shared.forget = self._forget

    @property
    def size_bytes(self) -> int:
        """Room that L1 takes."""
        return self._memory.size_bytes

    async def get(self, question: Question) -> CachedAnswer | CacheMiss:
        """See `meshkit.contract.Cache.get`."""
        key = self._key_of(question)
        if not question.parameters.deterministic:
            return self._missed(CacheMiss())
        hit = await self._look_up(question, key)
        return hit or await self._lead_or_wait(question, key)

    async def put(self, question: Question, lease: bytes, answer: Released, ended: Ended) -> None:
        """See `meshkit.contract.Cache.put`. Without a valid lease it does nothing."""
        key = self._key_of(question)
        if not self._verify(question.scope, answer):
            raise Refusal(Reason.INVALID_FIELD, field="answer")
        if not self._flights.holds(key, lease):
            return
        sealed = None
        if _worth_keeping(question, answer, ended):
            sealed = await self._keep(question, key, lease, encoded(answer, ended))
        if sealed is None:
            self._flights.hand_on(key, lease)
            return
        self._flights.land(key, lease)
        # Nothing was awaited since the lease was seen to hold: L2 gets it under that generation.
        if self._shared is not None:
            await self._shared.keep(question.scope.tenant, key, sealed, tags_of(question))

    async def abandon(self, question: Question, lease: bytes) -> None:
        """See `meshkit.contract.Cache.abandon`. Without a valid lease it does nothing."""
        self._flights.hand_on(self._key_of(question), lease)

    async def purge(
        self, tenant: str, *, session: str = "", model_digest: bytes = b"", subject: str = ""
    ) -> int:
        """See `meshkit.contract.Cache.purge`. What is being answered now will not be kept.

        Raises:
            Refusal: INVALID_FIELD: more than one was given. CACHE_DOWN: gone here, but perhaps not
                from L2; do it again.
        """
        try:
            tag = tag_of(session=session, model_digest=model_digest, subject=subject)
        except ValueError:
            raise Refusal(Reason.INVALID_FIELD, field="session") from None
        if self._shared is not None:
            return await self._shared.purge(tenant, tag)
        return self._forget(tenant, tag)

    async def watch(self) -> None:
        """See what other replicas purge, for ever. Run by `open_cache`."""
        if self._shared is not None:
            await self._shared.watch(lambda: self._memory.tenants | self._flights.tenants)

    def _forget(self, tenant: str, tag: str = "") -> int:
        """Forget entries, and let no answer of the tenant that is under way be kept."""
        self._flights.purge(tenant)
        return self._memory.purge(tenant, tag)

    def _key_of(self, question: Question) -> bytes:
        if not self._verify(question.scope, question.screened):
            raise Refusal(Reason.INVALID_FIELD, field="screened")
        return cache_key(self._secret, question)

    async def _look_up(self, question: Question, key: bytes) -> CachedAnswer | None:
        sealed = self._memory.get(key, now_s=self._clock())
        if sealed is None:
            return None
        try:
            hit = await self._opened(question, key, sealed, "l1")
        except (Refusal, OSError, ValueError) as error:
            self._failed("open", error)
            self._memory.remove(key)
            return None
        self.counts.hits += 1
        counted("cache.l1.hit")
        return hit

    async def _opened(
        self, question: Question, key: bytes, sealed: bytes, tier: str
    ) -> CachedAnswer:
        plaintext = await open_value(self._sealer, question.scope.tenant, key, sealed)
        return decoded(plaintext, tier=tier)

    async def _led(self, question: Question, key: bytes, lease: bytes) -> CachedAnswer | CacheMiss:
        """Look in L2 for those who wait as well; who leads and fails hands on."""
        if self._shared is None:
            return self._missed(CacheMiss(lease=lease))
        try:
            hit = await self._look_up_shared(self._shared, question, key, lease)
        except BaseException:
            self._flights.hand_on(key, lease)
            raise
        if hit is None:
            return self._missed(CacheMiss(lease=lease))
        self._flights.land(key, lease)
        return hit

    async def _look_up_shared(
        self, shared: SharedTier, question: Question, key: bytes, lease: bytes
    ) -> CachedAnswer | None:
        tenant = question.scope.tenant
        sealed = await shared.look_up(tenant, key)
        if sealed is None:
            counted("cache.l2.miss")
            return None
        try:
            hit = await self._opened(question, key, sealed, "l2")
        except (Refusal, OSError, ValueError) as error:
            self._failed("open", error)
            # Without keys it is not known to be broken.
            if not (isinstance(error, Refusal) and error.reason is Reason.KEYS_DOWN):
                await shared.remove(tenant, key)
            return None
        self.counts.hits += 1
        counted("cache.l2.hit")
        # A purge since the look-up took the lease.
        if self._flights.holds(key, lease):
            self._memory.put(
                key, sealed, tenant=tenant, now_s=self._clock(), tags=tags_of(question)
            )
        return hit

    async def _lead_or_wait(self, question: Question, key: bytes) -> CachedAnswer | CacheMiss:
        deadline_s = self._clock() + self._wait_max_s
        while True:
            now_s = self._clock()
            lease = self._flights.lead(key, tenant=question.scope.tenant)
            if lease:
                return await self._led(question, key, lease)
            if now_s >= deadline_s:
                return self._missed(CacheMiss())
            self.counts.waits += 1
            lease = await self._flights.wait(key, most_s=deadline_s - now_s)
            if lease:
                return await self._led(question, key, lease)
            if hit := await self._look_up(question, key):
                return hit

    async def _keep(
        self, question: Question, key: bytes, lease: bytes, plaintext: bytes
    ) -> bytes | None:
        """Seal and keep in L1; return the sealed value, None if it was not kept."""
        tenant = question.scope.tenant
        try:
            sealed = await seal_value(self._sealer, tenant, key, plaintext)
        except (Refusal, OSError, ValueError) as error:
            self._failed("seal", error)
            return None
        # Sealing may have waited for a key; a purge meanwhile took the lease.
        if not self._flights.holds(key, lease):
            return None
        kept = self._memory.put(
            key, sealed, tenant=tenant, now_s=self._clock(), tags=tags_of(question)
        )
        return sealed if kept else None

    def _missed(self, miss: CacheMiss) -> CacheMiss:
        self.counts.misses += 1
        counted("cache.l1.miss")
        return miss

    def _failed(self, doing: str, error: Exception) -> None:
        self.counts.failures += 1
        counted("cache.sealing.failed")
        log.warning("cache.sealing_failed", doing=doing, kind=type(error).__name__)


def _worth_keeping(question: Question, answer: Released, ended: Ended) -> bool:
    """Whole, unblocked, deterministic, and screened both ways under one policy."""
    return (
        not answer.blocked
        and ended.finish_reason in _WHOLE
        and question.parameters.deterministic
        and answer.verdict.policy_digest == question.screened.verdict.policy_digest
    )


@asynccontextmanager
async def open_cache(
    settings: CacheSettings,
    *,
    sealer: Sealer,
    verify: Verify,
    secret: bytes,
    shared: SharedTier | None = None,
) -> AsyncIterator[CacheService]:
    """Serve for as long as the block runs.

    Args:
        settings: sizes and times.
        sealer: `meshkit.envelope.Keyring`, or another.
        verify: `mac_verifier` of the current screening keys.
        secret: 32 random bytes; replicas that share L2 share it.
        shared: L2, of `cache.tiers.shared_tier`; none without.
    """
    cache = CacheService(settings, sealer=sealer, verify=verify, secret=secret, shared=shared)
    watching = asyncio.create_task(cache.watch(), name="cache-purges")
    try:
        yield cache
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        log.info("cache.closed", hits=cache.counts.hits, misses=cache.counts.misses)
