"""One contract, two stores: this process, and a real Redis. Then what each promises besides."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest
import pytest_asyncio

from appliance.redis import USERS
from compliance.token_map import Entry, MemoryTokenMap, Place, RedisTokenMap, TokenMap
from meshkit.contract import Reason, Refusal
from meshkit.redis_link import RedisRefused
from tests.redis_world import LOOKS, real_redis

HERE = Place("acme", b"h" * 32, 3_600.0)
THERE = Place("acme", b"t" * 32, 3_600.0)


def entry(field, value, mark=None):
    filled = (mark or value).ljust(16, b".")
    return Entry(field.ljust(16, b"."), filled, b"sealed " + value)


A, B = entry(b"a", b"Ada"), entry(b"b", b"Bob")


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


@dataclass
class Store:
    """A map, a second replica's view of it, and a way to let time pass."""

    map: TokenMap
    replica: TokenMap
    pass_s: object
    server: object = None


@asynccontextmanager
async def in_memory():
    clock = Clock()
    store = MemoryTokenMap(entries_max=3, sessions_max=3, clock=clock)

    async def pass_s(seconds):
        clock.now_s += seconds

    yield Store(store, store, pass_s)


@asynccontextmanager
async def in_redis(folder):
    async with (
        real_redis(folder) as server,
        server.link("compliance") as link,
        server.link("compliance") as other,
        server.link("observer") as observer,
    ):

        async def pass_s(seconds):
            for key in await observer.call("KEYS", "*"):
                left_ms = await observer.call("PTTL", key)
                await observer.call("PEXPIRE", key, max(1, left_ms - int(seconds * 1_000)))
            while any(
                [await observer.call("PTTL", k) <= 1 for k in await observer.call("KEYS", "*")]
            ):
                await asyncio.sleep(0.001)

        yield Store(
            RedisTokenMap(link, entries_max=3), RedisTokenMap(other, entries_max=3), pass_s, server
        )


@pytest_asyncio.fixture(params=["memory", "redis"])
async def store(request, tmp_path, monkeypatch):
    monkeypatch.setitem(USERS, "observer", ("*", (*LOOKS, "pexpire", "hgetall")))
    async with in_memory() if request.param == "memory" else in_redis(tmp_path) as made:
        yield made


async def test_what_was_kept_is_found_by_every_replica(store):
    assert await store.map.put(HERE, [A, B]) == [True, True]
    assert await store.replica.get(HERE, [B.field, A.field, b"?" * 16]) == [
        B.sealed,
        A.sealed,
        None,
    ]


async def test_nothing_is_found_in_another_session(store):
    await store.map.put(HERE, [A])

    assert await store.map.get(THERE, [A.field]) == [None]


async def test_a_value_kept_again_stays_as_it_was(store):
    await store.map.put(HERE, [A])

    assert await store.replica.put(HERE, [replace(A, sealed=b"sealed anew")]) == [True]
    assert await store.map.get(HERE, [A.field]) == [A.sealed]


async def test_a_token_is_never_given_to_a_second_value(store):
    await store.map.put(HERE, [A])

    assert await store.replica.put(HERE, [B, entry(b"a", b"Abe")]) == [True, False]
    assert await store.map.get(HERE, [A.field]) == [A.sealed]


async def test_a_session_is_bounded(store):
    await store.map.put(HERE, [A, B, entry(b"c", b"Cid")])
    with pytest.raises(Refusal) as caught:
        await store.map.put(HERE, [entry(b"d", b"Dan")])

    assert caught.value.reason is Reason.OVERLOADED
    assert await store.map.put(HERE, [A, B]) == [True, True]
    assert await store.map.put(THERE, [entry(b"d", b"Dan")]) == [True]


async def test_a_session_ends_when_it_was_not_used_for_its_life(store):
    await store.map.put(HERE, [A])
    await store.pass_s(2_000)
    assert await store.map.get(HERE, [A.field]) == [A.sealed]
    await store.pass_s(2_000)
    assert await store.map.put(HERE, [B]) == [True]
    await store.pass_s(3_590)
    assert await store.map.get(HERE, [A.field, B.field]) == [A.sealed, B.sealed]
    await store.pass_s(3_600)
    assert await store.map.get(HERE, [A.field, B.field]) == [None, None]


