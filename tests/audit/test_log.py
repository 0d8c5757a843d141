"""The Audit protocol, kept by `AuditLog` on a real disk."""

import asyncio
import os
import time
from base64 import b64encode
from types import SimpleNamespace

import pytest

from audit.log.locks import SqliteLock
from audit.records.events import leaf_bytes
from meshkit.call_id import new_call_id
from meshkit.contract import Appended, Message, Payload, Phase, Reason, Refusal, Role, TraceContext
from meshkit.counters import histograms
from meshkit.tlog import (
    Proof,
    ReceiptInvalid,
    check_proof,
    check_receipt,
    format_proof,
    is_consistent,
    is_included,
    leaf_hash,
)
from sealgate.cli.audit import write_proofs
from tests.audit.witness_world import until
from tests.audit.world import (
    ANSWER,
    MESSAGES,
    HeldDisk,
    World,
    make_event,
    make_intent,
    make_outcome,
)


async def published(audit, size):
    async with asyncio.timeout(20):
        # Polled as a client would.
        while (checkpoint := await audit.checkpoint()).size < size:
            await asyncio.sleep(0.01)
    return checkpoint


async def call(audit, call_id=None, **fields):
    call_id = call_id or new_call_id()
    intent = await audit.append(make_intent(call_id, **fields))
    return intent, await audit.append(make_outcome(call_id, **fields))


async def test_a_calls_receipt_opens_its_prompt_and_answer_and_no_other(world):
    async with world.open() as audit:
        intent, outcome = await call(audit)
    assert intent.receipt is None
    assert outcome.index == intent.index + 1
    check_receipt(outcome.receipt, world.vkey, messages=MESSAGES, answer=ANSWER)
    with pytest.raises(ReceiptInvalid, match="step 5"):
        check_receipt(outcome.receipt, world.vkey, messages=(Message(Role.USER, "else"),))
    with pytest.raises(ReceiptInvalid, match="step 6"):
        check_receipt(outcome.receipt, world.vkey, answer=ANSWER + " ")


async def test_a_refusal_at_the_door_has_a_receipt_without_texts(world):
    refused = make_event(Phase.OUTCOME, outcome=Reason.DENIED.name)
    async with world.open() as audit:
        appended = await audit.append(refused)
        (record,) = await audit.records("acme", call_id=refused.call_id)
    check_receipt(appended.receipt, world.vkey)
    assert appended.receipt.prompt_commitment == appended.receipt.answer_commitment == b""
    assert b'"intent"' not in record.leaf


async def test_the_same_event_again_gets_the_first_place_now_and_after_a_restart(world):
    call_id = new_call_id()
    intent, outcome = make_intent(call_id), make_outcome(call_id)
    async with world.open() as audit:
        first = await audit.append(intent), await audit.append(outcome)
        again = await audit.append(intent), await audit.append(outcome)
        assert [a.index for a in again] == [a.index for a in first]
        assert [a.leaf_hash for a in again] == [a.leaf_hash for a in first]
    async with world.open() as audit:
        later = await audit.append(outcome)
        check_receipt(later.receipt, world.vkey, messages=MESSAGES, answer=ANSWER)
        assert (later.index, later.leaf_hash) == (first[1].index, first[1].leaf_hash)


async def test_the_same_event_from_many_at_once_is_recorded_once(world):
    event = make_outcome()
    async with world.open() as audit:
        before = audit.stats.durable
        answers = await asyncio.gather(*(audit.append(event) for _ in range(50)))
        assert len({answer.index for answer in answers}) == 1
        assert audit.stats.durable == before + 1


async def test_other_content_under_the_same_key_is_a_conflict(world):
    call_id = new_call_id()
    async with world.open() as audit:
        await audit.append(make_outcome(call_id))
        with pytest.raises(Refusal, match="CONFLICT"):
            await audit.append(make_outcome(call_id, outcome=Reason.BLOCKED.name))
        one, other = await asyncio.gather(
            audit.append(make_intent(call_id)), audit.append(make_intent(call_id)),
            return_exceptions=True,
        )  # fmt: skip
        assert isinstance(one, Appended)
        assert other.reason is Reason.CONFLICT
    async with world.open() as audit:
        with pytest.raises(Refusal, match="CONFLICT"):
            await audit.append(make_outcome(call_id))


async def test_repeats_are_found_when_memory_has_let_them_go(world):
    events = [make_outcome() for _ in range(40)]
    async with world.open(recent_events_max=5) as audit:
        first = [await audit.append(event) for event in events]
        await published(audit, audit.stats.durable)
        await audit.append(make_outcome())
        again = await audit.append_many(events)
    assert [a.index for a in again] == [a.index for a in first]


