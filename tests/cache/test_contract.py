"""What `meshkit.contract.Cache` promises, of the service itself."""

import asyncio
import time
from contextlib import suppress
from dataclasses import replace

import pytest

from cache.service import CacheService, open_cache
from cache.settings import CacheSettings
from meshkit.contract import CachedAnswer, CacheMiss, FinishReason, Reason, Refusal, Verdict
from meshkit.vault import VaultDown

SOON_S = 0.05

of_l1 = pytest.mark.parametrize("shared", ["l1"], indirect=True)
"""With L2 the answer would be found there."""


async def answered(cache, made, question=None, text="Paris.", **released) -> None:
    question = question or made.question()
    miss = await cache.get(question)
    await cache.put(question, miss.lease, made.released(question, text, **released), made.ended())


async def test_what_was_put_is_got_by_a_later_call(cache, made) -> None:
    question = made.question()
    miss = await cache.get(question)
    await cache.put(question, miss.lease, made.released(question), made.ended())
    hit = await cache.get(made.question())

    assert miss.lease
    assert isinstance(hit, CachedAnswer)
    answer = made.released(question)
    assert (hit.text, hit.tier) == ("Paris.", "l1")
    assert (hit.verdict, hit.usage) == (answer.verdict, made.ended().usage)
    assert hit.finish_reason is FinishReason.STOP
    assert (cache.counts.hits, cache.counts.misses) == (1, 1)


@pytest.mark.parametrize(
    "other",
    [{"tenant": "globex"}, {"user": "grace"}, {"max_tokens": 9}, {"text": "And of Spain?"}],
)
async def test_nobody_gets_an_answer_to_another_question(cache, made, other) -> None:
    await answered(cache, made)

    assert isinstance(await cache.get(made.question(**other)), CacheMiss)


async def test_answers_lie_sealed_in_memory(cache, made) -> None:
    await answered(cache, made, text="The canary sings.")
    values = [entry.value for entry in cache._memory._entries.values()]

    assert len(values) == 1
    assert b"canary" not in values[0]


@of_l1
async def test_a_value_moved_to_another_key_does_not_open(cache, made) -> None:
    await answered(cache, made)
    await answered(cache, made, made.question("And of Spain?"), text="Madrid.")
    first, second = cache._memory._entries.values()
    first.value, second.value = second.value, first.value

    assert isinstance(await cache.get(made.question()), CacheMiss)
    assert cache.counts.failures == 1


async def test_a_prompt_without_its_mac_is_refused(cache, made) -> None:
    question = made.question()
    forged = replace(question, screened=replace(question.screened, mac=b"x" * 32))
    for call in (
        cache.get(forged),
        cache.put(forged, b"", made.released(question), made.ended()),
        cache.abandon(forged, b""),
    ):
        with pytest.raises(Refusal) as caught:
            await call
        assert (caught.value.reason, caught.value.field) == (Reason.INVALID_FIELD, "screened")


async def test_an_answer_without_its_mac_is_not_kept(cache, made) -> None:
    question = made.question()
    lease = (await cache.get(question)).lease
    forged = replace(made.released(question), text="Lyon.")
    with pytest.raises(Refusal) as caught:
        await cache.put(question, lease, forged, made.ended())

    assert (caught.value.reason, caught.value.field) == (Reason.INVALID_FIELD, "answer")
    assert len(cache._memory) == 0


async def test_a_mac_of_another_call_does_not_do(cache, made) -> None:
    question, other = made.question(), made.question()
    lease = (await cache.get(question)).lease
    with pytest.raises(Refusal):
        await cache.put(question, lease, made.released(other), made.ended())


async def test_a_screened_mac_does_not_release(cache, made) -> None:
    question = made.question()
    lease = (await cache.get(question)).lease
    posing = replace(made.released(question), mac=question.screened.mac)
    with pytest.raises(Refusal):
        await cache.put(question, lease, posing, made.ended())


