"""Limits in Redis: the buckets of memory, shared; and a share of them while Redis is away."""

import asyncio
import math
import signal
import time

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.admission import Ask, MemoryLimits, Rate, Rates, rates_for
from gateway.app import limits_of
from gateway.redis_limits import PREFIX, SCRIPT, RedisLimits, SharedReservation, shares_of
from gateway.settings import GatewaySettings
from meshkit.contract import Reason, Refusal
from meshkit.counters import counters
from meshkit.redis_link import Script

PLENTY = Rate(1e9, 1e9)
SECONDS, MICROSECONDS = f"{PREFIX}clock:s", f"{PREFIX}clock:us"
EPOCH_S = 1_767_225_600
KEPT_MS = 600_000


def rates(**few):
    return rates_for(Rates(**dict.fromkeys(Rates.__dataclass_fields__, PLENTY) | few), {})


def ask(tokens=10, principal="u", tenant="t", model="m"):
    return Ask(tenant=tenant, principal=principal, model=model, tokens=tokens)


class SetClock:
    """Time of both kinds of limits, in a test's hand: the script's TIME is read from two keys.

    Redis lets buckets end by its own clock: `script` has it keep them ten minutes longer.
    """

    as_long = Script(
        SCRIPT.text.replace(
            "redis.call('TIME')",
            f"{{redis.call('GET', '{SECONDS}'), redis.call('GET', '{MICROSECONDS}')}}",
        )
    )
    script = Script(as_long.text.replace("+ 1000, 1e12)", f"+ {KEPT_MS}, 1e12)"))

    def __init__(self, link) -> None:
        self.link = link
        self.now_us = 0

    def __call__(self) -> float:
        return self.now_us / 1e6

    async def set(self, now_s: float) -> None:
        self.now_us = round(now_s * 1e6)
        await self.link.call("SET", SECONDS, EPOCH_S + self.now_us // 1_000_000)
        await self.link.call("SET", MICROSECONDS, self.now_us % 1_000_000)


@pytest_asyncio.fixture
async def link(server):
    async with server.link("gateway") as link:
        yield link


@pytest_asyncio.fixture
async def clock(link):
    made = SetClock(link)
    await made.set(0.0)
    return made


@pytest.fixture(params=["memory", "redis"])
def limits(request, link, clock):
    """Both implementations, for what both promise."""

    def make(**few):
        if request.param == "memory":
            return MemoryLimits(rates(**few), clock=clock)
        return RedisLimits(link, rates(**few), replicas=1, clock=clock, script=clock.script)

    return make


def test_the_clock_of_these_tests_is_all_that_differs() -> None:
    assert SCRIPT.text.count("redis.call('TIME')") == 1
    assert "'TIME'" not in SetClock.script.text
    assert SCRIPT.text.count("+ 1000, 1e12)") == 1
    assert f"+ {KEPT_MS}, 1e12)" in SetClock.script.text


async def test_settling_returns_what_was_not_used(limits) -> None:
    few = limits(user_tokens=Rate(0.001, 100))
    first = await few.reserve(ask(80))
    with pytest.raises(Refusal):
        await few.reserve(ask(80))
    await few.settle(first, 10)

    assert (await few.reserve(ask(90))).tokens == 90
    with pytest.raises(Refusal):
        await few.reserve(ask(1))


async def test_settling_more_than_was_reserved_is_a_debt(limits, clock) -> None:
    few = limits(tenant_tokens=Rate(10, 100))
    await few.settle(await few.reserve(ask(50)), 150)
    with pytest.raises(Refusal) as caught:
        await few.reserve(ask(1))

    assert caught.value.reason is Reason.LIMITED
    assert 5_000 <= caught.value.retry_after_ms <= 5_200
    await clock.set(caught.value.retry_after_ms / 1_000)
    await few.reserve(ask(1))


async def test_an_ask_is_taken_whole_or_not_at_all(limits) -> None:
    few = limits(tenant_requests=Rate(0.001, 2), model_tokens=Rate(0.001, 10))
    await few.reserve(ask(10))
    with pytest.raises(Refusal):
        await few.reserve(ask(10))

    await few.reserve(ask(10, model="another"))


async def test_tenants_users_and_models_have_buckets_of_their_own(limits) -> None:
    few = limits(user_requests=Rate(0.001, 1))
    await few.reserve(ask())
    await few.reserve(ask(principal="v"))
    await few.reserve(ask(tenant="s"))
    with pytest.raises(Refusal):
        await few.reserve(ask(model="n"))


async def test_an_answer_that_grows_is_paid_for_or_cut(limits) -> None:
    few = limits(user_tokens=Rate(1, 100))
    held = await few.reserve(ask(60))
    more = await few.extend(held, 40)
    assert more.tokens == 100
    assert await few.extend(more, 1) is None
    await few.settle(more, 0)
    assert (await few.reserve(ask(100))).tokens == 100


async def test_a_call_larger_than_the_bucket_passes_when_it_is_full(limits) -> None:
    few = limits(user_tokens=Rate(10, 100))
    await few.reserve(ask(500))
    with pytest.raises(Refusal) as caught:
        await few.reserve(ask(1))
    assert caught.value.retry_after_ms > 40_000


steps = st.lists(
    st.tuples(
        st.floats(0, 3), st.integers(1, 40), st.integers(0, 60), st.integers(0, 20), st.booleans()
    ),
    min_size=1,
    max_size=25,
)
some_rates = st.builds(Rate, st.floats(0.5, 30), st.floats(1, 60))


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps, some_rates, some_rates)
async def test_redis_decides_as_memory_does(fresh, clock, steps, tokens, requests) -> None:
    """Every decision, every delay, whatever is reserved, extended, given back or overdrawn."""
    link = clock.link
    tenant, few = fresh(), rates(tenant_tokens=tokens, user_requests=requests)
    both = (
        MemoryLimits(few, clock=clock),
        RedisLimits(link, few, replicas=1, clock=clock, script=clock.script),
    )
    now_s = 0.0
    for wait_s, asked, used, more, other in steps:
        now_s += wait_s
        await clock.set(now_s)
        asks = ask(asked, tenant=tenant, principal="v" if other else "u")
        told = [await outcome(limits, asks, more, used) for limits in both]
        assert [step for step, _ in told[0]] == [step for step, _ in told[1]]
        for (_, here), (_, there) in zip(*told, strict=True):
            assert here == pytest.approx(there, abs=2)


