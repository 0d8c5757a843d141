"""L2: sealed values and wrapped data keys in Redis, for all replicas of the cache.

Redis sees keyed hashes and ciphertext. `T` is HMAC-SHA-256 of the tenant under the cache's secret,
16 bytes in hexadecimal; the braces keep a tenant's keys in one slot of a cluster.

    sealgate:cache:{T}:g          generation: 16 random bytes, without an end
    sealgate:cache:{T}:e          epoch: 16 random bytes, once something was purged in part
    sealgate:cache:{T}:v:<key>    value: the generation it was put in, then the sealed answer
    sealgate:cache:{T}:i:<gen>    keys of one generation, by when they end (a sorted set)
    sealgate:cache:{T}:t:<tag>    keys that bear a session, model or subject, likewise; the tag is
                                  HMAC-SHA-256 of it, 16 bytes
    sealgate:cache:{T}:k:<day>    wrapped data keys by id (a hash); empty: erased

A value serves only while its generation is the tenant's: so purging is one write, whatever the
number of values, and exact from then on. Their room is freed after it. A generation that Redis lost
is made anew, so no value of before serves again.

What bears a tag is deleted one by one. Before that the tenant gets another epoch: a value is put
only in the epoch that was seen when its question was looked up, so none that was under way comes
later, and other replicas, which see the epoch change, forget what they have of the tenant in L1.

A value and the wrapped key that opens it are written by one script: no value is there without its
key, even if Redis lost all it had a moment ago.
"""

from __future__ import annotations

import hmac
import json
import os
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshkit.counters import counted
from meshkit.redis_link import RedisAway, Script
from meshkit.sealing import day_of
from meshkit.wrapped_keys import MemoryWrappedKeys, WrappedKey

if TYPE_CHECKING:
    from meshkit.redis_link import RedisLink

__all__ = ["GENERATION_BYTES", "Found", "Names", "RedisTier", "RedisWrappedKeys"]

GENERATION_BYTES = 16
_TAG_BYTES = 16
_TAG_LABEL = b"sealgate/cache/tenant/v1\0"
_TAGGED_LABEL = b"sealgate/cache/tagged/v1\0"
_FREE_AT_ONCE = 500
_KEYS_TTL_MS = 2 * 86_400_000
"""Of wrapped keys, from the last value on: longer than any value, and than a key is sealed with."""

_PUT = Script("""
-- KEYS: generation, value, index, wrapped keys, epoch, tags.
-- ARGV: generation, sealed value, its ms, the cache's key, key id, wrapped key, ms of wrapped keys,
-- epoch.
local now = redis.call('GET', KEYS[1])
if not now then return {'moved', ''} end
local epoch = redis.call('GET', KEYS[5]) or ''
if now ~= ARGV[1] or epoch ~= ARGV[8] then return {'moved', now .. epoch} end
local wrapped = redis.call('HGET', KEYS[4], ARGV[5])
if wrapped == '' then return {'erased'} end
if not wrapped then redis.call('HSET', KEYS[4], ARGV[5], ARGV[6]) end
redis.call('PEXPIRE', KEYS[4], ARGV[7])
redis.call('SET', KEYS[2], ARGV[1] .. ARGV[2], 'PX', ARGV[3])
local time = redis.call('TIME')
local at = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', at)
redis.call('ZADD', KEYS[3], at + ARGV[3], ARGV[4])
redis.call('PEXPIRE', KEYS[3], ARGV[7])
for i = 6, #KEYS do
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', at)
  redis.call('ZADD', KEYS[i], at + ARGV[3], ARGV[4])
  redis.call('PEXPIRE', KEYS[i], ARGV[7])
end
return {'kept'}
""")

_MOVE = Script("""
-- KEYS: generation, epoch. ARGV: the new generation, prefix of indexes.
-- Returns how many values serve no more, and the generation they were of.
local old = redis.call('GET', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1])
redis.call('UNLINK', KEYS[2])
if not old then return {0, ''} end
local time = redis.call('TIME')
local hex = string.gsub(old, '.', function(c) return string.format('%02x', string.byte(c)) end)
local at = time[1] * 1000 + math.floor(time[2] / 1000)
return {redis.call('ZCOUNT', ARGV[2] .. hex, at, '+inf'), old}
""")

_END_EPOCH = Script("""
-- KEYS: generation, epoch. ARGV: the new epoch. Returns the stamp; nothing where nothing is kept.
local now = redis.call('GET', KEYS[1])
if not now then return '' end
redis.call('SET', KEYS[2], ARGV[1])
return now .. ARGV[1]
""")

_DROP = Script("""
-- KEYS: a tag. ARGV: prefix of values, how many at most. Returns how many were looked at and were
-- there. Taken from the tag and deleted at once: a value that no tag names is never found again.
local popped = redis.call('ZPOPMIN', KEYS[1], ARGV[2])
local there = 0
for i = 1, #popped, 2 do
  local key = popped[i]
  local hex = string.gsub(key, '.', function(c) return string.format('%02x', string.byte(c)) end)
  there = there + redis.call('UNLINK', ARGV[1] .. hex)
end
return {#popped / 2, there}
""")

