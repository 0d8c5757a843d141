"""Nothing acknowledged is lost and nothing is there twice, whatever fails and whenever."""

import asyncio
import errno
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from audit.log.wal import sound_bytes
from audit.records.events import parse_leaf
from meshkit.call_id import new_call_id
from meshkit.contract import Appended, Phase, Reason, Refusal
from meshkit.tlog import check_log
from tests.audit.powerloss import FailingDisk, MemoryDisk, NoFolderSync, NoSync
from tests.audit.world import MemoryLock, World, make_intent, make_outcome

ROOT = Path(__file__).parents[2]
SEEDS = range(1, 1 + int(os.environ.get("POWER_LOSS_SEEDS", "2")))
"""Some 18 power losses each; `python -m tests.soak power-loss` asks for more."""


def forget_index(world):
    for path in world.data.glob("index.sqlite*"):
        path.unlink()


def keys_in(audit):
    leaves = [parse_leaf(audit.parts.leaf(number)) for number in range(audit.stats.durable)]
    keys = [(leaf.call_id, leaf.phase) for leaf in leaves]
    assert len(set(keys)) == len(keys), "an event is there twice"
    return keys


def test_fifty_kills_under_load_lose_and_double_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.audit.killed", str(tmp_path), "50", "seed-1"],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2_000:]
    told = json.loads(done.stdout)
    assert told["kills"] == 50
    assert told["size"] >= told["acked"] > 300


# --- power loss ---------------------------------------------------------------------------------


async def load_with_snapshots(world, make_disk, seed, snapshots=18):
    """Append under load; at random effects keep what a power loss at that moment would leave.

    Of all those drawn some are kept, from all over the load: how many effects there are depends on
    how fast the publisher is beside the appender.
    """
    rng = random.Random(seed)
    acked, begun, kept = {}, [], []
    drawn = 0

    def on_effect(_name):
        nonlocal drawn
        if rng.random() < 0.12:
            drawn += 1
            place = len(kept) if drawn <= snapshots else rng.randrange(drawn)
            if place < snapshots:
                kept[place : place + 1] = [(disk.survivor(rng), world.lock.held, dict(acked))]

    disk = make_disk(on_effect)
    world.lock = MemoryLock()
    world.data.mkdir()  # the search index is a real file: losing it is a test of its own

    async def client(audit):
        for _ in range(25):
            call_id = new_call_id()
            for event in (make_intent(call_id), make_outcome(call_id)):
                begun.append(event)
                acked[event.call_id, event.phase] = await audit.append(event)

    async with world.open(disk, segment_bytes_max=20_000, segment_age_max_s=0.05) as audit:
        await asyncio.gather(*(client(audit) for _ in range(8)))
        await asyncio.sleep(0.05)
    return kept, begun


async def survives(world, survivor, held, acked, begun):
    """Start on what a power loss left; raise if anything acknowledged is not there once."""
    forget_index(world)
    world.lock = MemoryLock()
    world.lock.held = held
    async with world.open(survivor) as audit:
        for key, appended in acked.items():
            assert audit.stats.durable > appended.index, "an acknowledged event is lost"
            leaf = parse_leaf(audit.parts.leaf(appended.index))
            assert (leaf.call_id, leaf.phase) == key, "another event is at the index"
        repeated = await audit.append_many(begun)
        for event, answer in zip(begun, repeated, strict=True):
            assert isinstance(answer, Appended)
            first = acked.get((event.call_id, event.phase))
            assert first is None or first.index == answer.index, "a repeat has another index"
        assert {(event.call_id, event.phase) for event in begun} <= set(keys_in(audit))
        for key in list(acked)[:2]:
            if key[1] is Phase.OUTCOME:
                await audit.payload("acme", acked[key].index)

    def read(path):
        try:
            return survivor.read(world.log / path)
        except FileNotFoundError:
            return None

    assert check_log(read, world.vkey).size > len(begun)


@pytest.mark.parametrize("seed", SEEDS)
async def test_power_loss_at_any_moment_loses_and_doubles_nothing(world, seed):
    kept, begun = await load_with_snapshots(world, MemoryDisk, seed)
    assert len(kept) > 8  # of some 50 draws; 18 at most are kept
    for survivor, held, acked in kept:
        await survives(world, survivor, held, acked, begun)
    assert max(len(acked) for _, _, acked in kept) > 50


@pytest.mark.parametrize("mutant", [NoSync, NoFolderSync])
async def test_the_power_loss_test_notices_a_missing_fsync(world, mutant):
    kept, begun = await load_with_snapshots(world, mutant, 3)
    noticed = 0
    for survivor, held, acked in kept:
        try:
            await survives(world, survivor, held, acked, begun)
        except (AssertionError, Refusal):
            noticed += 1
    assert noticed > 3


# --- the disk refuses ---------------------------------------------------------------------------