async def test_many_at_once_agree_on_whose_a_token_is(store):
    async def claim(number):
        side = store.map if number % 2 else store.replica
        return await side.put(HERE, [entry(b"a", b"value %d" % number)])

    held = await asyncio.gather(*(claim(number) for number in range(32)))

    assert sorted(held) == [[False]] * 31 + [[True]]
    winner = held.index([True])
    assert await store.map.get(HERE, [A.field]) == [b"sealed value %d" % winner]


async def test_memory_forgets_what_is_over_by_itself():
    clock = Clock()
    store = MemoryTokenMap(entries_max=3, sessions_max=100, clock=clock)
    for number in range(10):
        await store.put(Place("acme", bytes([number]) * 32, 10.0 + number), [A])
    clock.now_s += 14.5
    await store.put(THERE, [A])

    assert len(store) == 6


async def test_a_tenant_with_too_many_sessions_loses_its_own_idlest():
    store = MemoryTokenMap(entries_max=3, sessions_max=2)
    other = Place("other", b"o" * 32, 3_600.0)
    await store.put(other, [A])
    await store.put(HERE, [A])
    await store.put(THERE, [A])
    await store.get(HERE, [A.field])
    await store.put(Place("acme", b"n" * 32, 3_600.0), [A])

    assert await store.get(THERE, [A.field]) == [None]
    assert await store.get(HERE, [A.field]) == [A.sealed]
    assert await store.get(other, [A.field]) == [A.sealed]


async def test_a_tenant_with_too_many_values_loses_its_own_idlest_session():
    store = MemoryTokenMap(entries_max=3, sessions_max=100, values_max=4)
    other = Place("other", b"o" * 32, 3_600.0)
    await store.put(other, [A, B])
    await store.put(HERE, [A, B])
    await store.put(THERE, [A, B])
    assert len(store) == 3
    await store.put(Place("acme", b"n" * 32, 3_600.0), [A])

    assert await store.get(HERE, [A.field]) == [None]
    assert await store.get(THERE, [A.field]) == [A.sealed]
    assert await store.get(other, [A.field]) == [A.sealed]


async def test_sessions_that_overflow_count_too():
    store = MemoryTokenMap(entries_max=1, sessions_max=100, values_max=4)
    for number in range(10):
        with pytest.raises(Refusal, match="OVERLOADED"):
            await store.put(Place("acme", bytes([number]) * 32, 3_600.0), [A, B])

    assert len(store) == 4


async def test_sessions_that_were_dropped_leave_nothing_behind():
    clock = Clock()
    store = MemoryTokenMap(entries_max=3, sessions_max=2, clock=clock)
    for number in range(50):
        await store.put(Place("acme", bytes([number]) * 32, 3_600.0), [A])
        clock.now_s += 1.0
    assert len(store) == 2
    assert sum(map(len, store._due.values())) == 2

    clock.now_s += 3_600.0
    await store.put(Place("other", b"o" * 32, 3_600.0), [A])
    assert len(store) == 1
    assert set(store._tenants) == {"other"}


async def test_without_redis_nothing_is_kept_and_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(USERS, "observer", ("*", LOOKS))
    async with in_redis(tmp_path) as store:
        await store.map.put(HERE, [A])
        await store.server.kill()
        for asked in (store.map.put(HERE, [B]), store.map.get(HERE, [A.field])):
            with pytest.raises(Refusal) as caught:
                await asked
            assert caught.value.reason is Reason.COMPLIANCE_DOWN


async def test_redis_lets_compliance_touch_nothing_but_tokens(tmp_path):
    async with real_redis(tmp_path) as server, server.link("compliance") as link:
        for command in (
            ("HGET", "sealgate:cache:x", "f"),
            ("HSET", "sealgate:limits:x", "f", "v"),
            ("GET", "sealgate:tokens:x"),
            ("KEYS", "*"),
        ):
            with pytest.raises(RedisRefused):
                await link.call(*command)
