"""The mirror: what is published is found again in the object store, whole, and only added to."""

import asyncio
import shutil
import sqlite3

import obstore
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from obstore.store import MemoryStore

from audit.mirror.copier import Mirror, mirrored_checkpoint
from audit.mirror.files import LogFile, LogFiles, files_of
from audit.mirror.objects import StorePlace, newest_numbered, open_store, put_once
from audit.settings import AuditSettings
from meshkit.contract import Reason, Refusal
from meshkit.counters import counters, gauges
from meshkit.tlog import (
    Edge,
    LogKeys,
    VerifierKey,
    bundle_path,
    check_log,
    encode_bundle,
    entry_hashes,
    tiles_of,
)
from tests.audit.world import ORIGIN, World, make_event, make_outcome

FAST = {"mirror_interval_ms": 100}


async def until(holds, limit_s=30):
    async with asyncio.timeout(limit_s):
        while not holds():
            await asyncio.sleep(0.02)


async def settle(audit):
    await until(lambda: audit.stats.published == audit.stats.durable)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def mirrored(world: World, folder):
    """Opens the world's log with its mirror."""
    return lambda **changes: world.open(mirror_url=str(folder), **FAST | changes)


async def fill(audit, count):
    answers = await audit.append_many([make_event() for _ in range(count)])
    assert not [answer for answer in answers if isinstance(answer, Refusal)]
    await settle(audit)


def checkpoints(folder):
    found = (folder / ORIGIN / "checkpoints").glob("*")
    return sorted(path.name for path in found if path.name.isdecimal())


def copied(folder, target):
    """A copy as an auditor takes it home: the log's folder, and the newest checkpoint in it."""
    shutil.copytree(folder / ORIGIN / "log", target)
    newest = folder / ORIGIN / "checkpoints" / checkpoints(folder)[-1]
    shutil.copy(newest, target / "checkpoint")
    return target


def verified(folder, vkey):
    def read(path):
        file = folder / path
        return file.read_bytes() if file.exists() else None

    paths = [p.relative_to(folder).as_posix() for p in (folder / "tile").rglob("*") if p.is_file()]
    return check_log(read, vkey, paths)


async def test_a_copy_of_the_mirror_verifies(world, mirrored, folder, tmp_path) -> None:
    async with mirrored() as audit:
        for count in (300, 5, 600):
            await fill(audit, count)
            await until(lambda: checkpoints(folder)[-1:] == [f"{audit.stats.published:020d}"])
        size = audit.stats.published
        await until(lambda: gauges()["audit.mirror.lag_events"] == 0)

    found = verified(copied(folder, tmp_path / "copy"), world.vkey)
    assert found.size >= size > 900
    store = open_store(StorePlace(url=str(folder)))
    newest = await mirrored_checkpoint(store, LogKeys.parse(world.vkey))
    assert newest.size == found.size


async def test_a_log_without_a_mirror_writes_nothing(world, folder) -> None:
    async with world.open() as audit:
        await fill(audit, 3)
    assert not folder.exists()
    assert not (world.data / "mirror.sqlite").exists()


async def test_switched_on_late_it_catches_up_and_copies_nothing_twice(
    world, mirrored, folder, tmp_path
) -> None:
    async with world.open() as audit:
        await fill(audit, 1_000)
    async with mirrored() as audit:
        await until(lambda: checkpoints(folder))
    assert verified(copied(folder, tmp_path / "copy"), world.vkey).size > 1_000
    before = counters()["audit.mirror.copied"]
    async with mirrored() as audit:
        await fill(audit, 1)
    # An edge of two levels and a bundle for each checkpoint, of those that are: no full file again.
    assert counters()["audit.mirror.copied"] - before < 20


async def test_an_outage_costs_no_ack_shows_as_lag_and_is_made_up_for(
    world, mirrored, folder, tmp_path
) -> None:
    folder.mkdir()
    (folder / ORIGIN.partition("/")[0]).write_text("in the way of every write")
    failed = counters().get("audit.mirror.failed", 0)
    async with mirrored() as audit:
        await fill(audit, 700)
        await until(lambda: counters().get("audit.mirror.failed", 0) > failed + 2)
        await until(lambda: gauges()["audit.mirror.lag_events"] >= 700)
        assert gauges()["audit.mirror.lag_s"] > 0
        (folder / ORIGIN.partition("/")[0]).unlink()
        await until(lambda: gauges()["audit.mirror.lag_events"] == 0)
        assert gauges()["audit.mirror.lag_s"] == 0
    assert verified(copied(folder, tmp_path / "copy"), world.vkey).size > 700


async def test_a_store_that_cannot_be_reached_stops_no_log(world) -> None:
    async with world.open(
        mirror_url="s3://nowhere", mirror_timeout_ms=200, mirror_credentials=_dead(world), **FAST
    ) as audit:
        await fill(audit, 3)


