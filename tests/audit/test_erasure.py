"""Erasing a person: all of it goes; records and proofs stay; nothing is left half done."""

from __future__ import annotations

import asyncio
import shutil

import pytest
import pytest_asyncio

from audit.privacy.holds import HoldScope
from meshkit.contract import Reason, Refusal
from meshkit.tlog import check_log, check_proof
from tests.audit.custody_world import OFFICER, CustodyWorld
from tests.audit.world import ANSWER, make_intent, make_outcome


@pytest.fixture
def world(tmp_path):
    return CustodyWorld(tmp_path)


async def call(audit, subject="", tenant="acme", **fields):
    """Append a call's two events; return its id."""
    intent = make_intent(subject=subject, tenant=tenant)
    await audit.append(intent)
    await audit.append(make_outcome(intent.call_id, subject=subject, tenant=tenant, **fields))
    return intent.call_id


async def texts(custody, call_id, tenant="acme"):
    items = await custody.read_payload(tenant, call_id, actor=OFFICER)
    return [item.payload.released for item in items if item.payload.released]


async def refused(work):
    with pytest.raises(Refusal) as caught:
        await work
    return caught.value.reason


async def told(audit, action, tenant="acme"):
    """Return the leaves of an action, in order."""
    leaves = []
    for index in range(audit.stats.durable):
        leaf = audit.parts.leaf(index)
        if f'"action":"{action}"'.encode() in leaf:
            leaves.append(leaf)
    return leaves


async def exported(custody, subject):
    return [item.index async for item in custody.export_subject("acme", subject, actor=OFFICER)]


async def test_an_erased_person_is_gone_and_the_log_still_holds(world) -> None:
    async with world.live() as (audit, custody):
        calls = [await call(audit, "p-17") for _ in range(3)]
        other, nobodys = await call(audit, "p-18"), await call(audit)
        foreign = await call(audit, "p-17", tenant="globex")
        assert await texts(custody, calls[0]) == [ANSWER]
        assert len(await exported(custody, "p-17")) == 6
        held_before = set(world.key_files())

        erased = await custody.erase_subject("acme", "p-17", actor=OFFICER)

        assert (erased.payloads, erased.keys, erased.cached) == (6, 1, 3)
        assert world.caches.purged == [("acme", "p-17")]
        for call_id in calls:
            assert await refused(texts(custody, call_id)) is Reason.NOT_FOUND
            assert len(await audit.records("acme", call_id=call_id)) == 2
        assert await exported(custody, "p-17") == []
        assert await texts(custody, other) == [ANSWER]
        assert await texts(custody, nobodys) == [ANSWER]
        assert await texts(custody, foreign, "globex") == [ANSWER]
        assert len(held_before - set(world.key_files())) == 1
        proof = check_proof(erased.proof, world.vkey)
        assert (proof.index, b"subject.erase" in proof.leaf) == (erased.index, True)
        assert b"p-17" not in proof.leaf
        assert list((world.data / "plans").iterdir()) == []

    def read(path):
        file = world.log / path
        return file.read_bytes() if file.is_file() else None

    paths = [p.relative_to(world.log).as_posix() for p in (world.log / "tile").rglob("*")]
    assert check_log(read, world.vkey, [p for p in paths if (world.log / p).is_file()]).size > 15


async def test_the_bytes_themselves_are_overwritten(world) -> None:
    async with world.live() as (audit, custody):
        await call(audit, "p-17")
        await exported(custody, "p-17")
        before = world.payload_bytes()
        key_ids = [bytes.fromhex(path.stem) for path in world.key_files()]
        await custody.erase_subject("acme", "p-17", actor=OFFICER)

        after = world.payload_bytes()
        assert len(after) == len(before)
        assert any(key_id in before for key_id in key_ids)
        assert not any(key_id in after for key_id in key_ids)


