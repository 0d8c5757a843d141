"""L2 against a bare GET: the same Redis, TLS and size of value, one call at a time.

The reference is redis-py as anybody would call it. Ours is the cache service itself: MAC verified,
key hashed, L1 missed, L2 asked, value opened and decoded, L1 filled. Redis and both clients share
the machine; pairs are interleaved.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from redis.asyncio import Redis

from appliance.redis import RedisServer, RedisServerSettings, redis_server
from bench.catalogue import Figure, paired
from bench.children import WORK
from bench.inside import ENDED, MAC, question, released
from bench.parts import DIGEST, MemoryKeys
from bench.workload import DISTINCT
from cache.service import CacheService, open_cache
from cache.settings import CacheSettings
from cache.tiers import SharedTier, shared_tier, wrapped_keys
from meshkit.contract import CachedAnswer, CacheMiss
from meshkit.envelope import keyring
from meshkit.screening_mac import mac_verifier

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bench.plan import Plan
    from meshkit.contract import Question

NAMES = ("cache_l2_vs_get",)


async def measure(plan: Plan) -> list[Figure]:
    """Measure interleaved pairs; microseconds of wall time a call."""
    async with redis_server(RedisServerSettings(data=WORK / "redis")) as server:
        redis = server.link_settings("cache", timeout_ms=5_000)
        # An entry of L1 is over before its question comes again.
        settings = CacheSettings.load().model_copy(update={"redis": redis, "l1_ttl_ms": 1})
        async with (
            shared_tier(settings, DIGEST) as shared,
            keyring(MemoryKeys(), wrapped_keys(shared)) as keys,
            open_cache(
                settings,
                sealer=keys,
                verify=mac_verifier(lambda: MAC),
                secret=DIGEST,
                shared=shared,
            ) as cache,
        ):
            assert shared is not None
            return [await _pairs(plan, server, cache, shared)]


async def _pairs(
    plan: Plan, server: RedisServer, cache: CacheService, shared: SharedTier
) -> Figure:
    questions = [question(number) for number in range(DISTINCT)]
    for number, asked in enumerate(questions):
        missed = await cache.get(asked)
        assert isinstance(missed, CacheMiss)
        await cache.put(asked, missed.lease, released(asked.scope, number), ENDED)
    value = await shared.look_up(questions[0].scope.tenant, _key(cache, questions[0]))
    assert value is not None
    async with _bare(server) as bare:
        await bare.set("sealgate:cache:bench", value)

        async def hit(number: int) -> None:
            found = await cache.get(questions[number % DISTINCT])
            assert isinstance(found, CachedAnswer)
            assert found.tier == "l2"

        async def get(_number: int) -> None:
            assert await bare.get("sealgate:cache:bench") == value

        ours, theirs = [], []
        for _ in range(plan.pairs + 1):
            ours.append(await _each_us(hit, plan.burst_s / 2))
            theirs.append(await _each_us(get, plan.burst_s / 2))
    # The first pair connects and warms up.
    return paired("cache_l2_vs_get", tuple(ours[1:]), tuple(theirs[1:]), note=f"{len(value)} bytes")


def _key(cache: CacheService, asked: Question) -> bytes:
    return cache._key_of(asked)  # noqa: SLF001 -- the reference must be of the same size


def _bare(server: RedisServer) -> Redis:
    login = server.link_settings("cache")
    assert login.password_file is not None
    return Redis(
        port=server.port,
        ssl=True,
        ssl_ca_certs=str(login.ca),
        username=login.username,
        password=login.password_file.read_text(),
    )


async def _each_us(call: Callable[[int], Awaitable[None]], seconds: float) -> float:
    """Call for some seconds of wall time; return the mean in microseconds."""
    begin, number = time.perf_counter(), 0
    while (spent := time.perf_counter() - begin) < seconds or number < DISTINCT:
        await call(number)
        number += 1
    return spent / number * 1e6
