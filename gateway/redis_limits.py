"""Limits that all replicas of the gateway share, exactly: the buckets of `admission` in Redis.

A bucket is one string, its theoretical arrival time, under `sealgate:limits:<hash of its name>`;
one Lua script checks every bucket of an ask and then takes from all of them, or from none. Redis
runs scripts one at a time and tells the time, so replicas need to agree on neither. A bucket that
is full again ends by itself.

While Redis is away each replica falls back to buckets of its own, of 1/`replicas` of each rate and
burst, counted as `limits.redis.fallback`. What that costs, at worst:

- at the change-over a bucket may be full here that was empty there: one more burst, over all
  replicas together, each time Redis goes away; and another if it comes back without its data;
- a bucket always lets through one call that is larger than its burst, so each replica lets one
  request through even where `burst / replicas` is below 1.

What was taken from Redis and is settled while it is away stays taken until it refills; a reply that
was lost may have taken as well. Both err on the side of the limit. What was used beyond the
reservation is then booked here.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from gateway.admission import (
    Ask,
    Keys,
    MemoryLimits,
    Rate,
    Rates,
    Reservation,
    bucket_names,
)
from meshkit.contract import Reason, Refusal
from meshkit.counters import counted
from meshkit.redis_link import RedisAway, Script

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshkit.redis_link import RedisLink

__all__ = ["PREFIX", "SCRIPT", "RedisLimits", "SharedReservation", "shares_of"]

PREFIX = "sealgate:limits:"
"""Of every key; what the ACL of the gateway's user lets it touch."""

_DIGEST_BYTES = 16
_NAMES_MAX = 4_096

SCRIPT = Script("""
-- KEYS: buckets. ARGV: 'take' or 'settle', then rate per second, burst and units of each bucket.
-- 'take' returns the longest wait in seconds, '0' if all was taken; with a wait, nothing was.
-- 'settle' gives units back, or takes them where negative, whether or not they are there.
-- The arithmetic is gateway.admission.Buckets'; times are seconds since 2026-01-01, which leaves a
-- double 7 ns; strings of 17 digits carry doubles unchanged.
local time = redis.call('TIME')
local now = (tonumber(time[1]) - 1767225600) + tonumber(time[2]) / 1e6
local n = #KEYS
local tats, rates, units = {}, {}, {}
local longest = 0
for i = 1, n do
  local at = 2 + (i - 1) * 3
  rates[i], units[i] = tonumber(ARGV[at]), tonumber(ARGV[at + 2])
  local burst = tonumber(ARGV[at + 1])
  tats[i] = tonumber(redis.call('GET', KEYS[i]) or nil)
  local ahead = math.max((tats[i] or now) - now, 0)
  local over = math.min(units[i], burst) - burst
  longest = math.max(longest, ahead + over / rates[i])
end
if ARGV[1] == 'take' then
  if longest > 1e-6 then
    return string.format('%.17g', longest)
  end
end
for i = 1, n do
  local tat
  if ARGV[1] == 'take' or units[i] < 0 then
    tat = math.max(now, tats[i] or now) + math.abs(units[i]) / rates[i]
  elseif tats[i] then
    tat = tats[i] - units[i] / rates[i]
  end
  if tat then
    -- Full again by then. A second more, and 34 years at the most: Redis refuses to add beyond.
    local left = math.min(math.max(math.ceil((tat - now) * 1000), 0) + 1000, 1e12)
    redis.call('SET', KEYS[i], string.format('%.17g', tat), 'PX', string.format('%.0f', left))
  end
end
return '0'
""")


@dataclass(frozen=True, slots=True)
class SharedReservation(Reservation):
    """What was taken from Redis, but for `local` tokens that were taken here."""

    local: int = 0


def shares_of(rates: Callable[[str], Rates], replicas: int) -> Callable[[str], Rates]:
    """Divide every rate and burst by the number of replicas."""

    def shares(tenant: str) -> Rates:
        its = rates(tenant)
        return Rates(
            tenant_requests=_share(its.tenant_requests, replicas),
            tenant_tokens=_share(its.tenant_tokens, replicas),
            user_requests=_share(its.user_requests, replicas),
            user_tokens=_share(its.user_tokens, replicas),
            model_requests=_share(its.model_requests, replicas),
            model_tokens=_share(its.model_tokens, replicas),
        )

    return shares