async def outcome(limits, asks, more, used):
    try:
        held = await limits.reserve(asks)
    except Refusal as refusal:
        return [("refused", refusal.retry_after_ms)]
    grown = await limits.extend(held, more)
    await limits.settle(grown or held, used)
    return [("taken", 0), ("extended" if grown else "cut", 0)]


async def test_two_replicas_never_grant_more_than_one_limit(server) -> None:
    """Real time, two connections, both as fast as they can, until a second's worth was granted."""
    rate = Rate(50.0, 40.0)
    taken, enough = 0, rate.burst + rate.per_s

    async def storm(limits):
        nonlocal taken
        while taken < enough:
            try:
                await limits.reserve(ask(1))
            except Refusal:
                await asyncio.sleep(0.002)
                continue
            taken += 1

    async with server.link("gateway") as one, server.link("gateway") as two:
        replicas = [
            RedisLimits(each, rates(tenant_requests=rate), replicas=2, clock=time.monotonic)
            for each in (one, two)
        ]
        began_s = time.monotonic()
        async with asyncio.timeout(60):
            await asyncio.gather(*(storm(limits) for limits in replicas for _ in range(8)))
        elapsed_s = time.monotonic() - began_s

    assert enough <= taken <= rate.burst + rate.per_s * elapsed_s + 1


