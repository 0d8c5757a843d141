"""Backups of a log that is being written, over a real OpenBao; restores, refusals, recoveries."""

import asyncio
import errno
import io
import json
import os
import shutil
import sqlite3
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import pytest_asyncio

from appliance import backup as backups
from appliance.age import AgeInvalid, Identity, opened, sealed
from appliance.backup import BackupOrder, create
from appliance.backup_check import pieces_of, unpacked, verify
from appliance.backup_openbao import OperatorApi
from appliance.backup_restore import RestoreOrder, restore
from appliance.backup_tar import MANIFEST, BackupInvalid, Packer, read_members
from appliance.bootstrap import BootstrapSettings, prepared
from appliance.openbao import OpenBaoSettings, openbao
from appliance.recovering import begin_anew, fill_log
from audit.log.epoch import origin_of
from audit.log.locks import SqliteLock
from audit.log.signer import MemorySigner
from audit.log.wal import sound_bytes
from audit.mirror.objects import StorePlace, open_store
from audit.records.spool import record
from meshkit.contract import Reason, Refusal
from meshkit.tlog import LogInvalid, check_log, parse_checkpoint
from tests.audit.world import ANSWER, World, make_event, make_outcome

KEY = Identity.generate()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def openbao_folder(tmp_path_factory):
    """A real OpenBao that all backups here take a snapshot of."""
    folder = tmp_path_factory.mktemp("bao")
    async with openbao(OpenBaoSettings(data=folder)) as bao:
        async with prepared(bao, BootstrapSettings(tenants=("acme",))):
            pass
        yield folder


@pytest.fixture
def world(tmp_path, openbao_folder):
    """A log in `data/audit`, and that OpenBao beside it."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "openbao").symlink_to(openbao_folder)
    return World(data)


@pytest.fixture
def order(world, tmp_path):
    return BackupOrder(data=world.folder, out=str(tmp_path / "out"), recipients=[KEY.recipient])


def file_of(order, made):
    return f"{order.out}/{made.name}"


def again(world, folder):
    """The same keys, over another folder."""
    other = World(folder)
    other.signer, other.sealer, other.lock = world.signer, world.sealer, world.lock
    other.vkey = world.vkey
    return other


@asynccontextmanager
async def load(audit):
    """Appends that go on meanwhile; what was acknowledged, by index."""
    acked = {}

    async def keep_appending():
        while True:
            event = make_outcome()
            acked[(await audit.append(event)).index] = event
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(keep_appending()) for _ in range(8)]
    try:
        yield acked
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def restored(world, order, made, folder, lock=None):
    await restore(
        RestoreOrder(
            pieces=pieces_of(file_of(order, made)),
            opener=KEY,
            into=folder / "audit",
            vkey=world.vkey,
            audit_only=True,
        )
    )
    other = again(world, folder)
    other.lock = lock or world.lock
    return other


@pytest.fixture
def snapshots_lock(world, tmp_path, monkeypatch):
    """The lock as it was when OpenBao's snapshot was taken: what a restored OpenBao would hold."""
    taken = tmp_path / "lock-of-snapshot.sqlite"
    real = OperatorApi.snapshot

    async def snapshot(self, into):
        await real(self, into)
        taken.unlink(missing_ok=True)
        with sqlite3.connect(world.folder / "lock.sqlite") as source:
            source.backup(sqlite3.connect(taken))

    monkeypatch.setattr(OperatorApi, "snapshot", snapshot)
    return SqliteLock(taken)


async def test_a_backup_under_load_is_one_moment(world, order, tmp_path, snapshots_lock) -> None:
    """Restored with the lock of the same snapshot, the log goes on: nothing it promised is torn."""
    async with (
        world.open(segment_bytes_max=1 << 16, segment_age_max_s=0.05) as audit,
        load(audit) as acked,
    ):
        for _ in range(3):
            made = await create(order)
            shutil.rmtree(tmp_path / "r", ignore_errors=True)
            (tmp_path / "r").mkdir()
            other = await restored(world, order, made, tmp_path / "r", snapshots_lock)
            await goes_on(other, made, acked)


