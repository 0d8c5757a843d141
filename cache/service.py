"""The cache service: `meshkit.contract.Cache` over its tiers.

    async with open_cache(settings, sealer=keyring, verify=verify, secret=secret) as cache:
        match await cache.get(question):
            case CachedAnswer() as hit: ...
            case CacheMiss(lease=lease): ...   # answer it, then put or abandon

Only what compliance vouches for gets in (both MACs), only deterministic questions are kept, nothing
blocked or cut short by the caller is. Whatever fails on our side is a miss, counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from cache.flights import Flights
from cache.keys import cache_key
from cache.memory import MemoryTier
from cache.sealing import decoded, encoded, open_value, seal_value
from meshkit.contract import (
    CachedAnswer,
    CacheMiss,
    FinishReason,
    Reason,
    Refusal,
    Released,
    Scope,
    Screened,
    Stage,
)
from meshkit.counters import counted
from meshkit.screening_mac import digest_of_answer, digest_of_prompt

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cache.sealing import Sealer
    from cache.settings import CacheSettings
    from meshkit.contract import Ended, Question
    from meshkit.screening_mac import MacKeys

__all__ = ["CacheService", "Verify", "mac_verifier", "open_cache"]

log = structlog.get_logger()

Verify = Callable[[Scope, Screened | Released], bool]
"""Whether compliance vouches for this text in this call."""

_SECRET_BYTES_MIN, _SECRET_BYTES_MAX = 32, 64
_MS_PER_S = 1_000
_WHOLE = frozenset({FinishReason.STOP, FinishReason.LENGTH})


def mac_verifier(keys: Callable[[], MacKeys]) -> Verify:
    """Verify against whatever keys are valid at the time: they rotate daily."""

    def verify(scope: Scope, text: Screened | Released) -> bool:
        if isinstance(text, Screened):
            stage, digest = Stage.SCREENED, digest_of_prompt(text.messages)
        else:
            stage, digest = Stage.RELEASED, digest_of_answer(text.text)
        return keys().verify(
            text.mac_key_version,
            text.mac,
            stage=stage,
            text_digest=digest,
            policy_digest=text.verdict.policy_digest,
            tenant=scope.tenant,
            call_id=scope.call_id,
        )

    return verify


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
    """

    def __init__(
        self,
        settings: CacheSettings,
        *,
        sealer: Sealer,
        verify: Verify,
        secret: bytes,
        clock: Callable[[], float] = time.monotonic,
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
        if _worth_keeping(question, answer, ended) and await self._keep(
            question, key, lease, encoded(answer, ended)
        ):
            self._flights.land(key, lease)
        else:
            self._flights.hand_on(key, lease)

    async def abandon(self, question: Question, lease: bytes) -> None:
        """See `meshkit.contract.Cache.abandon`. Without a valid lease it does nothing."""
        self._flights.hand_on(self._key_of(question), lease)

    async def purge(self, tenant: str) -> int:
        """See `meshkit.contract.Cache.purge`. What is being answered now will not be kept."""
        self._flights.purge(tenant)
        return self._memory.purge(tenant)

    def _key_of(self, question: Question) -> bytes:
        if not self._verify(question.scope, question.screened):
            raise Refusal(Reason.INVALID_FIELD, field="screened")
        return cache_key(self._secret, question)

    async def _look_up(self, question: Question, key: bytes) -> CachedAnswer | None:
        sealed = self._memory.get(key, now_s=self._clock())
        if sealed is None:
            return None
        try:
            plaintext = await open_value(self._sealer, question.scope.tenant, key, sealed)
            hit = decoded(plaintext, tier="l1")
        except (Refusal, OSError, ValueError) as error:
            self._failed("open", error)
            self._memory.remove(key)
            return None
        self.counts.hits += 1
        counted("cache.l1.hit")
        return hit

    async def _lead_or_wait(self, question: Question, key: bytes) -> CachedAnswer | CacheMiss:
        deadline_s = self._clock() + self._wait_max_s
        while True:
            now_s = self._clock()
            lease = self._flights.lead(key, tenant=question.scope.tenant)
            if lease or now_s >= deadline_s:
                return self._missed(CacheMiss(lease=lease))
            self.counts.waits += 1
            lease = await self._flights.wait(key, most_s=deadline_s - now_s)
            if lease:
                return self._missed(CacheMiss(lease=lease))
            if hit := await self._look_up(question, key):
                return hit

    async def _keep(self, question: Question, key: bytes, lease: bytes, plaintext: bytes) -> bool:
        tenant = question.scope.tenant
        try:
            sealed = await seal_value(self._sealer, tenant, key, plaintext)
        except (Refusal, OSError, ValueError) as error:
            self._failed("seal", error)
            return False
        # Sealing may have waited for a key; a purge meanwhile took the lease.
        if not self._flights.holds(key, lease):
            return False
        return self._memory.put(key, sealed, tenant=tenant, now_s=self._clock())

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
    settings: CacheSettings, *, sealer: Sealer, verify: Verify, secret: bytes
) -> AsyncIterator[CacheService]:
    """Serve for as long as the block runs.

    Args:
        settings: sizes and times.
        sealer: `meshkit.envelope.Keyring`, or another.
        verify: `mac_verifier` of the current screening keys.
        secret: 32 random bytes; `secrets.token_bytes(32)` will do while L1 is the only tier.
    """
    cache = CacheService(settings, sealer=sealer, verify=verify, secret=secret)
    yield cache
    log.info("cache.closed", hits=cache.counts.hits, misses=cache.counts.misses)