async def test_what_is_written_after_an_erasure_is_kept_anew(world) -> None:
    async with world.live() as (audit, custody):
        old = await call(audit, "p-17")
        await custody.erase_subject("acme", "p-17", actor=OFFICER)
        fresh = await call(audit, "p-17")

        assert await texts(custody, fresh) == [ANSWER]
        assert await refused(texts(custody, old)) is Reason.NOT_FOUND
        again = await custody.erase_subject("acme", "p-17", actor=OFFICER)
        assert (again.payloads, again.keys) == (2, 1)
        third = await custody.erase_subject("acme", "p-17", actor=OFFICER)
        assert (third.payloads, third.keys) == (0, 0)


async def test_an_index_made_again_finds_what_stands_behind_erased_frames(world) -> None:
    async with world.live() as (audit, custody):
        await call(audit, "p-17")
        later = await call(audit, "p-18")
        await custody.erase_subject("acme", "p-17", actor=OFFICER)
    for file in world.data.glob("index.sqlite*"):
        file.unlink()
    async with world.live() as (audit, custody):
        assert await texts(custody, later) == [ANSWER]
        assert await exported(custody, "p-17") == []


async def test_a_backup_of_payloads_brings_nothing_back(world) -> None:
    """With a live key service that forgets nothing: the wrapped key is what is missing."""
    async with world.live() as (audit, custody):
        call_id = await call(audit, "p-17")
        await exported(custody, "p-17")
        shutil.copytree(world.data / "payloads", world.folder / "backup")
        await custody.erase_subject("acme", "p-17", actor=OFFICER)
    shutil.rmtree(world.data / "payloads")
    shutil.copytree(world.folder / "backup", world.data / "payloads")
    async with world.live() as (audit, custody):
        assert await refused(texts(custody, call_id)) is Reason.NOT_FOUND
        assert await exported(custody, "p-17") == []


async def test_the_running_process_has_forgotten_the_key_too(world) -> None:
    """Files put back under a live service: its memory must open them no more."""
    async with world.live() as (audit, custody):
        call_id = await call(audit, "p-17")
        assert await texts(custody, call_id) == [ANSWER]
        await exported(custody, "p-17")
        shutil.copytree(world.data / "payloads", world.folder / "backup")
        await custody.erase_subject("acme", "p-17", actor=OFFICER)
        shutil.copytree(world.folder / "backup", world.data / "payloads", dirs_exist_ok=True)
        assert await refused(texts(custody, call_id)) is Reason.NOT_FOUND


async def test_a_backup_of_payloads_and_keys_brings_it_back(world) -> None:
    """The bound that docs/payloads.md states: copies of keys/ must be destroyed in time."""
    async with world.live() as (audit, custody):
        call_id = await call(audit, "p-17")
        await exported(custody, "p-17")
        for name in ("payloads", "keys"):
            shutil.copytree(world.data / name, world.folder / f"{name}-backup")
        erased = await custody.erase_subject("acme", "p-17", actor=OFFICER)
        assert b'"key_backups_days":"30"' in check_proof(erased.proof, world.vkey).leaf
    for name in ("payloads", "keys"):
        shutil.rmtree(world.data / name)
        shutil.copytree(world.folder / f"{name}-backup", world.data / name)
    async with world.live() as (audit, custody):
        assert await texts(custody, call_id) == [ANSWER]


# --- interrupted --------------------------------------------------------------------------------


async def test_a_cache_that_is_away_holds_it_up_and_it_is_finished_later(world) -> None:
    world.caches.fails = Refusal(Reason.CACHE_DOWN)
    async with world.live(erasure_retry_s=0.01) as (audit, custody):
        call_id = await call(audit, "p-17")
        asked = custody.erase_subject("acme", "p-17", actor=OFFICER)
        assert await refused(asked) is Reason.CACHE_DOWN
        assert await refused(texts(custody, call_id)) is Reason.NOT_FOUND
        assert await told(audit, "subject.erase") == []

        world.caches.fails = None
        async with asyncio.timeout(10):
            while not (leaves := await told(audit, "subject.erase")):
                await asyncio.sleep(0.01)
        assert b'"payloads":"2"' in leaves[0]
        assert b'"cached":"3"' in leaves[0]