async def test_a_batch_answers_each_event_for_itself(world):
    good, bad = make_outcome(), make_outcome(purpose="not a label!")
    async with world.open() as audit:
        one, two, three = await audit.append_many([good, bad, good])
    assert one.index == three.index
    assert (two.reason, two.field) == (Reason.INVALID_FIELD, "purpose")


async def test_an_outcome_finds_its_intents_salt_after_a_restart(world):
    call_id = new_call_id()
    async with world.open() as audit:
        await audit.append(make_intent(call_id))
    async with world.open() as audit:
        outcome = await audit.append(make_outcome(call_id))
    check_receipt(outcome.receipt, world.vkey, messages=MESSAGES, answer=ANSWER)


async def test_records_are_found_by_call_and_trace_within_the_tenant_alone(world):
    trace = TraceContext(trace_id=os.urandom(16), span_id=bytes(8))
    async with world.open(publish_interval_ms=300) as audit:
        for attempt in ("fresh", "indexed"):
            intent, outcome = await call(audit, trace=trace)
            if attempt == "indexed":
                await published(audit, outcome.index + 1)
            receipt = outcome.receipt
            by_call = await audit.records("acme", call_id=receipt.call_id)
            assert [record.index for record in by_call] == [intent.index, outcome.index]
            assert [record.phase for record in by_call] == [Phase.INTENT, Phase.OUTCOME]
            assert leaf_hash(by_call[1].leaf) == outcome.leaf_hash
            assert await audit.records("globex", call_id=receipt.call_id) == ()
            assert await audit.records("globex", trace_id=trace.trace_id) == ()
        assert len(await audit.records("acme", trace_id=trace.trace_id)) == 4
    async with world.open() as audit:
        assert len(await audit.records("acme", trace_id=trace.trace_id)) == 4
        assert await audit.records("acme", call_id=bytes(16)) == ()


async def test_proofs_from_the_service_verify_offline(world, tmp_path):
    async with world.open(round_events_max=64) as audit:
        for _ in range(150):
            _, outcome = await call(audit)
        older = await published(audit, 300)
        _, outcome = await call(audit)
        newer = await published(audit, audit.stats.durable)
        for index in (0, 255, 256, newer.size - 1):
            proof = await audit.inclusion(index, newer.size)
            leaf = audit.parts.leaf(index)
            assert is_included(
                leaf_hash(leaf), index=index, size=newer.size, proof=proof, root=newer.root
            )
            text = format_proof(Proof(leaf=leaf, index=index, hashes=proof, checkpoint=newer))
            assert check_proof(text, world.vkey).leaf == leaf
        assert is_consistent(
            old=older.size, old_root=older.root, new=newer.size, new_root=newer.root,
            proof=await audit.consistency(older.size, newer.size),
        )  # fmt: skip
        paths = await write_proofs(
            audit, "acme", tmp_path / "proofs", call_id=outcome.receipt.call_id
        )
        for bad in (
            audit.inclusion(newer.size, newer.size),
            audit.inclusion(0, newer.size + 1),
            audit.consistency(5, 4),
            audit.consistency(0, newer.size + 1),
        ):
            with pytest.raises(Refusal, match="NOT_FOUND"):
                await bad
        with pytest.raises(Refusal, match="NOT_FOUND"):
            await write_proofs(audit, "globex", tmp_path, call_id=outcome.receipt.call_id)
    assert [path.name.split("-")[1] for path in paths] == [
        "intent.tlog",
        "outcome.tlog",
    ]
    assert check_proof(paths[1].read_text(), world.vkey).index == outcome.index


async def test_payloads_are_sealed_on_disk_and_open_for_their_tenant(world):
    event = make_outcome()
    async with world.open() as audit:
        index = (await audit.append(event)).index
        fresh = await audit.payload("acme", index)
        await published(audit, index + 1)
        moved = await audit.payload("acme", index)
        with pytest.raises(Refusal, match="NOT_FOUND"):
            await audit.payload("globex", index)
    assert fresh == moved
    assert moved.payload.released == ANSWER
    assert moved.salts["answer_delivered"] == event.answer_delivered.salt
    everything = b"".join(p.read_bytes() for p in world.data.rglob("*") if p.is_file())
    for secret in (ANSWER, "Ada Lovelace", "4111 1111 1111 1111", "ada@example.org"):
        assert secret.encode() not in everything
    assert event.answer_delivered.salt not in everything
    assert event.answer_delivered.salt.hex().encode() not in everything