async def test_names_do_not_stand_in_redis_and_idle_buckets_end(server, link, clock) -> None:
    few = dict.fromkeys(Rates.__dataclass_fields__, Rate(0.1, 20)) | {
        "user_requests": Rate(0.005, 1)
    }
    limits = RedisLimits(link, rates(**few), replicas=1, clock=clock)
    await limits.reserve(ask(10, principal="spiffe://canary/tenant/t/app#ada"))
    async with server.link("observer") as observer:
        keys = [key for key in await observer.call("KEYS", "*") if b"clock" not in key]
        ends_ms = sorted([await observer.call("PTTL", key) for key in keys])

    assert len(keys) == 6
    assert not any(b"canary" in key for key in keys)
    # A request is back after 10 s, ten tokens after 100 s, the user's request after 200 s; and a
    # second is added, but some time has passed.
    full_ms = [10_000] * 2 + [100_000] * 3 + [200_000]
    for ends, full in zip(ends_ms, full_ms, strict=True):
        assert full - 5_000 < ends <= full + 1_001


async def test_an_end_is_never_before_the_bucket_is_full(link, clock) -> None:
    limits = RedisLimits(
        link, rates(tenant_tokens=Rate(10, 100)), replicas=1, clock=clock, script=clock.as_long
    )
    await limits.reserve(ask(100))
    await asyncio.sleep(1.2)  # Redis' own clock runs, the script's does not

    with pytest.raises(Refusal):
        await limits.reserve(ask(100))


# --- while Redis is away ------------------------------------------------------------------------


async def admitted(limits, most=1_000, **how) -> int:
    for count in range(most):
        try:
            await limits.reserve(ask(1, **how))
        except Refusal:
            return count
    return most


async def test_without_redis_each_replica_has_its_share_and_no_more(server) -> None:
    few = rates(tenant_requests=Rate(0.001, 40))
    fallbacks = counters().get("limits.redis.fallback", 0)
    async with server.link("gateway") as one, server.link("gateway") as two:
        replicas = [RedisLimits(each, few, replicas=2, clock=time.monotonic) for each in (one, two)]
        await server.kill()
        assert [await admitted(limits) for limits in replicas] == [20, 20]
    assert counters()["limits.redis.fallback"] - fallbacks == 42


@pytest.mark.parametrize("replicas", [1, 3, 50])
async def test_shares_never_sum_to_more_than_the_limit_in_the_long_run(replicas) -> None:
    its, share = rates(user_tokens=Rate(30, 90))("t"), shares_of(rates(user_tokens=Rate(30, 90)), 3)
    assert share("t").user_tokens == Rate(10, 30)
    shares = shares_of(rates_for(its, {}), replicas)("t")
    for name in Rates.__dataclass_fields__:
        assert math.isclose(getattr(shares, name).per_s * replicas, getattr(its, name).per_s)
        assert math.isclose(getattr(shares, name).burst * replicas, getattr(its, name).burst)


async def test_redis_killed_in_the_middle_of_a_load_and_back(server) -> None:
    """Never more than the limit and a burst at each change-over; nobody sees but LIMITED."""
    rate = Rate(600.0, 300.0)
    units, there = 0, 0

    async def storm(limits, over):
        nonlocal units, there
        while not over.is_set():
            try:
                held = await limits.reserve(ask(5))
            except Refusal:
                await asyncio.sleep(0.005)
                continue
            units += 6
            there += isinstance(held, SharedReservation)
            grown = await limits.extend(held, 3)
            await limits.settle(grown or held, 6)

    over = asyncio.Event()
    fast = {"hold_off_ms": 100}
    async with server.link("gateway", **fast) as one, server.link("gateway", **fast) as two:
        replicas = [
            RedisLimits(each, rates(user_tokens=rate), replicas=2, clock=time.monotonic)
            for each in (one, two)
        ]
        began_s = time.monotonic()
        storms = [asyncio.create_task(storm(limits, over)) for limits in replicas for _ in range(6)]
        await asyncio.sleep(0.7)
        await server.kill()
        await asyncio.sleep(0.7)
        await server.start()
        restarted = there
        async with asyncio.timeout(30):
            while there <= restarted + 100:
                await asyncio.sleep(0.01)
        over.set()
        await asyncio.gather(*storms)
        elapsed_s = time.monotonic() - began_s

    # And what each of the twelve owes at the end.
    assert units <= rate.per_s * elapsed_s + 3 * rate.burst + 12


