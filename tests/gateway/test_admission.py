"""Never more than burst plus rate times time; never less than what was given back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.admission import Ask, Buckets, MemoryLimits, Rate, Rates, rates_for
from meshkit.contract import Reason, Refusal

steps = st.lists(
    st.tuples(st.floats(0, 5), st.floats(0.5, 12), st.floats(0, 1)), min_size=1, max_size=60
)
rates = st.builds(Rate, st.floats(0.5, 20), st.floats(1, 30))


def limits(clock, **given):
    plenty = Rate(1e9, 1e9)
    names = Rates.__dataclass_fields__
    return MemoryLimits(
        rates_for(Rates(**dict.fromkeys(names, plenty) | given), {}), clock=lambda: clock[0]
    )


def ask(tokens=10, principal="u", tenant="t", model="m"):
    return Ask(tenant=tenant, principal=principal, model=model, tokens=tokens)


@settings(max_examples=80)
@given(rates, steps)
def test_no_window_holds_more_than_burst_and_rate_allow(rate, steps) -> None:
    buckets, now, taken = Buckets(8), 0.0, []
    for wait, wanted, _ in steps:
        now += wait
        units = min(wanted, rate.burst)
        if buckets.delay_s("b", rate, units, now) == 0:
            buckets.take("b", rate, units, now)
            taken.append((now, units))
    for start, _ in taken:
        for end, _ in taken:
            used = sum(units for at, units in taken if start <= at <= end)
            if end >= start:
                assert used <= rate.burst + rate.per_s * (end - start) + 1e-3


@settings(max_examples=80)
@given(rates, steps)
def test_the_delay_told_is_enough_and_not_too_much(rate, steps) -> None:
    buckets, now = Buckets(8), 0.0
    for wait, units, _ in steps:
        now += wait
        delay = buckets.delay_s("b", rate, units, now)
        if delay == 0:
            buckets.take("b", rate, units, now)
            continue
        assert buckets.delay_s("b", rate, units, now + delay) == 0
        assert delay < 1e-5 or buckets.delay_s("b", rate, units, now + delay * 0.9) > 0


@settings(max_examples=80)
@given(rates, steps)
def test_what_is_given_back_counts_as_never_taken_and_no_more(rate, steps) -> None:
    """Net use, too, stays within burst and rate: giving back makes no credit."""
    buckets, now, taken = Buckets(8), 0.0, []
    for wait, wanted, share in steps:
        now += wait
        units = min(wanted, rate.burst)
        if buckets.delay_s("b", rate, units, now) == 0:
            buckets.take("b", rate, units, now)
            buckets.give_back("b", rate, units * share, now)
            taken.append((now, units * (1 - share)))
    for start, _ in taken:
        used = sum(units for at, units in taken if at >= start)
        assert used <= rate.burst + rate.per_s * (now - start) + 1e-3


async def test_settling_returns_what_was_not_used() -> None:
    clock = [0.0]
    few = limits(clock, user_tokens=Rate(0.001, 100))
    first = await few.reserve(ask(80))
    with pytest.raises(Refusal):
        await few.reserve(ask(80))
    await few.settle(first, 10)

    assert (await few.reserve(ask(90))).tokens == 90
    with pytest.raises(Refusal):
        await few.reserve(ask(1))


async def test_settling_more_than_was_reserved_is_a_debt() -> None:
    clock = [0.0]
    few = limits(clock, tenant_tokens=Rate(10, 100))
    await few.settle(await few.reserve(ask(50)), 150)
    with pytest.raises(Refusal) as caught:
        await few.reserve(ask(1))

    assert caught.value.reason is Reason.LIMITED
    assert 5_000 <= caught.value.retry_after_ms <= 5_200
    clock[0] = caught.value.retry_after_ms / 1_000
    await few.reserve(ask(1))


async def test_an_ask_is_taken_whole_or_not_at_all() -> None:
    """The refusing bucket is the last one looked at; the others must not be touched."""
    clock = [0.0]
    few = limits(clock, tenant_requests=Rate(0.001, 2), model_tokens=Rate(0.001, 10))
    await few.reserve(ask(10))
    with pytest.raises(Refusal):
        await few.reserve(ask(10))

    await few.reserve(ask(10, model="another"))


async def test_tenants_users_and_models_have_buckets_of_their_own() -> None:
    clock = [0.0]
    few = limits(clock, user_requests=Rate(0.001, 1))
    await few.reserve(ask())
    await few.reserve(ask(principal="v"))
    await few.reserve(ask(tenant="s"))
    with pytest.raises(Refusal):
        await few.reserve(ask(model="n"))


async def test_an_answer_that_grows_is_paid_for_or_cut() -> None:
    clock = [0.0]
    few = limits(clock, user_tokens=Rate(1, 100))
    held = await few.reserve(ask(60))
    more = await few.extend(held, 40)
    assert more.tokens == 100
    assert await few.extend(more, 1) is None
    await few.settle(more, 0)
    assert (await few.reserve(ask(100))).tokens == 100


async def test_a_call_larger_than_the_bucket_passes_when_it_is_full() -> None:
    clock = [0.0]
    few = limits(clock, user_tokens=Rate(10, 100))
    await few.reserve(ask(500))
    with pytest.raises(Refusal) as caught:
        await few.reserve(ask(1))
    assert caught.value.retry_after_ms > 40_000


def test_many_names_cost_accuracy_and_never_the_limit() -> None:
    buckets, rate = Buckets(100), Rate(0.001, 1)
    for n in range(100):
        buckets.take(f"user {n}", rate, 1, now=0.0)
    passed = 0
    for n in range(1_000):
        if buckets.delay_s(f"new {n}", rate, 1, 0.0) == 0:
            buckets.take(f"new {n}", rate, 1, 0.0)
            passed += 1

    assert passed == 1
    assert len(buckets) == 101


def test_idle_buckets_make_room() -> None:
    buckets, rate = Buckets(10), Rate(1, 1)
    for n in range(50):
        buckets.take(f"user {n}", rate, 1, now=float(n * 2))

    assert len(buckets) == 10
    assert buckets.delay_s("user 49", rate, 1, now=98.0) == 1.0


async def test_a_tenant_may_have_rates_of_its_own() -> None:
    plenty = Rates(**dict.fromkeys(Rates.__dataclass_fields__, Rate(1e9, 1e9)))
    one = Rates(**dict.fromkeys(Rates.__dataclass_fields__, Rate(0.001, 1)))
    few = MemoryLimits(rates_for(plenty, {"small": one}), clock=lambda: 0.0)
    await few.reserve(ask(1, tenant="small"))
    with pytest.raises(Refusal):
        await few.reserve(ask(1, tenant="small"))
    for _ in range(10):
        await few.reserve(ask(1, tenant="large"))
