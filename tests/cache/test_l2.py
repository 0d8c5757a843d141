"""L2: what one replica keeps another serves; what one purges nobody does; Redis may die."""

import asyncio
import secrets
import signal
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import pytest_asyncio

from appliance.redis import USERS
from cache.redis import GENERATION_BYTES
from cache.service import CacheService, open_cache
from cache.settings import CacheSettings
from cache.tiers import SharedTier, shared_tier, wrapped_keys
from meshkit.contract import CachedAnswer, CacheMiss, Reason, Refusal
from meshkit.counters import counters
from meshkit.envelope import Keyring, keyring
from meshkit.redis_link import RedisAway
from meshkit.sealing import key_id_of
from tests.redis_world import LOOKS, real_redis


@dataclass
class Replica:
    """A cache service as a process would have it: L1, a keyring and a link of its own."""

    cache: CacheService
    shared: SharedTier
    sealer: Keyring


@pytest_asyncio.fixture
async def server(tmp_path, monkeypatch):
    monkeypatch.setitem(USERS, "observer", ("*", LOOKS))
    async with real_redis(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def replica(server, service_keys, secret, made):
    """Open a replica; all share Redis, the secret and OpenBao."""

    @asynccontextmanager
    async def open_replica(*, link=None, secret=secret, **changes):
        redis = server.link_settings("cache", **(link or {}))
        settings = CacheSettings(redis=redis, **{"purge_seen_ms": 60_000} | changes)
        async with (
            shared_tier(settings, secret) as shared,
            keyring(service_keys, wrapped_keys(shared)) as sealer,
            open_cache(
                settings, sealer=sealer, verify=made.verify, secret=secret, shared=shared
            ) as cache,
        ):
            yield Replica(cache, shared, sealer)

    return open_replica


@pytest_asyncio.fixture
async def two(replica):
    async with replica() as one, replica() as other:
        yield one, other


@pytest_asyncio.fixture
async def observer(server):
    async with server.link("observer") as link:
        yield link


@pytest.fixture
def answered(made):
    async def answered(cache, answer="Paris.", **asked) -> None:
        question = made.question(**asked)
        found = await cache.get(question)
        if isinstance(found, CacheMiss):
            released = made.released(question, answer)
            await cache.put(question, found.lease, released, made.ended())

    return answered


def since(name, before):
    return counters().get(name, 0) - before.get(name, 0)


async def values(observer):
    return [key for key in await observer.call("KEYS", "*") if b"}:v:" in key]


async def test_a_rotated_secret_makes_misses_under_load_and_nothing_else(
    replica, made, answered
) -> None:
    before, stop, asked = counters(), asyncio.Event(), 0

    async def load(cache):
        nonlocal asked
        while not stop.is_set():
            await answered(cache, text=f"number {asked % 7}")
            asked += 1
            await asyncio.sleep(0)

    async with replica() as old, replica(secret=secrets.token_bytes(32)) as new:
        await answered(old.cache)
        task = asyncio.create_task(load(old.cache))
        missed = await new.cache.get(made.question())  # as after its start under the next version
        assert isinstance(missed, CacheMiss)
        await new.cache.abandon(made.question(), missed.lease)
        await answered(new.cache, "Paris, again.")
        for number in range(7):
            await answered(new.cache, text=f"number {number}")
        while asked < 50:
            await asyncio.sleep(0)
        stop.set()
        await task
        first, second = await old.cache.get(made.question()), await new.cache.get(made.question())

    assert (first.text, second.text) == ("Paris.", "Paris, again.")
    assert old.cache.counts.failures == new.cache.counts.failures == 0
    for name in ("cache.l2.broken", "cache.l2.down", "cache.l2.unkept"):
        assert since(name, before) == 0


async def test_what_a_trimmed_version_wrapped_is_a_miss_and_kept_anew(
    replica, made, answered, service_keys
) -> None:
    async with replica() as one:
        await answered(one.cache)
    service_keys.trim()
    async with replica() as other:
        found = await other.cache.get(made.question())
        assert isinstance(found, CacheMiss)
        assert found.lease  # it may be answered and kept, as any miss
        await other.cache.abandon(made.question(), found.lease)
        await answered(other.cache, "Paris, again.")
        assert (await other.cache.get(made.question())).text == "Paris, again."
    async with replica() as third:
        assert (await third.cache.get(made.question())).text == "Paris, again."


async def test_what_one_replica_keeps_another_serves_and_then_has(two, made, answered) -> None:
    one, other = two
    await answered(one.cache)
    first = await other.cache.get(made.question())
    again = await other.cache.get(made.question())

    assert isinstance(first, CachedAnswer)
    assert (first.text, first.tier, again.tier) == ("Paris.", "l2", "l1")
    assert first.verdict == made.released(made.question()).verdict
    assert first.usage == made.ended().usage


@pytest.mark.parametrize(
    "other",
    [
        {"tenant": "globex"},
        {"user": "grace"},
        {"subject": "p-17"},
        {"max_tokens": 9},
        {"text": "And of Spain?"},
    ],
)
async def test_nobody_gets_another_s_answer_from_l2(two, made, answered, other) -> None:
    await answered(two[0].cache)

    assert isinstance(await two[1].cache.get(made.question(**other)), CacheMiss)


async def test_a_restarted_cache_opens_what_it_kept_before(replica, made, answered) -> None:
    """The data key is in Redis, wrapped by OpenBao; nothing of the first process is left."""
    async with replica() as one:
        await answered(one.cache)
    async with replica() as again:
        assert (await again.cache.get(made.question())).tier == "l2"


async def test_redis_sees_neither_text_nor_names(two, observer, answered) -> None:
    await answered(two[0].cache, "The canary sings.", tenant="canary", user="canary")
    seen = b""
    for key in await observer.call("KEYS", "*"):
        seen += key
        for command in ("GET", "HGETALL"):
            try:
                found = await observer.call(command, key)
            except RedisAway:
                continue
            seen += b"".join(found) if isinstance(found, list) else found
    assert len(seen) > 300
    assert b"canary" not in seen


async def test_another_secret_finds_nothing(server, replica, service_keys, made, answered) -> None:
    async with replica() as one:
        await answered(one.cache)
    settings = CacheSettings(redis=server.link_settings("cache"))
    stranger = secrets.token_bytes(32)
    async with (
        shared_tier(settings, stranger) as shared,
        keyring(service_keys, wrapped_keys(shared)) as sealer,
    ):
        cache = CacheService(
            settings, sealer=sealer, verify=made.verify, secret=stranger, shared=shared
        )
        assert isinstance(await cache.get(made.question()), CacheMiss)


async def test_values_end(replica, observer, made, answered) -> None:
    async with replica(l2_ttl_ms=600_000, ttl_jitter=0.5) as one:
        await answered(one.cache)
        (key,) = await values(observer)
        assert 200_000 < await observer.call("PTTL", key) <= 600_000
    before = counters()
    async with replica(l2_ttl_ms=300) as one, replica() as other:
        await answered(one.cache, text="And of Spain?")
        assert since("cache.l2.unkept", before) == 0

        async def only_the_first_is_left():
            return await values(observer) == [key]

        await until(only_the_first_is_left)
        assert isinstance(await other.cache.get(made.question("And of Spain?")), CacheMiss)


# --- purging ------------------------------------------------------------------------------------


async def test_a_purge_is_exact_at_once_and_frees_the_room(two, observer, made, answered) -> None:
    one, other = two
    for number in range(7):
        await answered(one.cache, text=f"Question {number}?")
    await answered(one.cache, tenant="globex")
    await answered(other.cache, text="Of the other?")

    assert await other.cache.purge("acme") == 8
    assert isinstance(await other.cache.get(made.question("Question 3?")), CacheMiss)
    assert isinstance(await other.cache.get(made.question(tenant="globex")), CachedAnswer)
    assert len(await values(observer)) == 1
    assert await other.cache.purge("acme") == 0


PARTS = {
    "subject": ({"subject": "p-17"}, {"subject": "p-18"}, {"subject": "p-17"}),
    "session": ({"session": "s-1"}, {"session": "s-2"}, {"session": "s-1"}),
    "model_digest": ({"model": b"o" * 32}, {"model": b"n" * 32}, {"model_digest": b"o" * 32}),
}


@pytest.mark.parametrize("part", PARTS)
async def test_a_part_is_purged_on_every_replica_and_no_more(
    two, observer, made, answered, part
) -> None:
    """L2 and the purger's own L1 at once, another's L1 as soon as it looks."""
    one, other = two
    theirs, others, asked = PARTS[part]
    for replica in (one, other):
        for number in range(3):
            await answered(replica.cache, text=f"Question {number}?", **theirs)
        await answered(replica.cache, text="And mine?", **others)
        await answered(replica.cache, tenant="globex", **theirs)

    assert await other.cache.purge("acme", **asked) == 3
    await one.shared.check({"acme", "globex"})
    for replica in (one, other):
        missed = await replica.cache.get(made.question("Question 1?", **theirs))
        assert isinstance(missed, CacheMiss)
        await replica.cache.abandon(made.question("Question 1?", **theirs), missed.lease)
        kept = await replica.cache.get(made.question("And mine?", **others))
        assert isinstance(kept, CachedAnswer)
        assert isinstance(
            await replica.cache.get(made.question(tenant="globex", **theirs)), CachedAnswer
        )
    assert len(await values(observer)) == 2
    assert await other.cache.purge("acme", **asked) == 0


async def test_a_part_that_is_on_its_way_anywhere_is_not_kept(two, observer, made) -> None:
    one, other = two
    question = made.question(subject="p-17")
    lease = (await one.cache.get(question)).lease
    await other.cache.purge("acme", subject="p-17")
    await one.cache.put(question, lease, made.released(question), made.ended())

    assert await values(observer) == []
    assert isinstance(await one.cache.get(made.question(subject="p-17")), CacheMiss)


async def test_a_part_that_cannot_be_purged_is_told(server, two, made, answered) -> None:
    await answered(two[0].cache, subject="p-17")
    await server.kill()
    with pytest.raises(Refusal) as refused:
        await two[0].cache.purge("acme", subject="p-17")

    assert refused.value.reason is Reason.CACHE_DOWN
    assert two[0].cache.size_bytes == 0


async def test_a_purge_needs_no_value_to_be_gone(two, observer, made, answered) -> None:
    """Freeing the room is housekeeping: it may be cut off."""
    one, other = two
    await answered(one.cache)

    async def cut_off(_tenant, _generation):
        raise RedisAway

    other.shared._tier.free = cut_off
    assert await other.cache.purge("acme") == 1
    assert len(await values(observer)) == 1
    assert isinstance(await other.cache.get(made.question()), CacheMiss)
    await one.shared.check({"acme"})
    assert isinstance(await one.cache.get(made.question()), CacheMiss)


async def test_l1_of_another_replica_forgets_soon(replica, made, answered) -> None:
    async with replica(purge_seen_ms=50) as one, replica() as other:
        await answered(one.cache)
        assert (await one.cache.get(made.question())).tier == "l1"
        await other.cache.purge("acme")
        async with asyncio.timeout(10):
            while one.cache.size_bytes:
                await asyncio.sleep(0.02)
        assert isinstance(await one.cache.get(made.question()), CacheMiss)


async def test_a_check_that_a_look_up_overtakes_forgets_nothing(replica, made, answered) -> None:
    """What it read is older than what the look-up has seen: the tenant had no generation yet."""
    async with replica() as one:
        stamps = one.shared._tier.stamps

        async def overtaken(tenants):
            found = await stamps(tenants)
            await answered(one.cache)
            return found

        one.shared._tier.stamps = overtaken
        await one.shared.check({"acme"})
        assert (await one.cache.get(made.question())).tier == "l1"


async def test_what_is_on_its_way_anywhere_is_not_kept(two, observer, made) -> None:
    """Asked of one replica before another purges, answered after."""
    one, other = two
    question = made.question()
    lease = (await one.cache.get(question)).lease
    await other.cache.purge("acme")
    await one.cache.put(question, lease, made.released(question), made.ended())

    assert await values(observer) == []
    assert isinstance(await other.cache.get(made.question()), CacheMiss)
    assert isinstance(await one.cache.get(made.question()), CacheMiss)


async def test_a_look_up_that_a_purge_overtakes_fills_no_l1(two, made, answered) -> None:
    one, other = two
    await answered(one.cache)
    found = other.shared.look_up

    async def overtaken(tenant, key):
        value = await found(tenant, key)
        await other.cache.purge("acme")
        return value

    other.shared.look_up = overtaken
    await other.cache.get(made.question())
    other.shared.look_up = found

    assert other.cache.size_bytes == 0
    assert isinstance(await other.cache.get(made.question()), CacheMiss)


async def test_a_purge_that_does_not_reach_redis_says_so(server, replica, made, answered) -> None:
    async with replica() as one:
        await answered(one.cache)
        await server.kill()
        with pytest.raises(Refusal) as caught:
            await one.cache.purge("acme")
        assert caught.value.reason is Reason.CACHE_DOWN
        assert one.cache.size_bytes == 0
        assert isinstance(await one.cache.get(made.question()), CacheMiss)


async def test_a_purge_missed_while_cut_off_is_seen_afterwards(
    server, replica, made, answered
) -> None:
    """A replica that never saw Redis fills its L1; somebody purges; then it sees Redis."""
    blind = {"failures_max": 1, "hold_off_ms": 60_000}
    async with replica() as other, replica(link=blind) as one:
        server.signal(signal.SIGSTOP)
        one.shared._tier._link._timeout_s = 0.1
        await answered(one.cache)
        server.signal(signal.SIGCONT)
        assert (await one.cache.get(made.question())).tier == "l1"
        await other.cache.purge("acme")
        one.shared._tier._link._timeout_s = 5.0
        one.shared._tier._link._breaker.succeeded()
        await one.shared.check({"acme"})

        assert isinstance(await one.cache.get(made.question()), CacheMiss)


async def test_a_lost_generation_brings_nothing_back(two, observer, made, answered) -> None:
    """Evicted, or lost with a fail-over: values of before are of no generation."""
    one, other = two
    await answered(one.cache)
    (generation,) = [key for key in await observer.call("KEYS", "*") if key.endswith(b":g")]
    await observer.call("UNLINK", generation)

    miss = await other.cache.get(made.question())
    assert isinstance(miss, CacheMiss)
    await other.cache.abandon(made.question(), miss.lease)
    await one.shared.check({"acme"})
    assert one.cache.size_bytes == 0
    await answered(one.cache)
    assert isinstance(await other.cache.get(made.question()), CachedAnswer)


# --- what does not open -------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["flipped", "cut", "foreign", "moved", "unsealed"])
async def test_a_broken_value_is_a_miss_and_goes(two, observer, made, answered, how) -> None:
    one, other = two
    await answered(one.cache)
    await answered(one.cache, "Madrid.", text="And of Spain?")
    first, second = [(key, await observer.call("GET", key)) for key in await values(observer)]
    key, value = first
    generation, sealed = value[:GENERATION_BYTES], value[GENERATION_BYTES:]
    broken = {
        "flipped": sealed[:-20] + bytes((sealed[-20] ^ 1,)) + sealed[-19:],
        "cut": sealed[:40],
        "foreign": b"\x01" + secrets.token_bytes(len(sealed)),
        "moved": second[1][GENERATION_BYTES:],
        "unsealed": b"",
    }[how]
    await observer.call("SET", key, generation + broken)
    before = counters()
    results = [
        await other.cache.get(made.question(text))
        for text in ("What is the capital of France?", "And of Spain?")
    ]

    assert sorted(type(result).__name__ for result in results) == ["CacheMiss", "CachedAnswer"]
    assert since("cache.l2.broken", before) == 1
    assert other.cache.counts.failures == 1
    assert len(await values(observer)) == 1


async def test_a_value_whose_key_cannot_be_had_now_is_kept(
    two, observer, made, answered, service_keys
) -> None:
    one, other = two
    await answered(one.cache)
    service_keys.down = True

    assert isinstance(await other.cache.get(made.question()), CacheMiss)
    assert len(await values(observer)) == 1


# --- keys ---------------------------------------------------------------------------------------


async def test_an_erased_key_is_gone_for_all_and_stays_so(two, observer, made, answered) -> None:
    one, other = two
    await answered(one.cache)
    sealed = next(iter(one.cache._memory._entries.values())).value
    key_id = key_id_of(sealed)
    assert await other.shared.keys.get("acme", key_id) is not None
    day = one.shared.keys.held("acme", key_id).day

    assert await other.sealer.erase("acme", day) == 1
    assert isinstance(await other.cache.get(made.question()), CacheMiss)
    # One still has it in its keyring for some minutes: what it seals under it is not shared.
    await answered(one.cache, text="And of Spain?")
    assert await values(observer) == []
    for each in two:
        assert await each.shared.keys.get("acme", key_id) is None
    assert isinstance(await other.cache.get(made.question("And of Spain?")), CacheMiss)


async def test_a_key_made_while_redis_was_away_is_shared_with_the_next_value(
    server, replica, made, answered
) -> None:
    async with replica(link={"hold_off_ms": 1}) as one, replica(link={"hold_off_ms": 1}) as other:
        await server.kill()
        await answered(one.cache)
        await server.start()
        await until(lambda: in_l2(one, other, made, answered))


async def test_redis_that_lost_everything_gets_keys_again(server, replica, made, answered) -> None:
    async with replica(link={"hold_off_ms": 1}) as one, replica(link={"hold_off_ms": 1}) as other:
        await answered(one.cache)
        await server.kill()
        await server.start()
        await until(lambda: in_l2(one, other, made, answered))


async def in_l2(one, other, made, answered) -> bool:
    text = secrets.token_hex(4)
    await answered(one.cache, text=text)
    found = await other.cache.get(made.question(text))
    return isinstance(found, CachedAnswer) and found.tier == "l2"


async def until(truth) -> None:
    async with asyncio.timeout(20):
        while not await truth():
            await asyncio.sleep(0.02)


# --- Redis dying --------------------------------------------------------------------------------


async def test_redis_dying_under_load_costs_misses_and_nothing_else(
    server, replica, made, answered
) -> None:
    asked = [0] * 8
    over = asyncio.Event()

    async def asks(cache, number):
        while not over.is_set():
            # Some were asked before, of either replica; some never.
            text = f"Question {number % 4} {secrets.randbelow(50 + asked[number])}?"
            await answered(cache, text=text)
            asked[number] += 1
            await asyncio.sleep(0.01)

    async def each_is_answered(times, *, down):
        """So often from now on, and that many look-ups are in vain meanwhile."""
        already, before = tuple(asked), counters()

        async def so_often():
            enough = all(now >= then + times for now, then in zip(asked, already, strict=True))
            return enough and since("cache.l2.down", before) >= down

        await until(so_often)

    link = {"timeout_ms": 400, "hold_off_ms": 100}
    async with replica(link=link) as one, replica(link=link) as other:
        tasks = [asyncio.create_task(asks((one, other)[n // 4].cache, n)) for n in range(8)]
        await each_is_answered(10, down=0)
        await server.kill()
        await each_is_answered(10, down=10)
        await server.start()
        await each_is_answered(10, down=0)
        server.signal(signal.SIGSTOP)
        # A look-up and a put wait as long as the link has patience; then the breaker holds off.
        await each_is_answered(30, down=20)
        server.signal(signal.SIGCONT)
        await each_is_answered(10, down=0)
        over.set()
        await asyncio.gather(*tasks)
        await until(lambda: in_l2(one, other, made, answered))

    assert one.cache.counts.failures == other.cache.counts.failures == 0


async def test_equal_questions_ask_redis_once(two, made, answered) -> None:
    one, other = two
    await answered(one.cache)
    asked = 0
    found = other.shared.look_up

    async def counted_look_up(tenant, key):
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.05)
        return await found(tenant, key)

    other.shared.look_up = counted_look_up
    hits = await asyncio.gather(*(other.cache.get(made.question()) for _ in range(20)))

    assert {hit.text for hit in hits} == {"Paris."}
    assert asked == 1


async def test_a_leader_cancelled_in_l2_hands_on(two, made, answered) -> None:
    one, other = two
    await answered(one.cache)
    found, stuck = other.shared.look_up, asyncio.Event()

    async def slow(tenant, key):
        if not stuck.is_set():
            stuck.set()
            await asyncio.sleep(60)
        return await found(tenant, key)

    other.shared.look_up = slow
    leader = asyncio.create_task(other.cache.get(made.question()))
    await stuck.wait()
    follower = asyncio.create_task(other.cache.get(made.question()))
    await asyncio.sleep(0.02)
    leader.cancel()

    assert (await asyncio.wait_for(follower, 5)).tier == "l2"
    with pytest.raises(asyncio.CancelledError):
        await leader


async def test_large_values_stay_in_l1(replica, observer, answered) -> None:
    async with replica(l2_value_bytes_max=1_000) as one:
        await answered(one.cache, "x" * 1_000)
        assert one.cache.size_bytes > 1_000
        assert await values(observer) == []


async def test_the_environment_configures_it(monkeypatch, tmp_path) -> None:
    async with shared_tier(CacheSettings.load(), b"s" * 32) as none:
        assert none is None
    for name in ("CA", "PASSWORD_FILE"):
        monkeypatch.setenv(f"CACHE_REDIS__{name}", str(tmp_path / name))
    monkeypatch.setenv("CACHE_REDIS__ADDRESS", "redis.internal:6379")
    monkeypatch.setenv("CACHE_REDIS__USERNAME", "cache")

    settings = CacheSettings.load()
    assert (settings.redis.address, settings.l2_ttl_ms) == ("redis.internal:6379", 600_000)