async def insist(audit, event):
    """Append until it is taken; return how often it was refused."""
    for refused in range(50):
        (answer,) = await audit.append_many([event])
        if isinstance(answer, Appended):
            return refused
        assert answer.reason is Reason.AUDIT_DOWN
        await asyncio.sleep(0.005)
    raise AssertionError


async def test_each_effect_failing_once_costs_nothing_but_a_retry(world):
    """Effects are counted from the first, so some failures hit the start, which then is retried."""
    refusals = starts = 0
    refused = set()
    for fail_at in range(1, 400):
        world.data = world.folder / f"audit-{fail_at}"
        world.log = world.data / "log"
        world.lock = MemoryLock()
        disk = FailingDisk()
        disk.fail_at = fail_at
        events = [make_outcome() for _ in range(2)]
        try:
            async with world.open(disk, segment_bytes_max=1_000, segment_age_max_s=0.001) as audit:
                for event in events:
                    refusals += await insist(audit, event)
        except OSError:
            starts += 1
        except Refusal as refusal:  # the first NOTE's
            refused.add(refusal.reason)
            starts += 1
        async with world.open() as audit:
            again = await audit.append_many(events)
            assert all(isinstance(answer, Appended) for answer in again)
            assert len(keys_in(audit)) == audit.stats.durable
        read = lambda path: (world.log / path).read_bytes() if (world.log / path).exists() else None  # noqa: E731
        assert check_log(read, world.vkey).size >= 3
        if disk.effects < fail_at:
            break
    assert disk.effects < fail_at, "not every effect was made to fail"
    assert refused <= {Reason.AUDIT_DOWN}
    assert refusals > 3
    assert starts > 3


async def test_a_full_disk_closes_the_log_and_space_opens_it_again(world):
    disk = FailingDisk()
    async with world.open(disk) as audit:
        kept = [make_outcome() for _ in range(10)]
        before = await audit.append_many(kept)
        disk.full = errno.ENOSPC
        for _ in range(5):
            (refused,) = await audit.append_many([make_outcome()])
            assert refused.reason is Reason.AUDIT_DOWN
        disk.full = None
        (taken,) = await audit.append_many([make_outcome()])
        assert taken.index == before[-1].index + 1
    async with world.open() as audit:
        again = await audit.append_many(kept)
        assert [a.index for a in again] == [b.index for b in before]
        keys_in(audit)


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 1 MiB, half of it taken by a ballast file."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    (folder / "ballast").write_bytes(bytes(500_000))
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def test_a_really_full_disk_loses_nothing_and_goes_on_with_space(world, small_disk):
    world.data = small_disk / "audit"
    world.log = world.data / "log"
    acked, full = [], 0
    async with world.open(segment_bytes_max=50_000, segment_age_max_s=0.05) as audit:
        for _ in range(3_000):
            event = make_outcome()
            (answer,) = await audit.append_many([event])
            if isinstance(answer, Appended):
                acked.append((event, answer.index))
            else:
                assert answer.reason is Reason.AUDIT_DOWN
                full += 1
                if full > 20:
                    break
        assert full > 20
        (small_disk / "ballast").unlink()
        event = make_outcome()
        await insist(audit, event)
    async with world.open() as audit:
        again = await audit.append_many([event for event, _ in acked])
        assert [answer.index for answer in again] == [index for _, index in acked]
        assert (event.call_id, event.phase) in keys_in(audit)


# --- what must not be started -------------------------------------------------------------------


async def test_a_second_writer_is_refused_and_the_first_goes_on(world):
    async with world.open() as audit:
        with pytest.raises(Refusal, match="CONFLICT"):
            async with world.open():
                raise AssertionError
        await audit.append(make_outcome())
    async with world.open() as audit:
        keys_in(audit)


async def grow(world, count):
    async with world.open() as audit:
        await audit.append_many([make_outcome() for _ in range(count)])


def copy(source, target):
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


def swap(world, backup):
    subprocess.run(["rm", "-rf", str(world.data)], check=True)
    copy(backup, world.data)


async def test_a_disk_put_back_to_an_older_state_is_refused(world):
    await grow(world, 300)
    backup = world.folder / "yesterday"
    copy(world.data, backup)
    await grow(world, 300)
    today = world.folder / "today"
    copy(world.data, today)
    swap(world, backup)
    with pytest.raises(Refusal, match="EVIDENCE_LOST"):
        await grow(world, 1)
    swap(world, today)
    await grow(world, 1)


def remove(path):
    subprocess.run(["rm", "-rf", str(path)], check=True)