STEPS = ("plans.put", "kept.drop_keys", "held.forget", "payloads.blank", "append", "plans.remove")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_crash_at_any_step_is_finished_at_the_next_start(world, step, after) -> None:
    """Once it was written down, it is done, once: the counts are those of the first try."""
    async with world.live(erasure_retry_s=3_600) as (audit, custody):
        call_id = await call(audit, "p-17")
        await exported(custody, "p-17")
        with pytest.MonkeyPatch.context() as patch:
            crash_at(patch, step, after=after, audit=audit, custody=custody)
            with pytest.raises(Crash):
                await custody.erase_subject("acme", "p-17", actor=OFFICER)
    begun = step != "plans.put" or after

    async with world.live(erasure_retry_s=3_600) as (audit, custody):
        leaves = await told(audit, "subject.erase")
        assert len(leaves) == int(begun)
        assert all(b'"keys":"1"' in leaf and b'"payloads":"2"' in leaf for leaf in leaves)
        if begun:
            assert await refused(texts(custody, call_id)) is Reason.NOT_FOUND
            assert world.key_files() == []
        else:
            assert await texts(custody, call_id) == [ANSWER]
        assert list((world.data / "plans").iterdir()) == []


class Crash(BaseException):
    """The process is gone: nothing catches it."""


def crash_at(patch, step, *, after, audit, custody):
    owner, _, name = step.rpartition(".")
    thing = {
        "plans": custody._plans,
        "kept": custody._estate._kept,
        "held": custody._estate._held,
        "payloads": audit.parts.payloads,
        "": audit,
    }[owner]
    real = getattr(thing, name)

    def crash(*args, **kwargs):
        if after:
            real(*args, **kwargs)
        raise Crash

    async def crash_later(*args, **kwargs):
        if after:
            await real(*args, **kwargs)
        raise Crash

    awaited = asyncio.iscoroutinefunction(real)
    patch.setattr(thing, name, crash_later if awaited else crash, raising=True)


async def test_what_a_crash_left_of_writing_a_plan_or_hold_is_cleared(world) -> None:
    """A half-written plan names its subject."""
    for name in ("plans", "holds"):
        (world.data / name).mkdir(parents=True)
        (world.data / name / ".ab.json.7.new").write_text('{"subject": "p-17"')
    async with world.live():
        for name in ("plans", "holds"):
            assert list((world.data / name).iterdir()) == []


async def test_a_caller_who_goes_away_stops_nothing(world) -> None:
    async with world.live() as (audit, custody):
        await call(audit, "p-17")
        asked = asyncio.create_task(custody.erase_subject("acme", "p-17", actor=OFFICER))
        await asyncio.sleep(0)
        asked.cancel()
        async with asyncio.timeout(10):
            while not await told(audit, "subject.erase"):
                await asyncio.sleep(0.01)
        assert world.key_files() == []


# --- legal holds --------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def held(world):
    async with world.live() as (audit, custody):
        yield audit, custody, await call(audit, "p-17")


HOLDS = {
    "tenant": lambda _call_id: (HoldScope.TENANT, ""),
    "class": lambda _call_id: (HoldScope.CLASS, "standard"),
    "subject": lambda _call_id: (HoldScope.SUBJECT, "p-17"),
    "call": lambda call_id: (HoldScope.CALL, call_id.hex()),
}


@pytest.mark.parametrize("kind", HOLDS)
async def test_a_hold_stands_against_erasure_and_both_are_recorded(world, held, kind) -> None:
    audit, custody, call_id = held
    hold = await custody.set_hold("acme", *HOLDS[kind](call_id), "case-7", actor=OFFICER)

    asked = custody.erase_subject("acme", "p-17", actor=OFFICER)
    assert await refused(asked) is Reason.HELD
    assert await texts(custody, call_id) == [ANSWER]
    assert world.caches.purged == []
    assert b'"scope":"%b"' % kind.encode() in (await told(audit, "hold.set"))[0]
    (blocked,) = await told(audit, "subject.erase")
    assert b'"outcome":"HELD"' in blocked
    assert hold.id.hex().encode() in blocked

    await custody.release_hold("acme", hold.id, actor=OFFICER)
    assert (await custody.erase_subject("acme", "p-17", actor=OFFICER)).payloads == 2
    assert len(await told(audit, "hold.release")) == 1