def _dead(world):
    path = world.folder / "credentials.json"
    path.write_text(
        '{"endpoint": "http://127.0.0.1:1", "access_key_id": "k", "secret_access_key": "s"}'
    )
    return path


async def test_other_bytes_in_the_store_are_evidence_and_are_not_written_over(
    world, mirrored, folder
) -> None:
    planted = folder / ORIGIN / "log" / "tile" / "0" / "000"
    planted.parent.mkdir(parents=True)
    planted.write_bytes(b"another history")
    seen = counters().get("audit.mirror.conflict", 0)
    async with mirrored() as audit:
        await fill(audit, 300)
        await until(lambda: counters().get("audit.mirror.conflict", 0) == seen + 1)
        await fill(audit, 1)  # the log itself goes on
    assert planted.read_bytes() == b"another history"
    assert all(int(size) < 256 for size in checkpoints(folder)), "none above what is not ours"


async def test_no_checkpoint_is_there_before_all_that_it_covers(world, mirrored, folder) -> None:
    """The last tile of a tree cannot be written: then neither is the checkpoint above it."""
    async with world.open() as audit:
        await fill(audit, 600)
        top = [LogFile(*each) for each in tiles_of(audit.stats.published)][-1]
    blocked = folder / ORIGIN / "log" / top.path
    blocked.mkdir(parents=True)
    failed = counters().get("audit.mirror.failed", 0)
    async with mirrored():
        await until(lambda: counters().get("audit.mirror.failed", 0) > failed + 1)
        assert not (folder / ORIGIN / "checkpoints").exists()


async def test_disk_and_lock_put_back_together_are_told_by_the_mirror(
    world, mirrored, folder, tmp_path
) -> None:
    async with mirrored() as audit:
        await fill(audit, 10)
    shutil.copytree(world.data, tmp_path / "yesterday")
    shutil.copy(world.folder / "lock.sqlite", tmp_path / "yesterday.lock")
    async with mirrored() as audit:
        await fill(audit, 10)
    shutil.rmtree(world.data)
    shutil.copytree(tmp_path / "yesterday", world.data)
    shutil.copy(tmp_path / "yesterday.lock", world.folder / "lock.sqlite")
    before = checkpoints(folder)

    with pytest.raises(Refusal) as refused:
        async with mirrored():
            pass
    assert refused.value.reason is Reason.EVIDENCE_LOST
    assert checkpoints(folder) == before, "no second history in the mirror"
    async with world.open() as audit:  # without it, nobody on this host could tell
        await fill(audit, 1)


async def test_nonsense_in_the_store_stops_no_log_but_the_mirror(world, mirrored, folder) -> None:
    name = folder / ORIGIN / "checkpoints" / f"{10**12:020d}"
    name.parent.mkdir(parents=True)
    name.write_text("no checkpoint of anybody's\n")
    seen = counters().get("audit.mirror.conflict", 0)
    async with mirrored() as audit:
        await fill(audit, 2)
    assert counters()["audit.mirror.conflict"] == seen + 1
    assert checkpoints(folder) == [name.name]


async def test_payloads_are_copied_only_where_told_so_and_in_pieces(
    world, mirrored, folder
) -> None:
    async with mirrored() as audit:
        await audit.append(make_outcome())
        await settle(audit)
    assert not (folder / ORIGIN / "payloads").exists()
    async with mirrored(mirror_payloads=True) as audit:
        await until(lambda: _joined(folder) == _stored(world) != {})  # that one is a piece
        for _ in range(2):
            await audit.append(make_outcome())
            await audit.parts.mover.catch_up()  # its payload has come into a file
            await until(lambda: _joined(folder) == _stored(world))
    assert len(list((folder / ORIGIN / "payloads").rglob("*@*"))) >= 3


def _stored(world):
    root = world.data / "payloads"
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*.sealed")}


def _joined(folder):
    root, joined = folder / ORIGIN / "payloads", {}
    for piece in sorted(root.rglob("*@*")) if root.exists() else ():
        name = piece.relative_to(root).as_posix().partition("@")[0]
        joined[name] = joined.get(name, b"") + piece.read_bytes()
    return joined


async def test_a_lost_cursor_is_found_again_in_the_store(world, mirrored, folder) -> None:
    async with mirrored() as audit:
        await fill(audit, 600)
    for path in world.data.glob("mirror.sqlite*"):
        path.unlink()
    before = counters()["audit.mirror.copied"]
    async with mirrored() as audit:
        await fill(audit, 1)
    assert counters()["audit.mirror.copied"] - before < 20