class RedisLimits:
    """`gateway.admission.Limits` over one Redis and, while that is away, in memory.

    Args:
        link: to Redis, as a user that may only `PREFIX`.
        rates: by tenant; replicas that differ in them do not share a limit.
        replicas: how many gateways there are at most.
        clock: monotonic seconds, for the buckets in memory.
        buckets_max: of those.
        script: `SCRIPT`.
    """

    def __init__(
        self,
        link: RedisLink,
        rates: Callable[[str], Rates],
        *,
        replicas: int,
        clock: Callable[[], float],
        buckets_max: int = 100_000,
        script: Script = SCRIPT,
    ) -> None:
        self._link = link
        self._script = script
        self._replicas = replicas
        self._named = lru_cache(maxsize=_NAMES_MAX)(partial(bucket_names, rates))
        self._memory = MemoryLimits(
            shares_of(rates, replicas), clock=clock, buckets_max=buckets_max
        )

    async def reserve(self, ask: Ask) -> Reservation:
        """See `gateway.admission.Limits.reserve`."""
        requests, tokens = self._named(ask.tenant, ask.principal, ask.model)
        try:
            delay_s = await self._take(requests, 1, tokens, ask.tokens)
        except RedisAway:
            counted("limits.redis.fallback")
            return await self._memory.reserve(ask)
        if delay_s > 0:
            raise Refusal(Reason.LIMITED, retry_after_ms=int(delay_s * 1_000) + 1)
        return SharedReservation(tokens, ask.tokens)

    async def extend(self, reservation: Reservation, tokens: int) -> Reservation | None:
        """See `gateway.admission.Limits.extend`."""
        if not isinstance(reservation, SharedReservation):
            return await self._memory.extend(reservation, tokens)
        try:
            delay_s = await self._take((), 0, reservation.keys, tokens)
        except RedisAway:
            return await self._extended_here(reservation, tokens)
        if delay_s > 0:
            return None
        return replace(reservation, tokens=reservation.tokens + tokens)

    async def settle(self, reservation: Reservation, tokens_used: int) -> None:
        """See `gateway.admission.Limits.settle`. What was taken here is given back here first."""
        if not isinstance(reservation, SharedReservation):
            await self._memory.settle(reservation, tokens_used)
            return
        unused = reservation.tokens - tokens_used
        here = min(max(unused, 0), reservation.local)
        if here:
            await self._memory.settle(self._here(reservation, here), 0)
        if unused - here:
            await self._settle_there(reservation, unused - here)

    async def _extended_here(
        self, reservation: SharedReservation, tokens: int
    ) -> SharedReservation | None:
        counted("limits.redis.fallback")
        if await self._memory.extend(self._here(reservation, 0), tokens) is None:
            return None
        return replace(
            reservation,
            tokens=reservation.tokens + tokens,
            local=reservation.local + tokens,
        )

    async def _settle_there(self, reservation: SharedReservation, unused: int) -> None:
        parts = _parts(reservation.keys, unused)
        try:
            await self._link.run(
                self._script, keys=_keys(reservation.keys), args=("settle", *parts)
            )
        except RedisAway:
            counted("limits.redis.unsettled")
            if unused < 0:
                await self._memory.settle(self._here(reservation, 0), -unused)

    async def _take(self, requests: Keys, count: int, tokens: Keys, amount: int) -> float:
        """Take from all or none; return how many seconds too early that is, or 0."""
        parts = (*_parts(requests, count), *_parts(tokens, amount))
        keys = (*_keys(requests), *_keys(tokens))
        return float(await self._link.run(self._script, keys=keys, args=("take", *parts)))

    def _here(self, reservation: Reservation, tokens: int) -> Reservation:
        """Return `tokens` of this replica's share of the same buckets."""
        keys = tuple((name, _share(rate, self._replicas)) for name, rate in reservation.keys)
        return Reservation(keys, tokens)


def _share(rate: Rate, replicas: int) -> Rate:
    return Rate(rate.per_s / replicas, rate.burst / replicas)


def _keys(buckets: Keys) -> tuple[str, ...]:
    return tuple(_key(name) for name, _ in buckets)


@lru_cache(maxsize=_NAMES_MAX * 6)
def _key(name: str) -> str:
    """Hash a name: of a known length, and unreadable to whoever looks at Redis' keys."""
    return PREFIX + hashlib.blake2b(name.encode(), digest_size=_DIGEST_BYTES).hexdigest()


def _parts(buckets: Keys, units: int) -> list[float]:
    return [part for _, rate in buckets for part in (rate.per_s, rate.burst, units)]
