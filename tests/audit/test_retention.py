"""Payloads go on day 31 with their keys, counted; leaves stay; holds keep what they are on."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.privacy.holds import HoldScope
from audit.privacy.retention import is_due
from audit.privacy.subjects import CLASS_PATTERN, payload_purpose, read_purpose
from meshkit.contract import Reason, Refusal
from meshkit.identity import is_label
from tests.audit.custody_world import OFFICER, CustodyWorld
from tests.audit.test_erasure import ANSWER, call, refused, texts, told
from tests.audit.world import make_intent, make_outcome

CLASSES = {"standard": 30, "phi": 2_190, "brief": 1}
KINDS = {
    "retention_days": CLASSES,
    "retention_tenants": {"globex": "brief"},
    "retention_purposes": {"treatment": "phi"},
}


@pytest.fixture
def world(tmp_path):
    return CustodyWorld(tmp_path)


def counts(leaf):
    detail = json.loads(leaf)["event"]["detail"]
    return detail["class"], int(detail["payloads"]), int(detail["keys"]), int(detail["held"])


async def test_on_day_31_payloads_and_keys_are_gone_and_the_leaf_is_there(world) -> None:
    async with world.live() as (audit, custody):
        call_id = await call(audit, "p-17")
        nobodys = await call(audit)
        world.day += 30
        assert await custody.sweep() == 0
        assert await texts(custody, call_id) == [ANSWER]

        world.day += 1
        assert await custody.sweep() == 1
        for each in (call_id, nobodys):
            assert await refused(texts(custody, each)) is Reason.NOT_FOUND
        assert (world.key_files(), world.partitions()) == ([], [])
        assert [counts(leaf) for leaf in await told(audit, "payload.expire")] == [
            ("standard", 4, 2, 0)
        ]
        assert await custody.sweep() == 0

        world.day += 152
        assert await custody.sweep() == 0
        assert len(await audit.records("acme", call_id=call_id)) == 2


async def test_after_a_week_of_downtime_one_sweep_does_it_all(world) -> None:
    async with world.live(**KINDS) as (audit, _):
        await call(audit, "p-17")
        await call(audit, tenant="globex")
        await call(audit, purpose="treatment")
    world.day += 183
    async with world.live(**KINDS, retention_sweep_s=3_600) as (audit, custody):
        await custody.sweep()
        expired = [counts(leaf) for leaf in await told(audit, "payload.expire")]
        assert sorted(expired) == [("brief", 2, 1, 0), ("standard", 3, 2, 0)]
        assert world.partitions() == ["phi"]
        assert len(world.key_files()) == 1


async def test_the_class_is_the_purposes_then_the_tenants(world) -> None:
    async with world.live(**KINDS) as (audit, custody):
        await call(audit, tenant="globex")
        await call(audit, tenant="globex", purpose="treatment")
        await custody.sweep()
        assert set(world.partitions()) == {"brief", "phi"}


async def test_a_class_that_is_known_no_more_is_kept(world) -> None:
    async with world.live(**KINDS) as (audit, custody):
        await call(audit, tenant="globex")
        await custody.sweep()
    world.day += 10_000
    async with world.live() as (_, custody):
        await custody.sweep()
        assert world.partitions() == ["brief"]


@pytest.mark.parametrize(
    ("scope", "value", "kept", "keys"),
    [
        (HoldScope.TENANT, "", 6, 3),
        (HoldScope.CLASS, "standard", 6, 3),
        (HoldScope.SUBJECT, "p-17", 2, 1),
        (HoldScope.CALL, None, 2, 1),
    ],
)
async def test_a_hold_keeps_exactly_what_it_is_on_until_it_is_released(
    world, scope, value, kept, keys
) -> None:
    async with world.live() as (audit, custody):
        call_id = await call(audit, "p-17")
        others = [await call(audit, "p-18"), await call(audit)]
        asked = call_id.hex() if value is None else value
        hold = await custody.set_hold("acme", scope, asked, "case-7", actor=OFFICER)
        world.day += 31
        await custody.sweep()

        assert await texts(custody, call_id) == [ANSWER]
        assert len(world.key_files()) == keys
        gone = 6 - kept
        assert [counts(leaf) for leaf in await told(audit, "payload.expire")] == [
            ("standard", gone, 3 - keys, kept)
        ]
        for other in others if gone else ():
            assert await refused(texts(custody, other)) is Reason.NOT_FOUND
        await custody.sweep()
        assert len(await told(audit, "payload.expire")) == 1

        await custody.release_hold("acme", hold.id, actor=OFFICER)
        await custody.sweep()
        assert (world.key_files(), world.partitions()) == ([], [])
        *_, last = await told(audit, "payload.expire")
        assert counts(last) == ("standard", kept, keys, 0)


async def test_what_a_hold_keeps_is_told_even_if_it_could_not_be_written_at_first(
    world, monkeypatch
) -> None:
    async with world.live() as (audit, custody):
        await call(audit, "p-17")
        await custody.set_hold("acme", HoldScope.TENANT, "", "case-7", actor=OFFICER)
        world.day += 31
        with monkeypatch.context() as patch:
            patch.setattr("audit.privacy.plans.write_private", no_disk)
            assert await refused(custody.sweep()) is Reason.AUDIT_DOWN
        for _ in range(2):
            await custody.sweep()

        assert [counts(leaf) for leaf in await told(audit, "payload.expire")] == [
            ("standard", 0, 0, 2)
        ]


async def test_a_hold_on_a_call_about_nobody_keeps_the_day_s_key_and_no_other_payload(
    world,
) -> None:
    async with world.live() as (audit, custody):
        kept, other = await call(audit), await call(audit)
        await custody.set_hold("acme", HoldScope.CALL, kept.hex(), "case-7", actor=OFFICER)
        world.day += 31
        await custody.sweep()

        assert await texts(custody, kept) == [ANSWER]
        assert await refused(texts(custody, other)) is Reason.NOT_FOUND
        assert len(world.key_files()) == 1


@pytest.mark.parametrize("subject", ["p-17", ""])
async def test_a_hold_on_a_call_under_way_keeps_its_outcome_too(world, subject) -> None:
    async with world.live() as (audit, custody):
        intent = make_intent(subject=subject)
        await audit.append(intent)
        value = intent.call_id.hex()
        await custody.set_hold("acme", HoldScope.CALL, value, "case-7", actor=OFFICER)
        await audit.append(make_outcome(intent.call_id, subject=subject))
        world.day += 31
        await custody.sweep()

        assert await texts(custody, intent.call_id) == [ANSWER]
        assert await told(audit, "payload.expire") != []
        (hold,) = await custody.holds("acme", actor=OFFICER)
        assert len(hold.numbers) == 2


async def test_a_crash_in_the_middle_is_finished_with_the_same_counts(world, monkeypatch) -> None:
    async with world.live() as (audit, custody):
        await call(audit, "p-17")
        world.day += 31

        with monkeypatch.context() as patch:
            patch.setattr(audit.parts.payloads, "drop", no_disk)
            assert await refused(custody.sweep()) is Reason.AUDIT_DOWN
        assert await told(audit, "payload.expire") == []
    async with world.live() as (audit, _):
        (leaf,) = await told(audit, "payload.expire")
        assert counts(leaf) == ("standard", 2, 1, 0)
        assert world.partitions() == []


def no_disk(*_, **__):
    raise OSError


async def test_what_a_failed_sweep_began_is_told_of_once_however_often_it_is_tried(
    world, monkeypatch
) -> None:
    async with world.live() as (audit, custody):
        await call(audit, "p-17")
        world.day += 31
        with monkeypatch.context() as patch:
            patch.setattr(audit.parts.payloads, "drop", no_disk)
            for _ in range(3):
                assert await refused(custody.sweep()) is Reason.AUDIT_DOWN
        await custody.sweep()
        await custody.resume()

        assert [counts(leaf) for leaf in await told(audit, "payload.expire")] == [
            ("standard", 2, 1, 0)
        ]
        assert (world.key_files(), world.partitions()) == ([], [])


async def test_a_day_that_ends_during_a_sweep_is_left_to_the_next(world, monkeypatch) -> None:
    async with world.live() as (audit, custody):
        moved, ours = audit.parts.mover.catch_up, asyncio.current_task()

        async def a_day_ends():
            await moved()
            if asyncio.current_task() is ours:  # not in the sweep that each start brings
                await call(audit, "p-17")
                world.day += 31

        with monkeypatch.context() as patch:
            patch.setattr(audit.parts.mover, "catch_up", a_day_ends)
            assert await custody.sweep() == 0
        await custody.sweep()
        assert [counts(leaf) for leaf in await told(audit, "payload.expire")] == [
            ("standard", 2, 1, 0)
        ]


async def test_what_an_erasure_began_is_not_told_of_by_a_sweep_too(world, monkeypatch) -> None:
    async with world.live() as (audit, custody):
        await call(audit, "p-17")
        await call(audit, "p-18")
        with monkeypatch.context() as patch:
            patch.setattr(audit.parts.payloads, "blank", no_disk)
            erasing = custody.erase_subject("acme", "p-17", actor=OFFICER)
            assert await refused(erasing) is Reason.AUDIT_DOWN
        world.day += 31
        await custody.sweep()
        await custody.resume()

        assert len(await told(audit, "subject.erase")) == 1
        assert [counts(leaf) for leaf in await told(audit, "payload.expire")] == [
            ("standard", 2, 1, 0)
        ]


@given(st.integers(0, 40_000), st.integers(0, 4_000), st.integers(0, 40_000))
def test_due_is_a_matter_of_whole_days(day, days, now) -> None:
    assert is_due(day, days, now) is (now >= day + days + 1)


@given(st.from_regex(CLASS_PATTERN, fullmatch=True), st.binary(min_size=16, max_size=16))
def test_a_purpose_is_a_label_and_says_class_and_subject(retention, subject) -> None:
    for whom in (subject.hex(), ""):
        purpose = payload_purpose(retention, whom)
        assert is_label(purpose)
        assert read_purpose(purpose) == (retention, whom)


@pytest.mark.parametrize("days", [{"Standard": 30}, {"standard": -1}, {"other": 30}])
async def test_settings_that_make_no_sense_are_refused(world, days) -> None:
    with pytest.raises(ValueError, match="retention_days"):
        async with world.live(retention_days=days):
            pass


async def test_a_repeated_event_keeps_the_class_it_came_with(world) -> None:
    async with world.live(**KINDS) as (audit, custody):
        call_id = await call(audit, purpose="treatment")
        assert await texts(custody, call_id) == [ANSWER]
        with pytest.raises(Refusal):
            await custody.read_payload("globex", call_id, actor=OFFICER)