async def test_what_was_erased_since_it_was_copied_is_no_other_history(
    world, mirrored, folder
) -> None:
    """The cursor is lost (or a crash came before its note), so all pieces are written again."""
    async with mirrored(mirror_payloads=True) as audit:
        for _ in range(3):
            await audit.append(make_outcome())
        await audit.parts.mover.catch_up()
        await until(lambda: _joined(folder) == _stored(world) != {})
        store = audit.parts.payloads
        frames = [frame for part in store.partitions() for frame in store.frames(part)]
        await audit.parts.mover.taking_away(lambda: store.blank([frames[1].place]))
    kept = _joined(folder)
    for path in world.data.glob("mirror.sqlite*"):
        path.unlink()
    seen = counters().get("audit.mirror.conflict", 0)
    async with mirrored(mirror_payloads=True) as audit:
        await audit.append(make_outcome())
        await settle(audit)
        await until(lambda: len(_joined(folder)) > len(kept))
    assert counters().get("audit.mirror.conflict", 0) == seen
    assert {name: _joined(folder)[name] for name in kept} == kept


async def test_payloads_of_another_history_end_the_mirror(world, mirrored, folder) -> None:
    async with mirrored(mirror_payloads=True) as audit:
        await audit.append(make_outcome())
        await audit.parts.mover.catch_up()
        await until(lambda: _joined(folder) == _stored(world) != {})
    (piece,) = (folder / ORIGIN / "payloads").rglob("*@*")
    piece.write_bytes(bytes(piece.stat().st_size))  # zeros there, where text is here
    for path in world.data.glob("mirror.sqlite*"):
        path.unlink()
    seen = counters().get("audit.mirror.conflict", 0)
    async with mirrored(mirror_payloads=True):
        await until(lambda: counters().get("audit.mirror.conflict", 0) == seen + 1)


def test_another_store_or_log_begins_from_nothing(world, tmp_path) -> None:
    world.data.mkdir()
    for url in ("one", "two"):
        config = AuditSettings(data_dir=world.data, mirror_url=str(tmp_path / url))
        mirror = Mirror(config, MemoryStore(), lambda: LogKeys.parse(world.vkey))
        assert mirror._noted() is None
        mirror._note(512)
        mirror._note_payload("a", 5)
        assert mirror._noted() == 512
    with sqlite3.connect(world.data / "mirror.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM payloads").fetchone() == (1,)


# --- the parts ------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 70_000), st.integers(0, 70_000))
def test_files_since_a_full_size_and_those_before_are_all_files(one: int, two: int) -> None:
    since, size = sorted((one // 256 * 256, two))
    whole = set(files_of(size))
    before, rest = list(files_of(since, partial=False)), list(files_of(size, since=since))
    assert len(before) + len(rest) == len(whole)
    assert {*before, *rest} == whole
    tiles = {(file.level, file.number, file.width) for file in whole if file.level is not None}
    assert tiles == set(tiles_of(size))
    assert {file.path for file in whole if file.level is None} == {
        bundle_path(number, min(256, size - number * 256)) for number in range(-(-size // 256))
    }


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 1_500), st.data())
def test_files_of_a_smaller_tree_come_out_of_those_of_a_larger_one(
    tmp_path_factory, size: int, data
) -> None:
    small = data.draw(st.integers(1, size))
    entries = [b"%d" % number for number in range(size)]
    folder = tmp_path_factory.mktemp("log")
    reader = LogFiles(folder, VerifierKey(ORIGIN, bytes(32)))
    edge, tiles = Edge().grown(entry_hashes(entries[:small]))
    expected = dict(tiles) | _bundles(entries[:small])
    _written(folder, expected)
    _, more = edge.grown(entry_hashes(entries[small:]))
    _written(folder, dict(more) | _bundles(entries))
    for full in [path for path in folder.rglob("*") if path.is_file() and ".p/" not in str(path)]:
        shutil.rmtree(f"{full}.p", ignore_errors=True)  # as the publisher does

    assert {file.path: reader.read(file) for file in files_of(small)} == expected
    assert reader.root(small) == edge.root()


def _bundles(entries):
    return {
        bundle_path(at // 256, len(entries[at : at + 256])): encode_bundle(entries[at : at + 256])
        for at in range(0, len(entries), 256)
    }


def _written(folder, files):
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


async def test_an_object_is_written_once() -> None:
    store = MemoryStore()
    await put_once(store, "a", b"one")
    await put_once(store, "a", b"one")
    with pytest.raises(Refusal) as refused:
        await put_once(store, "a", b"two")
    assert refused.value.reason is Reason.EVIDENCE_LOST
    assert bytes((await obstore.get_async(store, "a")).bytes()) == b"one"


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(0, 2**63 - 1), max_size=8))
def test_the_newest_is_found_among_any(numbers: set[int]) -> None:
    store = MemoryStore()
    for number in numbers:
        obstore.put(store, f"log/checkpoints/{number:020d}", b"")
    obstore.put(store, "log/checkpoints/readme", b"")
    found = asyncio.run(newest_numbered(store, "log/checkpoints"))
    assert found == max(numbers, default=None)


@pytest.mark.parametrize("url", ["ftp://somewhere", "s3://"])
def test_a_url_that_is_no_store_is_told_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="object store"):
        open_store(StorePlace(url=url))