@pytest.mark.parametrize(
    "harm",
    [
        lambda w: remove(w.data),
        lambda w: remove(w.log),
        lambda w: remove(w.log / "checkpoint"),
        lambda w: remove(w.data / "wal"),
        lambda w: remove(w.folder / "lock.sqlite"),
        lambda w: remove(w.log / "tile/0/001.p"),
        lambda w: remove(w.log / "tile/1"),
        lambda w: remove(w.log / "tile/entries/001.p"),
    ],
    ids=["all", "log", "checkpoint", "wal", "lock", "partial-tile", "upper-tile", "bundle"],
)
async def test_missing_evidence_is_refused(world, harm):
    await grow(world, 300)
    harm(world)
    with pytest.raises(Refusal, match="EVIDENCE_LOST"):
        await grow(world, 1)


async def test_another_logs_disk_is_refused_by_the_lock(world, tmp_path):
    (tmp_path / "other").mkdir()
    other = World(tmp_path / "other")
    await grow(world, 5)
    other.signer = world.signer
    await grow(other, 5)
    swap(world, other.data)
    with pytest.raises(Refusal, match="EVIDENCE_LOST"):
        await grow(world, 1)


def groups_of(segment):
    """A segment without the zeros laid out behind its last group, which may itself end in one."""
    data = segment.read_bytes()
    return data[: sound_bytes(data)]


async def test_a_flipped_bit_in_the_write_ahead_log_is_refused(world):
    await grow(world, 20)
    (segment,) = (world.data / "wal").glob("*.wal")
    sound = groups_of(segment)  # behind the last group nothing is evidence
    rng = random.Random(5)
    for _ in range(40):
        data = bytearray(sound)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        segment.write_bytes(data)
        with pytest.raises(Refusal, match="EVIDENCE_LOST"):
            await grow(world, 1)
    segment.write_bytes(sound)
    await grow(world, 1)


async def test_damage_before_the_last_group_is_refused_even_if_nothing_was_published(world):
    """Only the last group can be torn; before it, all was acknowledged."""
    world.lock = lock = MemoryLock()
    async with world.open(publish_interval_ms=60_000) as audit:
        await audit.append(make_outcome())
        lock.down = True
        for _ in range(5):
            await audit.append(make_outcome())
    lock.down = False
    assert lock.held.note.split("\n")[1] in {"0", "1", "2"}
    (segment,) = (world.data / "wal").glob("*.wal")
    sound = groups_of(segment)
    groups = [at for at in range(len(sound)) if sound.startswith(b"\xffSGWAL1\n", at)]
    assert len(groups) > 5
    for at in groups[:-1]:
        segment.write_bytes(sound[: at + 100] + bytes([sound[at + 100] ^ 1]) + sound[at + 101 :])
        with pytest.raises(Refusal, match="EVIDENCE_LOST"):
            await grow(world, 1)
    # The last one cannot be told from a torn write, which nobody was promised.
    segment.write_bytes(sound[:-1])
    async with world.open() as audit:
        assert audit.stats.durable == len(groups) - 1 + 1  # the last is gone, a NOTE came


async def test_a_write_ahead_log_of_another_history_is_refused(world, tmp_path):
    (tmp_path / "other").mkdir()
    other = World(tmp_path / "other")
    other.signer = world.signer
    for each in (world, other):
        await grow(each, 5)
    remove(world.data / "wal")
    copy(other.data / "wal", world.data / "wal")
    with pytest.raises(Refusal, match="EVIDENCE_LOST"):
        await grow(world, 1)


async def test_a_lock_put_back_to_an_older_checkpoint_is_refused(world):
    await grow(world, 5)
    copy(world.folder / "lock.sqlite", world.folder / "old-lock.sqlite")
    await grow(world, 5)
    copy(world.folder / "old-lock.sqlite", world.folder / "lock.sqlite")
    with pytest.raises(Refusal, match="EVIDENCE_LOST"):
        await grow(world, 1)


@pytest.mark.parametrize("kind", ["tile/0/001.p", "tile/1/000.p", "tile/entries/001.p"])
async def test_a_flipped_bit_at_the_right_edge_is_refused(world, kind):
    await grow(world, 300)
    size = int((world.log / "checkpoint").read_text().split("\n")[1])
    path = world.log / kind / str(1 if kind == "tile/1/000.p" else size - 256)
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(data)
    with pytest.raises(Refusal, match="EVIDENCE_LOST"):
        await grow(world, 1)


async def test_a_flipped_bit_in_a_payload_is_noticed(world):
    async with world.open() as audit:
        index = (await audit.append(make_outcome())).index
        async with asyncio.timeout(10):
            # There is no event to wait for: a payload is moved when its time comes.
            while audit.stats.indexed <= index:
                await asyncio.sleep(0.01)
        (path,) = (world.data / "payloads").rglob("*.sealed")
        data = bytearray(path.read_bytes())
        data[-20] ^= 1
        path.write_bytes(data)
        with pytest.raises(Refusal, match="EVIDENCE_LOST"):
            await audit.payload("acme", index)