async def test_an_erased_partition_leaves_records_and_proofs_whole(world):
    call_id = new_call_id()
    intent = make_intent(call_id)
    async with world.open() as audit:
        index = (await audit.append(intent)).index
        await published(audit, index + 1)
    for path in sorted((world.data / "payloads").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    for path in world.data.glob("index.sqlite*"):
        path.unlink()  # and the index made again afterwards
    for path in sorted((world.data / "wal").glob("*.wal"))[:-1]:
        path.unlink()
    async with world.open() as audit:
        assert len(await audit.records("acme", call_id=call_id)) == 1
        outcome = await audit.append(make_outcome(call_id))
        check_receipt(outcome.receipt, world.vkey, answer=ANSWER)


async def test_the_intake_is_bounded(world):
    async with world.open(intake_events_max=10) as audit:
        answers = await audit.append_many([make_outcome() for _ in range(30)])
        refused = [a for a in answers if isinstance(a, Refusal)]
        assert {(a.reason, a.retry_after_ms) for a in refused} == {(Reason.OVERLOADED, 50)}
        assert len(refused) == 20
        assert isinstance(await audit.append(make_outcome()), Appended)


async def test_waiting_payloads_are_bounded(world):
    big = Payload(released="x" * 40_000)
    async with world.open(intake_bytes_max=100_000, payload_bytes_max=50_000) as audit:
        answers = await audit.append_many([make_outcome(payload=big) for _ in range(5)])
        assert [isinstance(a, Appended) for a in answers] == [True, True, False, False, False]
        assert answers[-1].reason is Reason.OVERLOADED
        again = await audit.append_many([make_outcome(payload=big) for _ in range(2)])
        assert all(isinstance(answer, Appended) for answer in again)
        with pytest.raises(Refusal, match="INVALID_FIELD payload"):
            await audit.append(make_outcome(payload=Payload(released="x" * 50_001)))


def written(path):
    """How many bytes of a file are in use; none, if it was dropped just now."""
    try:
        return len(path.read_bytes().rstrip(b"\0"))
    except FileNotFoundError:
        return 0


async def test_the_write_ahead_log_is_emptied_even_when_nothing_happens(world):
    wal = world.data / "wal"
    async with world.open(segment_age_max_s=0.05) as audit:
        await audit.append_many([make_outcome() for _ in range(50)])
        await published(audit, 51)
        await until(lambda: all(written(path) <= 100 for path in wal.iterdir()))
    async with world.open() as audit:
        await audit.append(make_outcome())


@pytest.mark.parametrize(
    "where", [("wal", "append"), ("receipts", "make"), ("publisher", "wake")], ids=" ".join
)
async def test_a_bug_in_the_writer_closes_the_log_and_leaves_nobody_waiting(
    world, monkeypatch, where
):
    """Before the disk, while the disk works, and after it."""

    def broken(*_):
        raise RuntimeError

    part, method = where
    async with world.open() as audit:
        monkeypatch.setattr(getattr(audit._parts, part), method, broken)
        answers = await audit.append_many([make_outcome() for _ in range(3)])
        assert {answer.reason for answer in answers} == {Reason.AUDIT_DOWN}
        with pytest.raises(Refusal, match="AUDIT_DOWN"):
            await audit.append(make_outcome())
        monkeypatch.undo()


async def test_a_batch_is_one_group_and_what_comes_meanwhile_the_next(world, monkeypatch):
    groups, disk = [], HeldDisk()
    async with world.open(disk) as audit:
        write = audit._parts.wal.append

        def noted(entries):
            groups.append(len(entries))
            return write(entries)

        monkeypatch.setattr(audit._parts.wal, "append", noted)
        with disk.held():
            answers = asyncio.gather(
                audit.append_many([make_outcome() for _ in range(20)]),
                *(audit.append(make_outcome()) for _ in range(40)),
            )
            await until(lambda: audit.stats.waiting == 60)
        await answers
    assert groups == [20, 40]


async def test_the_commit_duration_is_the_disks_and_not_the_leaves(world, monkeypatch):
    late_s = 0.0

    def slow(*given):
        nonlocal late_s
        late_s += 1_000
        return leaf_bytes(*given)

    clock = SimpleNamespace(time_ns=time.time_ns, perf_counter=lambda: time.perf_counter() + late_s)
    async with world.open() as audit:
        monkeypatch.setattr("audit.log.intake.leaf_bytes", slow)
        monkeypatch.setattr("audit.log.intake.time", clock)
        before = histograms()["audit.fsync"].total
        await audit.append(make_outcome())
        assert late_s
        assert histograms()["audit.fsync"].total - before < 1_000


async def test_closing_waits_for_events_whose_callers_went_away(world):
    event, disk = make_outcome(), HeldDisk()
    async with world.open(disk) as audit:
        disk.go.clear()
        leaving = asyncio.create_task(audit.append(event))
        await until(lambda: audit.stats.waiting == 1)
        leaving.cancel()
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.05, disk.go.set)  # while the log is closed
    async with world.open() as audit:
        assert len(await audit.records("acme", call_id=event.call_id)) == 1