_ERASE = Script("""
-- KEYS: wrapped keys of a day. ARGV: how long to remember it in ms, ids that must be among them.
local count = 0
local kept = redis.call('HGETALL', KEYS[1])
for i = 1, #kept, 2 do
  if kept[i + 1] ~= '' then count = count + 1 end
  redis.call('HSET', KEYS[1], kept[i], '')
end
for i = 2, #ARGV do
  if redis.call('HSET', KEYS[1], ARGV[i], '') == 1 then count = count + 1 end
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return count
""")


class Names:
    """What a tenant's things are called in Redis.

    Args:
        secret: The cache's, that replicas share: 32 to 64 bytes.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._prefixes: dict[str, str] = {}

    def prefix(self, tenant: str) -> str:
        """Return what all names of a tenant begin with."""
        known = self._prefixes.get(tenant)
        if known is None:
            tag = hmac.digest(self._secret, _TAG_LABEL + tenant.encode(), "sha256")[:_TAG_BYTES]
            known = self._prefixes[tenant] = f"sealgate:cache:{{{tag.hex()}}}:"
        return known

    def generation(self, tenant: str) -> str:
        """Name the generation."""
        return f"{self.prefix(tenant)}g"

    def epoch(self, tenant: str) -> str:
        """Name the epoch."""
        return f"{self.prefix(tenant)}e"

    def tag(self, tenant: str, tag: str) -> str:
        """Name the index of what bears a tag."""
        made = hmac.digest(self._secret, _TAGGED_LABEL + tag.encode(), "sha256")[:_TAG_BYTES]
        return f"{self.prefix(tenant)}t:{made.hex()}"

    def value(self, tenant: str, key: bytes) -> str:
        """Name the value of a key."""
        return f"{self.prefix(tenant)}v:{key.hex()}"

    def index(self, tenant: str, generation: bytes) -> str:
        """Name the index of a generation."""
        return f"{self.prefix(tenant)}i:{generation.hex()}"

    def wrapped(self, tenant: str, day: int) -> str:
        """Name the wrapped keys of a day."""
        return f"{self.prefix(tenant)}k:{day}"


@dataclass(frozen=True, slots=True)
class Found:
    """A tenant's stamp, and the sealed value that serves under it, if any.

    The stamp is the generation, and behind it the epoch, if there is one.
    """

    stamp: bytes
    value: bytes | None


class RedisTier:
    """Values by tenant and key. Every method raises RedisAway.

    Args:
        link: As a user that may touch `sealgate:cache:*`.
        names: Shared with `RedisWrappedKeys`.
        ttl_ms: How long a value serves at most.
        jitter: Share of that, in [0, 1), up to which it is cut short at random.
    """

    def __init__(self, link: RedisLink, names: Names, *, ttl_ms: int, jitter: float) -> None:
        self._link = link
        self._names = names
        self._ttl_ms = ttl_ms
        self._jitter = jitter

    async def get(self, tenant: str, key: bytes) -> Found:
        """Look up a value and the generation it must be of, at one moment."""
        names = self._names
        name = names.generation(tenant)
        generation, epoch, value = await self._link.call(
            "MGET", name, names.epoch(tenant), names.value(tenant, key)
        )
        if not generation:
            return Found(await self._first_generation(name), None)
        stamp = generation + (epoch or b"")
        if value is None or value[:GENERATION_BYTES] != generation:
            return Found(stamp, None)
        return Found(stamp, value[GENERATION_BYTES:])

    async def put(
        self,
        tenant: str,
        key: bytes,
        sealed: bytes,
        *,
        stamp: bytes,
        wrapped: WrappedKey,
        tags: tuple[str, ...] = (),
    ) -> bytes | None:
        """Keep a value under a stamp, with the key that opens it and what it is purged by.

        Returns:
            The tenant's stamp, if it is another by now; then nothing was kept. No bytes, if it has
            none. None, if it was kept, or the wrapped key has been erased.
        """
        names = self._names
        generation, epoch = stamp[:GENERATION_BYTES], stamp[GENERATION_BYTES:]
        share = 1 - self._jitter * random.random()  # noqa: S311 -- spreads load, guards nothing
        answer = await self._link.run(
            _PUT,
            keys=(
                names.generation(tenant),
                names.value(tenant, key),
                names.index(tenant, generation),
                names.wrapped(tenant, wrapped.day),
                names.epoch(tenant),
                *(names.tag(tenant, tag) for tag in tags),
            ),
            args=(
                *(generation, sealed, max(1, int(self._ttl_ms * share)), key),
                *(wrapped.key_id, _written(wrapped), _KEYS_TTL_MS, epoch),
            ),
        )
        return bytes(answer[1]) if answer[0] == b"moved" else None

    async def remove(self, tenant: str, key: bytes) -> None:
        """Forget a value."""
        await self._link.call("UNLINK", self._names.value(tenant, key))

    async def move(self, tenant: str) -> tuple[bytes, int, bytes]:
        """Give a tenant another generation: nothing put before serves from now on.

        Returns:
            The new generation, how many values ended with the old one, and that one, for `free`.
        """
        fresh = os.urandom(GENERATION_BYTES)
        count, old = await self._link.run(
            _MOVE,
            keys=(self._names.generation(tenant), self._names.epoch(tenant)),
            args=(fresh, self._names.index(tenant, b"")),
        )
        return fresh, count, old

    async def free(self, tenant: str, generation: bytes) -> None:
        """Give the room of a past generation back, some hundreds of values at a time."""
        index = self._names.index(tenant, generation)
        while popped := await self._link.call("ZPOPMIN", index, _FREE_AT_ONCE):
            await self._link.call("UNLINK", *(self._names.value(tenant, k) for k in popped[::2]))

    async def end_epoch(self, tenant: str) -> bytes:
        """Give a tenant another epoch; return the stamp, no bytes if nothing was ever kept."""
        keys = (self._names.generation(tenant), self._names.epoch(tenant))
        return bytes(await self._link.run(_END_EPOCH, keys=keys, args=(os.urandom(16),)))

    async def drop(self, tenant: str, tag: str) -> int:
        """Delete what bears a tag, some hundreds of values at a time; return how many there were.

        Raises RedisAway; what is left then is found again.
        """
        keys, prefix = (self._names.tag(tenant, tag),), self._names.value(tenant, b"")
        count = 0
        while True:
            looked: int
            there: int
            looked, there = await self._link.run(_DROP, keys=keys, args=(prefix, _FREE_AT_ONCE))
            count += there
            if not looked:
                return count

    async def stamps(self, tenants: tuple[str, ...]) -> dict[str, bytes]:
        """Return the stamp of each tenant; no bytes where there is none."""
        names = [self._names.generation(tenant) for tenant in tenants]
        names += [self._names.epoch(tenant) for tenant in tenants]
        found = await self._link.call("MGET", *names) if names else ()
        pairs = zip(found[: len(tenants)], found[len(tenants) :], strict=True)
        return {
            tenant: generation + (epoch or b"") if generation else b""
            for tenant, (generation, epoch) in zip(tenants, pairs, strict=True)
        }

    async def _first_generation(self, name: str) -> bytes:
        """Make one, unless another replica was first."""
        await self._link.call("SET", name, os.urandom(GENERATION_BYTES), "NX")
        return await self._link.call("GET", name) or b""


class RedisWrappedKeys(MemoryWrappedKeys):
    """`meshkit.wrapped_keys.WrappedKeys` that replicas share.

    Keeps its own keys in memory as well: a replica goes on without Redis, and the script that puts
    a value shares the key along with it. An erased key stays erased: its id is remembered for two
    days, longer than any replica seals with a key.
    """

    def __init__(self, link: RedisLink, names: Names) -> None:
        super().__init__()
        self._link = link
        self._names = names

    def held(self, tenant: str, key_id: bytes) -> WrappedKey | None:
        """Return a key this replica has, without asking."""
        return self._keys.get((tenant, key_id))

    async def get(self, tenant: str, key_id: bytes) -> WrappedKey | None:
        """Return a tenant's key, or None; while Redis is away, one that this replica has."""
        own = self.held(tenant, key_id)
        try:
            raw = await self._link.call("HGET", self._names.wrapped(tenant, day_of(key_id)), key_id)
        except RedisAway:
            counted("cache.l2.keys_unread")
            return own
        if raw is None:
            return own
        if raw == b"":
            self._keys.pop((tenant, key_id), None)
            return None
        found = own or _read(raw, tenant, key_id)
        if found is not None:
            await self.put(found)
        return found

    async def drop(self, tenant: str, day: int) -> int:
        """Erase a tenant's keys of a day everywhere. Raises OSError if Redis is away."""
        own = [at[1] for at, key in self._keys.items() if at[0] == tenant and key.day == day]
        await super().drop(tenant, day)
        try:
            count = await self._link.run(
                _ERASE, keys=(self._names.wrapped(tenant, day),), args=(_KEYS_TTL_MS, *own)
            )
        except RedisAway:
            msg = "Redis is away: keys may still be there"
            raise OSError(msg) from None
        return int(count)


def _written(key: WrappedKey) -> bytes:
    return json.dumps([key.purpose, key.wrapped], separators=(",", ":")).encode()


def _read(raw: bytes, tenant: str, key_id: bytes) -> WrappedKey | None:
    try:
        purpose, wrapped = json.loads(raw)
    except (ValueError, TypeError):
        return None
    return WrappedKey(key_id, tenant, str(purpose), str(wrapped))