@pytest.mark.parametrize("how", [{"blocked": True}, {"policy": b"q" * 32}])
async def test_what_was_blocked_or_judged_otherwise_is_not_kept(cache, made, how) -> None:
    await answered(cache, made, **how)

    assert len(cache._memory) == 0
    assert (await cache.get(made.question())).lease


@pytest.mark.parametrize(
    "reason", sorted(set(FinishReason) - {FinishReason.STOP, FinishReason.LENGTH})
)
async def test_a_cut_answer_is_not_kept(cache, made, reason) -> None:
    question = made.question()
    lease = (await cache.get(question)).lease
    await cache.put(question, lease, made.released(question), made.ended(reason))

    assert len(cache._memory) == 0


async def test_chance_is_not_cached(cache, made) -> None:
    question = made.question(temperature=0.7)

    assert await cache.get(question) == CacheMiss()
    await cache.put(question, b"made up", made.released(question), made.ended())
    assert len(cache._memory) == 0
    assert (await cache.get(made.question(temperature=0.7, seed=3))).lease


async def test_a_lease_cannot_be_made_up(cache, made) -> None:
    question = made.question()
    await cache.get(question)
    for lease in (b"", b"x" * 16):
        await cache.put(question, lease, made.released(question), made.ended())

    assert len(cache._memory) == 0


async def test_equal_questions_wait_for_the_first(cache, made) -> None:
    question = made.question()
    lease = (await cache.get(question)).lease
    others = [asyncio.create_task(cache.get(made.question())) for _ in range(5)]
    await asyncio.sleep(SOON_S)
    assert not any(other.done() for other in others)
    await cache.put(question, lease, made.released(question), made.ended())

    assert {hit.text for hit in await asyncio.wait_for(asyncio.gather(*others), 10)} == {"Paris."}


async def test_abandoning_wakes_one_and_only_one(cache, made) -> None:
    question = made.question()
    lease = (await cache.get(question)).lease
    others = [asyncio.create_task(cache.get(made.question())) for _ in range(3)]
    await asyncio.sleep(SOON_S)
    await cache.abandon(question, lease)
    woken, asleep = await asyncio.wait(others, timeout=20, return_when=asyncio.FIRST_COMPLETED)
    late, _ = await asyncio.wait(asleep, timeout=SOON_S)

    assert (len(woken), len(late)) == (1, 0)
    new_lease = (await woken.pop()).lease
    assert new_lease not in (b"", lease)
    await cache.put(question, new_lease, made.released(question), made.ended())
    results = await asyncio.wait_for(asyncio.gather(*others), 10)
    assert sum(isinstance(result, CachedAnswer) for result in results) == 2


async def test_an_abandoned_lease_is_worth_nothing(cache, made) -> None:
    question = made.question()
    lease = (await cache.get(question)).lease
    await cache.abandon(question, lease)
    await cache.put(question, lease, made.released(question), made.ended())

    assert len(cache._memory) == 0


async def test_waiting_is_bounded(make_cache, made) -> None:
    cache = make_cache(wait_max_ms=50, clock=time.monotonic)
    await cache.get(made.question())
    began = time.monotonic()

    assert await cache.get(made.question()) == CacheMiss()
    assert time.monotonic() - began < 5


async def test_a_crashed_leader_is_replaced_when_its_lease_lapses(make_cache, made, clock) -> None:
    cache = make_cache(lease_ms=300)
    lost = (await cache.get(made.question())).lease
    followers = [asyncio.create_task(cache.get(made.question())) for _ in range(3)]
    async with asyncio.timeout(20):
        while cache.counts.waits < len(followers):
            await asyncio.sleep(0)
    clock.now_s += 1  # and no more: the lease of whoever follows does not lapse
    leaders, _ = await asyncio.wait(followers, timeout=20, return_when=asyncio.FIRST_COMPLETED)

    assert len(leaders) == 1
    assert (await leaders.pop()).lease not in (b"", lost)
    for task in followers:
        task.cancel()
    await asyncio.gather(*followers, return_exceptions=True)


