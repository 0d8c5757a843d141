"""A monitor: silent about a sound log, and loud about each way in which one may lie."""

import argparse
import asyncio
import json
import shutil
from contextlib import asynccontextmanager

import httpx2
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.log.disk import Disk
from audit.log.publisher import signed_note
from audit.log.signer import MemorySigner
from audit.log.storage import LogStore
from audit.monitor.sources import FolderSource, HttpSource, UnreachableError
from audit.monitor.state import MonitorState, Open, StateInvalidError
from audit.monitor.watch import Limits, Monitor
from audit.witness.keys import WitnessKeys
from meshkit.tlog import (
    Edge,
    Policy,
    VerifierKey,
    checkpoint_text,
    decode_bundle,
    encode_bundle,
    entry_hashes,
    leaf_hash,
    split_note,
)
from sealgate.cli.audit import add_parser
from tests.audit.world import ORIGIN, make_intent, make_outcome

NOW = 1_800_000_000.0


class Log:
    """A log on disk that a test grows, forks and damages."""

    def __init__(self, folder, signer=None):
        self.folder = folder
        self.signer = signer or MemorySigner(ORIGIN)
        self.store = LogStore(Disk(), folder, VerifierKey.parse(self.signer.vkey))
        self.store.load()

    async def grow(self, *leaves):
        tree = self.store.plan(leaves)
        note = await signed_note(self.signer, checkpoint_text(ORIGIN, tree.size, tree.root))
        self.store.apply(tree)
        self.store.publish(tree, note)
        self.store.prune(tree)
        return note

    @property
    def policy(self):
        return Policy.of_log(VerifierKey.parse(self.signer.vkey))


class Clock:
    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now


class Counting(FolderSource):
    """Counts what is read, to show that only new files are."""

    def __init__(self, folder):
        super().__init__(folder)
        self.paths = []

    async def read(self, path):
        self.paths.append(path)
        return await super().read(path)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log(tmp_path):
    return Log(tmp_path / "log")


def watch(log, clock, **limits):
    return Monitor(
        Counting(log.folder), log.policy, MonitorState(), limits=Limits(**limits), clock=clock
    )


def again(monitor, log, clock, **limits):
    """The next run: nothing but the state file is left of the one before."""
    state = MonitorState.loads(monitor.state.dumps())
    return Monitor(Counting(log.folder), log.policy, state, limits=Limits(**limits), clock=clock)


def kinds(alarms):
    return [alarm.kind for alarm in alarms]


def leaf(number=0, phase="outcome", received_s=NOW, **log):
    told = {
        "event": {"call_id": f"{number:032x}", "phase": phase},
        "log": {"received_us": int(received_s * 1_000_000), **log},
    }
    return json.dumps(told).encode()


def plain(start, count):
    return [leaf(number) for number in range(start, start + count)]