async def goes_on(other, made, acked):
    """What was promised up to the backup's end is there, and opens; the rest was never there."""
    async with other.open() as back:
        end = back.stats.durable - 2  # the restore itself and a receipt key are two
        assert end >= made.size
        for index in {*range(1, end, max(1, end // 20)), end - 1} & acked.keys():
            assert (await back.append(acked[index])).index == index
            assert (await back.payload("acme", index)).payload.released == ANSWER
    assert verified(other) > end


def verified(world):
    def read(path):
        file = world.log / path
        return file.read_bytes() if file.exists() else None

    return check_log(read, world.vkey).size


async def test_an_older_log_under_the_live_lock_does_not_start(world, order, tmp_path) -> None:
    """Test 7 of the issue: a disk put back, the lock newer."""
    async with world.open() as audit:
        await audit.append_many([make_event() for _ in range(20)])
        made = await create(order)
        await audit.append_many([make_event() for _ in range(20)])
    held = await world.lock.load()
    other = await restored(world, order, made, tmp_path / "r")
    for _ in range(3):
        with pytest.raises(Refusal) as refused:
            async with other.open():
                pass
        assert refused.value.reason is Reason.EVIDENCE_LOST
    assert await world.lock.load() == held, "no forked checkpoint was ever signed"


async def test_the_event_comes_before_the_backup_and_without_it_there_is_none(
    world, order, tmp_path
) -> None:
    async with world.open() as audit:
        made = await create(order)
        await until_published(audit)
        (leaf,) = [leaf for leaf in leaves(world) if leaf["action"] == "backup.make"]
        assert leaf["detail"]["sha256"] == made.sha256
    Path(file_of(order, made)).unlink()
    late = BackupOrder(data=order.data, out=order.out, recipients=order.recipients, record_s=0.2)
    with pytest.raises(Refusal) as refused:  # nobody records
        await create(late)
    assert refused.value.reason is Reason.AUDIT_DOWN
    assert list((tmp_path / "out").iterdir()) == []
    assert list((world.data / "pending").iterdir()) == []
    assert [path for path in world.folder.iterdir() if path.name.startswith(".")] == []


async def until_published(audit):
    async with asyncio.timeout(30):
        while audit.stats.published < audit.stats.durable:
            await asyncio.sleep(0.01)


def leaves(world):
    from meshkit.tlog import bundle_path, decode_bundle

    size = parse_checkpoint((world.log / "checkpoint").read_text()).size
    assert size <= 256
    raw = (world.log / bundle_path(0, size)).read_bytes()
    return [json.loads(leaf)["event"] for leaf in decode_bundle(raw, size)]


async def test_a_full_disk_leaves_no_backup(world, order, tmp_path, monkeypatch) -> None:
    real = os.fsync

    def full(handle):
        if ".part" in str(Path(f"/proc/self/fd/{handle}").readlink()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    async with world.open():
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            await create(order)
    assert list((tmp_path / "out").iterdir()) == []


async def test_keys_rotated_meanwhile_have_the_snapshot_taken_again(
    world, order, monkeypatch
) -> None:
    versions = iter([1, 2, 2, 2])

    async def moving(self):
        return {"t-acme": next(versions)}

    monkeypatch.setattr(OperatorApi, "key_versions", moving)
    async with world.open():
        await create(order)
        versions = iter(range(100))
        with pytest.raises(BackupInvalid, match="rotated"):
            await create(order)


async def test_a_backup_goes_to_an_object_store_and_comes_back(world, order, tmp_path) -> None:
    at = BackupOrder(data=order.data, out=f"file://{tmp_path}/store", recipients=order.recipients)
    async with world.open() as audit:
        await audit.append(make_outcome())
        made = await create(at)
    url = f"file://{tmp_path}/store/{made.name}"
    assert verify(pieces_of(url), KEY, vkey=world.vkey).size == made.size
    with pytest.raises(LogInvalid):
        verify(pieces_of(url), KEY, vkey=MemorySigner("another.example/log").vkey)


async def test_what_is_restored_is_checked_before_it_has_a_name(world, order, tmp_path) -> None:
    async with world.open() as audit:
        await audit.append(make_outcome())
        made = await create(order)
    raw = b"".join(pieces_of(file_of(order, made)))
    inner = bytearray(b"".join(opened([raw], KEY)))
    inner[inner.index(b'"released"') + 1] ^= 1  # somebody with the public key sealed another one
    forged = b"".join(sealed([bytes(inner)], [KEY.recipient]))
    target = tmp_path / "r" / "audit"
    for pieces, opener in (([forged], KEY), ([raw], Identity.generate()), ([raw[:-9]], KEY)):
        with pytest.raises((AgeInvalid, BackupInvalid)):
            await restore(
                RestoreOrder(pieces=iter(pieces), opener=opener, into=target, audit_only=True)
            )
        assert list((tmp_path / "r").iterdir()) == []
    target.mkdir()
    (target / "evidence").write_text("of what happened")
    with pytest.raises(BackupInvalid, match="not empty"):
        await restore(RestoreOrder(pieces=iter([raw]), opener=KEY, into=target, audit_only=True))
    with pytest.raises(BackupInvalid, match="seal key"):
        await restore(RestoreOrder(pieces=iter([raw]), opener=KEY, into=tmp_path / "x"))


async def test_the_secrets_that_open_everything_stay_out(world, order, tmp_path) -> None:
    (world.folder / "tls").mkdir()
    (world.folder / "tls" / "client.key").write_text("made anew")
    (world.data / "keys").mkdir(parents=True)
    (world.data / "keys" / "wrapped.json").write_text("a wrapped key")
    with sqlite3.connect(world.data / "holds.sqlite") as holds:
        holds.execute("CREATE TABLE holds (name TEXT)")
        holds.execute("INSERT INTO holds VALUES ('a hold')")
    async with world.open() as audit:
        await audit.append(make_outcome())
        made = await create(order)
    folder = tmp_path / "all"
    folder.mkdir()
    unpacked(pieces_of(file_of(order, made)), KEY, folder)
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"audit/keys/wrapped.json", "audit/holds.sqlite", "openbao/raft.snap"} <= names
    assert not [name for name in names if "seal.key" in name or "init.json" in name]
    assert not [name for name in names if name.startswith("tls/") or "index.sqlite" in name]
    with sqlite3.connect(folder / "audit" / "holds.sqlite") as holds:
        assert holds.execute("SELECT name FROM holds").fetchall() == [("a hold",)]


# --- going on after a loss --------------------------------------------------------------------


async def lost(world, order, tmp_path, *, late):
    """A restored log, its lock younger than it, and a mirror of all that was published."""
    mirror = str(tmp_path / "mirror")
    settings = {"mirror_url": mirror, "mirror_interval_ms": 100}
    events = [make_outcome() for _ in range(40)]
    async with world.open(**settings) as audit:
        await audit.append_many(events[:20])
        await until_published(audit)
        made = await create(order)
        if late:
            await audit.append_many(events[20:])
    return await restored(world, order, made, tmp_path / "r"), mirror, events


async def test_the_mirror_fills_the_gap_and_the_log_goes_on(world, order, tmp_path) -> None:
    other, mirror, events = await lost(world, order, tmp_path, late=True)
    store = open_store(StorePlace(url=mirror))
    done = await fill_log(other.data, other.signer, other.lock, store)
    assert done.size >= done.found + 20
    async with other.open(mirror_url=mirror) as audit:
        answers = await audit.append_many(events)
        assert max(answer.index for answer in answers) < done.size, "each has its first place"
        opened_one = await audit.payload("acme", answers[0].index)
        assert opened_one.payload.released == ANSWER
        with pytest.raises(Refusal) as gone:  # after the backup: the leaf is back, the text is not
            await audit.payload("acme", answers[-1].index)
        assert gone.value.reason is Reason.NOT_FOUND
    assert verified(other) > done.size
    with pytest.raises(BackupInvalid, match="nothing"):
        await fill_log(other.data, other.signer, other.lock, store)


async def test_a_mirror_with_another_history_fills_nothing(world, order, tmp_path) -> None:
    other, mirror, _ = await lost(world, order, tmp_path, late=True)
    bundles = sorted((tmp_path / "mirror").rglob("tile/entries/**/[0-9]*"))
    newest = max((path for path in bundles if path.is_file()), key=lambda path: int(path.name))
    raw = bytearray(newest.read_bytes())
    raw[-30] ^= 1
    newest.write_bytes(raw)
    held = await other.lock.load()
    with pytest.raises(Refusal) as refused:
        await fill_log(other.data, other.signer, other.lock, open_store(StorePlace(url=mirror)))
    assert refused.value.reason is Reason.EVIDENCE_LOST
    assert await other.lock.load() == held


async def test_a_mirror_behind_the_lock_does_not_pass_for_all_there_was(
    world, order, tmp_path
) -> None:
    other, mirror, _ = await lost(world, order, tmp_path, late=True)
    async with world.open() as audit:  # published, and not mirrored
        await audit.append_many([make_event() for _ in range(5)])
    store = open_store(StorePlace(url=mirror))
    with pytest.raises(BackupInvalid, match="were published"):
        await fill_log(other.data, other.signer, other.lock, store)
    with pytest.raises(Refusal):
        async with other.open():
            pass


class Found:
    """`appliance.recovering.Stopped`, with a signer and a lock of this test."""

    def __init__(self, world):
        self.data, self.lock, self._signers = world.folder, world.lock, {}
        self._signers[world.vkey.partition("+")[0]] = world.signer

    async def signer(self):
        origin = origin_of(self.data / "audit", "audit.example")
        origin = origin.replace("audit.example/audit", "audit.example/log")
        return self._signers.setdefault(origin, MemorySigner(origin))


async def test_a_new_log_begins_with_what_the_old_one_was(world, order, tmp_path) -> None:
    other, _, events = await lost(world, order, tmp_path, late=True)
    last = parse_checkpoint((await other.lock.load()).note)
    found = Found(other)
    done = await begin_anew(found, "disk and mirror lost in a fire, ticket 4711")
    assert done.origin == "audit.example/log/2"
    other.signer = await found.signer()
    old_vkey, other.vkey = other.vkey, other.signer.vkey
    async with other.open() as audit:
        assert (await audit.append(events[0])).index > 0
        await until_published(audit)
    first = leaves(other)[0]
    if first["action"] == "backup.restore":  # left by the restore, before the recovery
        first = leaves(other)[1]
    assert first["action"] == "log.recovery"
    assert first["detail"]["old_size"] == str(last.size)
    assert first["detail"]["old_root"] == last.root.hex()
    assert "fire" in first["detail"]["reason"]
    old = again(other, tmp_path)
    old.log, old.vkey = other.data / "old" / "1" / "log", old_vkey
    assert verified(old) == int(first["detail"]["old_kept"])


async def test_a_reason_is_wanted_and_a_log(world) -> None:
    async with world.open():
        pass
    for reason in ("", "x" * 201, "line\nbreak"):
        with pytest.raises(BackupInvalid, match="reason"):
            await begin_anew(Found(world), reason)


# --- the parts --------------------------------------------------------------------------------


def packed(*files, also=()):
    lines = io.BytesIO()
    packer = Packer(lines)
    raw = b"".join(piece for name, content in files for piece in packer.data(name, content))
    for name, content in also:  # in the stream, but not in the manifest
        raw += b"".join(Packer(io.BytesIO()).data(name, content))
    return raw + b"".join(packer.end())


def read(raw):
    return [member.name for member in read_members(iter([raw]), lambda _: None, io.BytesIO())]


FILES = (("a/b", b"one"), ("c", bytes(5_000)))


def test_a_stream_holds_what_its_manifest_says() -> None:
    assert read(packed(*FILES)) == ["a/b", "c"]
    assert read(packed()) == []


def test_a_changed_file_an_extra_one_and_a_missing_one_are_told() -> None:
    raw = bytearray(packed(*FILES))
    raw[512] ^= 1
    with pytest.raises(BackupInvalid, match="line 1"):
        read(bytes(raw))
    with pytest.raises(BackupInvalid, match="does not name"):
        read(packed(*FILES, also=(("d", b"smuggled in"),)))
    whole = packed(*FILES)
    with pytest.raises(BackupInvalid, match="line"):
        read(whole[1024:])
    with pytest.raises(BackupInvalid):
        read(whole[: whole.index(MANIFEST.encode())])


@pytest.mark.parametrize("name", ["/etc/passwd", "../up", "a/../../b"])
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    with pytest.raises(BackupInvalid, match="no plain file"):
        read(packed((name, b"x")))


async def test_a_segment_is_read_up_to_its_last_whole_group(world) -> None:
    async with world.open(publish_interval_ms=60_000) as audit:
        for _ in range(5):
            await audit.append(make_event())
        path = max((world.data / "wal").glob("*.wal"))
        data = path.read_bytes()
    whole = sound_bytes(data)
    assert 0 < whole < len(data)
    assert sound_bytes(data[:whole]) == whole
    assert sound_bytes(data[: whole - 1]) < whole
    torn = bytearray(data)
    torn[whole - 1] ^= 1
    assert sound_bytes(bytes(torn)) < whole
    assert sound_bytes(b"") == 0


async def test_the_spool_takes_an_event_once_and_nothing_else(world) -> None:
    pending = world.data / "pending"
    async with world.open() as audit:
        await asyncio.to_thread(record, world.data, "backup.make", {"size": "1"}, 10)
        assert list(pending.iterdir()) == []
        (pending / "ab.json").write_text('{"action": "subject.erase"}')
        async with asyncio.timeout(10):
            while list(pending.glob("*.json")):
                await asyncio.sleep(0.02)
        await until_published(audit)
        assert [leaf["action"] for leaf in leaves(world)].count("backup.make") == 1
        assert "subject.erase" not in [leaf["action"] for leaf in leaves(world)]


def test_the_module_says_its_format() -> None:
    assert backups.FORMAT == "sealgate-backup/1"