async def test_acks_go_on_while_lock_and_signer_are_away_and_publishing_catches_up(
    world, memory_lock
):
    world.lock = memory_lock
    async with world.open() as audit:
        await published(audit, 1)
        memory_lock.down = True
        appended = [await audit.append(make_outcome()) for _ in range(20)]
        await asyncio.sleep(0.1)
        assert (await audit.checkpoint()).size < appended[-1].index
        assert len(await audit.records("acme", call_id=appended[-1].receipt.call_id)) == 1
        memory_lock.down = False
        await published(audit, appended[-1].index + 1)


async def test_a_lost_answer_of_the_lock_is_made_up_for(world, memory_lock):
    world.lock = memory_lock
    async with world.open() as audit:
        memory_lock.lose_answers = 3
        for _ in range(5):
            appended = await audit.append(make_outcome())
            await published(audit, appended.index + 1)
    assert memory_lock.lose_answers == 0


async def test_the_backlog_is_bounded(world, memory_lock):
    world.lock = memory_lock
    async with world.open(backlog_events_max=30) as audit:
        memory_lock.down = True
        answers = [await audit.append_many([make_outcome()]) for _ in range(60)]
        assert {a.reason for (a,) in answers if isinstance(a, Refusal)} == {Reason.AUDIT_DOWN}
        assert 25 <= sum(isinstance(a, Appended) for (a,) in answers) <= 30
        memory_lock.down = False
        await published(audit, audit.stats.durable)
        await audit.append(make_outcome())


async def test_another_writers_checkpoint_in_the_lock_ends_this_one(world):
    async with world.open() as audit:
        await published(audit, 1)
        stranger = SqliteLock(world.folder / "lock.sqlite")
        await stranger.replace(await stranger.load(), "somebody else's")
        async with asyncio.timeout(10):
            # The publisher finds out in its own time.
            while isinstance(answer := (await audit.append_many([make_outcome()]))[0], Appended):
                await asyncio.sleep(0.01)
        assert answer.reason is Reason.EVIDENCE_LOST


async def test_a_caller_that_goes_away_leaves_its_event_durable(world):
    event = make_outcome()
    async with world.open() as audit:
        leaving = asyncio.create_task(audit.append(event))
        await asyncio.sleep(0)
        leaving.cancel()
        again = await audit.append(event)
        assert [r.index for r in await audit.records("acme", call_id=event.call_id)] == [
            again.index
        ]


async def test_the_receipt_key_is_in_the_log(world):
    async with world.open() as audit:
        outcome = await audit.append(make_outcome())
        leaf = audit.parts.leaf(0).decode()
    assert '"action":"receipt.key"' in leaf
    assert b64encode(outcome.receipt.key).decode() in leaf


async def test_an_index_of_another_log_or_damaged_inside_is_made_again(world, tmp_path):
    (tmp_path / "other").mkdir()
    other = World(tmp_path / "other")
    calls = {}
    for each in (world, other):
        async with each.open() as audit:
            calls[each] = [await call(audit) for _ in range(20)]
    index = world.data / "index.sqlite"
    sound = (other.data / "index.sqlite").read_bytes()
    for content in (sound, index.read_bytes()[:4_096] + os.urandom(40_000)):
        index.write_bytes(content)
        async with world.open() as audit:
            for _, outcome in calls[world]:
                assert len(await audit.records("acme", call_id=outcome.receipt.call_id)) == 2
            for _, outcome in calls[other]:
                assert await audit.records("acme", call_id=outcome.receipt.call_id) == ()


async def test_a_lost_index_is_made_again(world):
    async with world.open() as audit:
        calls = [await call(audit) for _ in range(300)]
        await published(audit, 601)
    for path in world.data.glob("index.sqlite*"):
        path.write_bytes(b"not a database" * 100)
    async with world.open(segment_age_max_s=0.001) as audit:
        for intent, outcome in calls[:3]:
            found = await audit.records("acme", call_id=outcome.receipt.call_id)
            assert [record.index for record in found] == [intent.index, outcome.index]
        opened = await audit.payload("acme", calls[0][1].index)
        assert opened.payload.released == ANSWER