async def test_a_sound_log_is_followed_in_silence_and_read_once(log, clock):
    await log.grow(*plain(0, 300))
    monitor = watch(log, clock)
    assert await monitor.look() == []
    assert monitor.state.edge.size == 300
    for start, count in ((300, 1), (301, 210), (511, 1), (512, 1), (513, 700)):
        await log.grow(*plain(start, count))
        monitor = again(monitor, log, clock)
        assert await monitor.look() == []
        assert (monitor.state.size, monitor.state.edge.size) == (start + count, start + count)
        bundles = {p.split(".")[0] for p in monitor._source.paths if "entries" in p}
        assert len(bundles) <= -(-(start + count) // 256) - start // 256
    assert await again(monitor, log, clock).look() == []


async def test_a_split_view_is_noticed_with_the_next_checkpoint(log, tmp_path, clock):
    """Test 9 of the fault list: another tree, signed by the same key, is shown to the monitor."""
    await log.grow(*plain(0, 260))
    shutil.copytree(log.folder, tmp_path / "fork")
    fork = Log(tmp_path / "fork", log.signer)
    monitor = watch(log, clock)
    assert await monitor.look() == []
    await log.grow(*plain(260, 5))
    assert await monitor.look() == []
    for count in (5, 6):  # the same size, then a larger one
        await fork.grow(*plain(900, count))
        other = again(monitor, fork, clock)
        (alarm,) = await other.look()
        assert (alarm.kind, alarm.breaks, alarm.size) == ("fork", True, fork.store.published.size)
        assert other.state.root == log.store.published.root, "what was believed stays believed"
        assert other.refused == fork.store.published.note
    assert await again(monitor, log, clock).look() == []


async def test_a_service_without_tiles_proves_that_it_grew(log, tmp_path, clock):
    """As over gRPC: checkpoints and proofs, and the same fork is found."""
    await log.grow(*plain(0, 40))
    shutil.copytree(log.folder, tmp_path / "fork")
    fork = Log(tmp_path / "fork", log.signer)

    class Service(FolderSource):
        tiles = False

        def __init__(self, log):
            super().__init__(log.folder)
            self.log = log

        async def read(self, path):
            assert path == "checkpoint"
            return await super().read(path)

        async def consistency(self, old, new):
            from meshkit.tlog import TileHashes, consistency_proof

            return consistency_proof(TileHashes(self.log.store, new), old, new)

    await log.grow(*plain(40, 10))
    monitor = Monitor(Service(log), log.policy, MonitorState(), limits=Limits(), clock=clock)
    assert await monitor.look() == []
    await log.grow(*plain(50, 9))
    assert await monitor.look() == []
    await fork.grow(*plain(400, 30))
    forked = Monitor(Service(fork), log.policy, monitor.state, limits=Limits(), clock=clock)
    assert kinds(await forked.look()) == ["fork"]


async def test_a_log_put_back_is_noticed(log, clock):
    await log.grow(*plain(0, 30))
    kept = (log.folder / "checkpoint").read_bytes()
    await log.grow(*plain(30, 30))
    monitor = watch(log, clock)
    assert await monitor.look() == []
    (log.folder / "checkpoint").write_bytes(kept)
    (alarm,) = await again(monitor, log, clock).look()
    assert (alarm.kind, alarm.breaks) == ("shrunk", True)


async def test_an_entry_that_is_not_the_one_logged_is_named(log, clock):
    await log.grow(*plain(0, 300))
    monitor = watch(log, clock)
    assert await monitor.look() == []
    await log.grow(*plain(300, 300))
    path = log.folder / "tile/entries/001"
    sound = path.read_bytes()
    entries = decode_bundle(sound, 256)
    entries[320 - 256] = leaf(7_000)
    path.write_bytes(encode_bundle(entries))
    (alarm,) = await again(monitor, log, clock).look()
    assert (alarm.kind, alarm.index) == ("entry", 320)
    # Together with its tile: then the root speaks against both.
    (log.folder / "tile/0/001").write_bytes(b"".join(entry_hashes(entries)))
    (alarm,) = await again(monitor, log, clock).look()
    assert alarm.kind == "fork"
    # To who sees the log for the first time, there is no older checkpoint to contradict them.
    assert kinds(await watch(log, clock).look()) == ["fork"]
    path.write_bytes(sound[:-1])
    assert kinds(await again(monitor, log, clock).look()) in (["entry"], ["fork"])
    path.unlink()
    assert kinds(await again(monitor, log, clock).look()) in (["entry"], ["fork"])


async def test_a_damaged_or_foreign_checkpoint_is_no_checkpoint(log, tmp_path, clock):
    note = await log.grow(*plain(0, 5))
    monitor = watch(log, clock)
    path = log.folder / "checkpoint"
    other = Log(tmp_path / "other")
    foreign = await other.grow(*plain(0, 5))
    for bad in (note.replace("\n5\n", "\n6\n"), "", "hello\n", foreign, note[:-9]):
        path.write_text(bad)
        assert kinds(await monitor.look()) == ["signature"], bad
    path.write_bytes(b"\xff\xfe")
    assert kinds(await monitor.look()) == ["signature"]
    path.unlink()
    assert kinds(await monitor.look()) == ["unreachable"]
    path.write_text(note)
    assert await monitor.look() == []


async def test_a_call_begun_and_not_ended_is_told_once(log, clock):
    await log.grow(leaf(1, "intent"), leaf(2, "intent"), leaf(2, "outcome"), leaf(3, "intent"))
    monitor = watch(log, clock, open_intent_s=60, stalled_s=0)
    assert await monitor.look() == []
    assert set(monitor.state.open) == {f"{1:032x}", f"{3:032x}"}
    await log.grow(leaf(3, "outcome"), b"not JSON", b'{"event":1}', leaf(4, "note"))
    clock.now += 61
    monitor = again(monitor, log, clock, open_intent_s=60, stalled_s=0)
    (alarm,) = await monitor.look()
    assert (alarm.kind, alarm.index, alarm.call_id) == ("open_intent", 0, f"{1:032x}")
    assert not alarm.breaks
    assert await monitor.look() == []


@pytest.mark.parametrize("received", ["1" + "0" * 400, "NaN", "Infinity", '"soon"', "[]", "-1"])
async def test_a_time_that_is_none_ends_no_monitor_and_hides_no_call(log, clock, received):
    odd = leaf(1, "intent").replace(b'"received_us": %d' % (NOW * 1_000_000), b'"received_us": X')
    strange = leaf(2, "intent").replace(f'"{2:032x}"'.encode(), b'["' + b"x" * 60_000 + b'"]')
    assert b"X" in odd
    await log.grow(odd.replace(b"X", received.encode()), strange)
    (alarm,) = await watch(log, clock, open_intent_s=60).look()
    assert (alarm.kind, alarm.call_id) == ("open_intent", f"{1:032x}")


async def test_flagged_clocks_are_told_with_the_first_entry(log, clock):
    await log.grow(leaf(1), leaf(2, skewed=True), leaf(3, skewed=True))
    (alarm,) = await watch(log, clock).look()
    assert (alarm.kind, alarm.index, alarm.count) == ("skew", 1, 2)


async def test_a_log_that_stands_still_is_told_and_one_that_moves_is_not(log, clock):
    await log.grow(*plain(0, 3))
    monitor = watch(log, clock, stalled_s=100)
    assert await monitor.look() == []
    clock.now += 99
    assert await monitor.look() == []
    clock.now += 2
    monitor = again(monitor, log, clock, stalled_s=100)
    assert kinds(await monitor.look()) == ["stalled"]
    await log.grow(leaf(9))
    assert await monitor.look() == []


async def test_cosignatures_say_how_old_a_checkpoint_is_and_whether_enough_saw_it(
    log, tmp_path, clock
):
    keys = WitnessKeys.make(tmp_path / "w", "w.example")
    names = "\n".join(
        f"witness {name} {key}" for name, key in zip(("ed", "pq"), keys.vkeys, strict=True)
    )
    policy = Policy.parse(f"log {log.signer.vkey}\n{names}\ngroup w all ed pq\nquorum w\n".encode())
    note = await log.grow(*plain(0, 3))
    path = log.folder / "checkpoint"

    def monitor(state=None):
        source, limits = FolderSource(log.folder), Limits(stalled_s=100)
        return Monitor(source, policy, state or MonitorState(), limits=limits, clock=clock)

    first = monitor()
    assert kinds(await first.look()) == ["quorum"]
    text = split_note(note)[0]
    path.write_text(note + keys.cosign(text, int(NOW) + 500))
    assert kinds(await first.look()) == ["skew"]  # the witness is ahead of us
    clock.now += 550
    assert await first.look() == []  # cosigned 50 seconds ago
    clock.now += 60
    assert kinds(await first.look()) == ["stalled"]
    path.write_text(note + keys.cosign(text.replace("\n3\n", "\n4\n"), int(clock.now)))
    assert kinds(await first.look()) == ["signature"]


# --- over HTTP, and as a program ---------------------------------------------------------------


@asynccontextmanager
async def files(folder):
    application = web.Application()
    application.router.add_static("/log", folder)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/log"
    finally:
        await runner.cleanup()


async def test_static_files_are_followed_as_a_folder_is(log, clock):
    await log.grow(*plain(0, 300))
    async with files(log.folder) as url, httpx2.AsyncClient() as client:
        monitor = Monitor(
            HttpSource(url, client), log.policy, MonitorState(), limits=Limits(), clock=clock
        )
        assert await monitor.look() == []
        await log.grow(*plain(300, 260))
        assert await monitor.look() == []
        assert monitor.state.edge.size == 560
    async with httpx2.AsyncClient() as client:
        with pytest.raises(UnreachableError):  # the server is gone
            await HttpSource(url, client).read("checkpoint")


def program(capsys, *words):
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    args = parser.parse_args(["audit", "monitor", *map(str, words)])
    code = args.run(args)
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_as_cron_runs_it(tmp_path, capsys):
    log = Log(tmp_path / "log")
    asyncio.run(log.grow(*plain(0, 20)))
    shutil.copytree(log.folder, tmp_path / "fork")
    fork = Log(tmp_path / "fork", log.signer)
    (tmp_path / "vkey").write_text(log.signer.vkey)
    (tmp_path / "policy").write_text(log.policy.text())
    state = tmp_path / "state.json"
    words = ("--state", state, "--once", "--vkey", tmp_path / "vkey")
    assert program(capsys, "--log", log.folder, *words) == (0, [])
    asyncio.run(log.grow(*plain(20, 4)))
    by_policy = (*words[:3], "--policy", tmp_path / "policy")
    assert program(capsys, "--log", log.folder, *by_policy) == (0, [])
    asyncio.run(fork.grow(*plain(500, 9)))
    code, (told,) = program(capsys, "--log", fork.folder, *words)
    assert (code, told["alarm"], told["breaks"]) == (1, "fork", True)
    assert (told["size"], told["believed_size"]) == (29, 24)
    (believed,) = tmp_path.glob("state.json.*.believed")
    (refused,) = tmp_path.glob("state.json.*.refused")
    assert (believed.read_text(), refused.read_text()) == (
        log.store.published.note, fork.store.published.note,
    )  # fmt: skip
    (log.folder / "checkpoint").unlink()
    assert program(capsys, "--log", log.folder, *words)[0] == 3
    for bad in (
        ("--log", tmp_path / "none", *words),
        ("--log", "localhost:1", *words),
        ("--log", log.folder, "--state", tmp_path / "vkey", "--once", "--vkey", tmp_path / "vkey"),
        ("--log", log.folder, *words[:3], "--policy", tmp_path / "vkey"),
    ):
        assert program(capsys, *bad)[0] == 2, bad


async def test_what_the_service_writes_is_sound_to_a_monitor(world, tmp_path):
    async with world.open() as audit:
        intent = make_intent()
        await audit.append(intent)
        await audit.append_many([make_outcome() for _ in range(300)])
    policy = Policy.parse((world.data / "policy").read_bytes())
    late = Clock()
    import time

    late.now = time.time() + 5_000
    monitor = Monitor(
        FolderSource(world.log), policy, MonitorState(), limits=Limits(stalled_s=0), clock=late
    )
    (alarm,) = await monitor.look()
    assert (alarm.kind, alarm.call_id) == ("open_intent", intent.call_id.hex())


# --- the state file ------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    st.lists(st.binary(max_size=40), max_size=600),
    st.dictionaries(st.text(max_size=8), st.tuples(st.integers(0, 99), st.floats(0, 9))),
    st.text(max_size=50),
)
def test_a_state_is_read_as_it_was_written(entries, calls, note):
    edge, _ = Edge().grown([leaf_hash(entry) for entry in entries])
    state = MonitorState(
        note=note,
        size=edge.size,
        root=edge.root(),
        first_seen_s=1.5,
        edge=edge,
        open={call: Open(*one) for call, one in calls.items()},
    )
    assert MonitorState.loads(state.dumps()) == state


@settings(deadline=None)
@given(st.binary(max_size=60) | st.sampled_from([b"{}", b"[]", b'{"version":1}', b"null"]))
def test_what_is_no_state_is_refused(data):
    with pytest.raises(StateInvalidError):
        MonitorState.loads(data)