async def test_a_waiter_cancelled_as_its_turn_comes_passes_it_on(cache, made) -> None:
    question = made.question()
    lease = (await cache.get(question)).lease
    first, second = (asyncio.create_task(cache.get(made.question())) for _ in range(2))
    await asyncio.sleep(SOON_S)
    # In one turn of the loop: the lease goes to `first`, who is cancelled before it can run.
    abandon = cache.abandon(question, lease)
    with suppress(StopIteration):
        abandon.send(None)
    first.cancel()

    assert (await asyncio.wait_for(second, 20)).lease
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_purging_forgets_one_tenant_and_what_is_on_its_way(cache, made) -> None:
    await answered(cache, made)
    await answered(cache, made, made.question("And of Spain?"))
    await answered(cache, made, made.question(tenant="globex"))
    under_way = made.question("And of Italy?")
    lease = (await cache.get(under_way)).lease

    assert await cache.purge("acme") == 2
    await cache.put(under_way, lease, made.released(under_way), made.ended())
    assert isinstance(await cache.get(made.question()), CacheMiss)
    assert isinstance(await cache.get(made.question("And of Italy?")), CacheMiss)
    assert isinstance(await cache.get(made.question(tenant="globex")), CachedAnswer)
    assert await cache.purge("acme") == 0


async def test_purging_a_part_forgets_that_and_what_is_on_its_way(cache, made) -> None:
    for subject in ("p-17", "p-18"):
        await answered(cache, made, made.question(subject=subject))
    under_way = made.question("And of Italy?", subject="p-17")
    lease = (await cache.get(under_way)).lease

    assert await cache.purge("acme", subject="p-17") == 1
    await cache.put(under_way, lease, made.released(under_way), made.ended())
    assert isinstance(await cache.get(made.question(subject="p-17")), CacheMiss)
    assert isinstance(await cache.get(under_way), CacheMiss)
    assert isinstance(await cache.get(made.question(subject="p-18")), CachedAnswer)
    with pytest.raises(Refusal) as refused:
        await cache.purge("acme", subject="p-17", session="s-1")
    assert refused.value.reason is Reason.INVALID_FIELD


@of_l1
async def test_answers_serve_for_their_time(cache, made, clock) -> None:
    await answered(cache, made)
    clock.now_s += 50
    assert isinstance(await cache.get(made.question()), CachedAnswer)
    clock.now_s += 11

    assert isinstance(await cache.get(made.question()), CacheMiss)


async def test_a_failing_sealer_is_a_miss(cache, made, service_keys) -> None:
    service_keys.down = True
    await answered(cache, made)

    assert cache.counts.failures == 1
    assert (await cache.get(made.question())).lease


@of_l1
async def test_a_key_that_cannot_be_had_is_a_miss(make_cache, made, sealer) -> None:
    class Locked:
        """Seals, then loses its keys."""

        try_seal, seal = sealer.try_seal, sealer.seal

        def try_open(self, **_):
            return None

        async def open(self, **_):
            raise VaultDown

    cache = make_cache(sealer=Locked())
    await answered(cache, made)

    assert (await cache.get(made.question())).lease
    assert cache.counts.failures == 1


async def test_a_short_secret_is_refused(sealer) -> None:
    with pytest.raises(ValueError, match="32 to 64 bytes"):
        CacheService(CacheSettings(), sealer=sealer, verify=lambda *_: True, secret=b"short")


async def test_settings_and_lifetime(sealer, made) -> None:
    settings = CacheSettings()
    assert (settings.l1_bytes_max, settings.l1_ttl_ms) == (512 * 1024 * 1024, 60_000)
    async with open_cache(
        settings, sealer=sealer, verify=lambda *_: True, secret=b"s" * 32
    ) as cache:
        await answered(cache, made)
        assert cache.size_bytes > 0


async def test_the_verdict_survives_without_findings(cache, made) -> None:
    question = made.question()
    lease = (await cache.get(question)).lease
    bare = replace(made.released(question), verdict=Verdict(policy_digest=made.policy))
    await cache.put(question, lease, bare, made.ended())

    assert (await cache.get(made.question())).verdict == bare.verdict