async def test_a_hold_on_others_stands_against_nothing(held) -> None:
    audit, custody, _ = held
    other = await call(audit, "p-18")
    for scope, value in ((HoldScope.SUBJECT, "p-18"), (HoldScope.CALL, other.hex())):
        await custody.set_hold("acme", scope, value, "case-7", actor=OFFICER)
    await custody.set_hold("globex", HoldScope.TENANT, "", "case-8", actor=OFFICER)

    assert (await custody.erase_subject("acme", "p-17", actor=OFFICER)).payloads == 2


async def test_holds_outlive_a_restart_and_are_their_tenants_own(world) -> None:
    async with world.live() as (audit, custody):
        await call(audit, "p-17")
        hold = await custody.set_hold("acme", HoldScope.SUBJECT, "p-17", "case-7", actor=OFFICER)
    async with world.live() as (audit, custody):
        assert await custody.holds("acme", actor=OFFICER) == [hold]
        assert await custody.holds("globex", actor=OFFICER) == []
        foreign = custody.release_hold("globex", hold.id, actor=OFFICER)
        assert await refused(foreign) is Reason.NOT_FOUND
        asked = custody.erase_subject("acme", "p-17", actor=OFFICER)
        assert await refused(asked) is Reason.HELD


async def test_a_hold_that_cannot_be_recorded_is_not_set(world, held, monkeypatch) -> None:
    _, custody, _ = held

    async def down(*_args, **_fields):
        raise Refusal(Reason.AUDIT_DOWN)

    monkeypatch.setattr(custody._notes, "note", down)
    asked = custody.set_hold("acme", HoldScope.TENANT, "", "case-7", actor=OFFICER)
    assert await refused(asked) is Reason.AUDIT_DOWN
    assert list((world.data / "holds").iterdir()) == []


async def test_a_caller_who_goes_away_leaves_no_record_without_its_hold(
    world, held, monkeypatch
) -> None:
    """Nor a hold without its record: what was begun is done, and both are there."""
    audit, custody, _ = held
    real, recorded = custody._notes.note, asyncio.Event()

    async def lingering(*args, **fields):
        told = await real(*args, **fields)
        recorded.set()
        await asyncio.sleep(0.01)
        return told

    async def gone_from(work):
        recorded.clear()
        asked = asyncio.create_task(work)
        await recorded.wait()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    monkeypatch.setattr(custody._notes, "note", lingering)
    await gone_from(custody.set_hold("acme", HoldScope.TENANT, "", "case-7", actor=OFFICER))
    await custody.settled()
    assert len(await told(audit, "hold.set")) == 1
    (hold,) = await custody.holds("acme", actor=OFFICER)
    await gone_from(custody.release_hold("acme", hold.id, actor=OFFICER))
    await custody.settled()
    assert len(await told(audit, "hold.release")) == 1
    assert list((world.data / "holds").iterdir()) == []


async def test_a_hold_that_cannot_be_read_keeps_the_service_from_starting(world) -> None:
    async with world.live() as (_, custody):
        await custody.set_hold("acme", HoldScope.TENANT, "", "case-7", actor=OFFICER)
    (file,) = (world.data / "holds").iterdir()
    file.write_bytes(b"{}")
    with pytest.raises(Refusal) as caught:
        async with world.live():
            pass
    assert caught.value.reason is Reason.EVIDENCE_LOST


@pytest.mark.parametrize(
    ("scope", "value", "reference", "field"),
    [
        (HoldScope.TENANT, "x", "case-7", "value"),
        (HoldScope.CLASS, "forever", "case-7", "value"),
        (HoldScope.SUBJECT, "Ada Lovelace", "case-7", "value"),
        (HoldScope.CALL, "beef", "case-7", "value"),
        (HoldScope.TENANT, "", "because she said so", "reference"),
    ],
)
async def test_a_malformed_hold_is_named(held, scope, value, reference, field) -> None:
    with pytest.raises(Refusal) as caught:
        await held[1].set_hold("acme", scope, value, reference, actor=OFFICER)
    assert (caught.value.reason, caught.value.field) == (Reason.INVALID_FIELD, field)
