"""L2: sealed values and wrapped data keys in Redis, for all replicas of the cache.

Redis sees keyed hashes and ciphertext. `T` is HMAC-SHA-256 of the tenant under the cache's secret,
16 bytes in hexadecimal; the braces keep a tenant's keys in one slot of a cluster.

    sealgate:cache:{T}:g          generation: 16 random bytes, without an end
    sealgate:cache:{T}:v:<key>    value: the generation it was put in, then the sealed answer
    sealgate:cache:{T}:i:<gen>    keys of one generation, by when they end (a sorted set)
    sealgate:cache:{T}:k:<day>    wrapped data keys by id (a hash); empty: erased

A value serves only while its generation is the tenant's: so purging is one write, whatever the
number of values, and exact from then on. Their room is freed after it. A generation that Redis lost
is made anew, so no value of before serves again.

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
_FREE_AT_ONCE = 500
_KEYS_TTL_MS = 2 * 86_400_000
"""Of wrapped keys, from the last value on: longer than any value, and than a key is sealed with."""

_PUT = Script("""
-- KEYS: generation, value, index, wrapped keys.
-- ARGV: generation, sealed value, its ms, the cache's key, key id, wrapped key, ms of wrapped keys.
local now = redis.call('GET', KEYS[1])
if now ~= ARGV[1] then return {'moved', now or ''} end
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
return {'kept'}
""")

_MOVE = Script("""
-- KEYS: generation. ARGV: the new one, prefix of indexes.
-- Returns how many values serve no more, and the generation they were of.
local old = redis.call('GET', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1])
if not old then return {0, ''} end
local time = redis.call('TIME')
local hex = string.gsub(old, '.', function(c) return string.format('%02x', string.byte(c)) end)
local at = time[1] * 1000 + math.floor(time[2] / 1000)
return {redis.call('ZCOUNT', ARGV[2] .. hex, at, '+inf'), old}
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
    """A tenant's generation, and the sealed value that serves in it, if any."""

    generation: bytes
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
        name = self._names.generation(tenant)
        generation, value = await self._link.call("MGET", name, self._names.value(tenant, key))
        if not generation:
            return Found(await self._first_generation(name), None)
        if value is None or value[:GENERATION_BYTES] != generation:
            return Found(generation, None)
        return Found(generation, value[GENERATION_BYTES:])

    async def put(
        self, tenant: str, key: bytes, sealed: bytes, *, generation: bytes, wrapped: WrappedKey
    ) -> bytes | None:
        """Keep a value of a generation, with the key that opens it.

        Returns:
            The tenant's generation, if it is another by now; then nothing was kept. No bytes, if it
            has none. None, if it was kept, or the wrapped key has been erased.
        """
        names = self._names
        share = 1 - self._jitter * random.random()  # noqa: S311 -- spreads load, guards nothing
        answer = await self._link.run(
            _PUT,
            keys=(
                names.generation(tenant),
                names.value(tenant, key),
                names.index(tenant, generation),
                names.wrapped(tenant, wrapped.day),
            ),
            args=(
                *(generation, sealed, max(1, int(self._ttl_ms * share)), key),
                *(wrapped.key_id, _written(wrapped), _KEYS_TTL_MS),
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
            keys=(self._names.generation(tenant),),
            args=(fresh, self._names.index(tenant, b"")),
        )
        return fresh, count, old

    async def free(self, tenant: str, generation: bytes) -> None:
        """Give the room of a past generation back, some hundreds of values at a time."""
        index = self._names.index(tenant, generation)
        while popped := await self._link.call("ZPOPMIN", index, _FREE_AT_ONCE):
            await self._link.call("UNLINK", *(self._names.value(tenant, k) for k in popped[::2]))

    async def generations(self, tenants: tuple[str, ...]) -> dict[str, bytes]:
        """Return the generation of each tenant; no bytes where there is none."""
        names = [self._names.generation(tenant) for tenant in tenants]
        found = await self._link.call("MGET", *names) if names else ()
        return {tenant: each or b"" for tenant, each in zip(tenants, found, strict=True)}

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