async def test_what_was_taken_here_goes_back_to_here(server) -> None:
    few = rates(user_tokens=Rate(0.001, 100))
    fast = {"hold_off_ms": 1, "failures_max": 1}
    async with server.link("gateway", **fast) as link:
        limits = RedisLimits(link, few, replicas=2, clock=lambda: 0.0)
        held = await limits.reserve(ask(60))
        await server.kill()
        grown = await limits.extend(held, 50)
        assert (grown.tokens, grown.local) == (110, 50)
        assert await limits.extend(grown, 1) is None
        await limits.settle(grown, 70)

        # Of the 40 unused all were taken here; there, 60 stay taken.
        with pytest.raises(Refusal):
            await limits.reserve(ask(41))
        await limits.reserve(ask(40))


async def test_what_was_paid_here_is_not_given_back_there(server) -> None:
    few = rates(user_tokens=Rate(0.001, 100))
    fast = {"hold_off_ms": 1, "failures_max": 1}
    async with server.link("gateway") as patient, server.link("gateway", **fast) as link:
        there = RedisLimits(patient, few, replicas=2, clock=lambda: 0.0)
        limits = RedisLimits(link, few, replicas=2, clock=lambda: 0.0)
        held = await limits.reserve(ask(60))
        server.signal(signal.SIGSTOP)
        patience_s, link._timeout_s = link._timeout_s, 0.3
        grown = await limits.extend(held, 50)
        link._timeout_s = patience_s
        server.signal(signal.SIGCONT)
        async with asyncio.timeout(20):
            while not isinstance(await limits.reserve(ask(0)), SharedReservation):
                await asyncio.sleep(0.02)
        await limits.settle(grown, 100)

        # Only the 10 unused of the 50 taken here came back, and to here: there, 60 are taken.
        with pytest.raises(Refusal):
            await there.reserve(ask(41))
        await there.reserve(ask(40))


async def test_a_debt_is_booked_even_while_redis_is_away(server) -> None:
    few = rates(user_tokens=Rate(1.0, 100))
    unsettled = counters().get("limits.redis.unsettled", 0)
    async with server.link("gateway") as link:
        limits = RedisLimits(link, few, replicas=1, clock=lambda: 0.0)
        held = await limits.reserve(ask(10))
        await server.kill()
        await limits.settle(held, 160)
        with pytest.raises(Refusal) as caught:
            await limits.reserve(ask(1))
    assert 50_000 < caught.value.retry_after_ms < 52_000
    assert counters()["limits.redis.unsettled"] - unsettled == 1


# --- as it is set up ----------------------------------------------------------------------------


async def test_the_settings_choose(server) -> None:
    few = {"user_requests_per_s": 0.001, "user_requests_burst": 3}
    async with limits_of(GatewaySettings(limits=few)) as alone:
        assert isinstance(alone, MemoryLimits)
    shared = GatewaySettings(redis=server.link_settings("gateway"), limits_replicas=2, limits=few)
    async with limits_of(shared) as one, limits_of(shared) as two:
        assert [await admitted(one, 2), await admitted(two), await admitted(one)] == [2, 1, 0]


def test_the_environment_configures_it_and_asks_for_the_number_of_replicas(
    monkeypatch, tmp_path
) -> None:
    assert not GatewaySettings.load().redis.configured
    for name, value in {
        "ADDRESS": "localhost:6379",
        "CA": str(tmp_path / "ca.pem"),
        "USERNAME": "gateway",
        "PASSWORD_FILE": str(tmp_path / "password"),
        "TIMEOUT_MS": "100",
    }.items():
        monkeypatch.setenv(f"GATEWAY_REDIS__{name}", value)
    with pytest.raises(ValueError, match="limits_replicas must say"):
        GatewaySettings.load()
    monkeypatch.setenv("GATEWAY_LIMITS_REPLICAS", "3")

    assert GatewaySettings.load().redis.timeout_ms == 100
