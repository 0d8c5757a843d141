"""The log and its witnesses: what is published, what waits, and what ends the log for good."""

import asyncio
import json
import shutil
import time
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from audit.cosigning.witnesses import policy_for_auditors
from audit.log.signer import MemorySigner
from audit.witness.keys import WitnessKeys
from meshkit.contract import Refusal
from meshkit.counters import counters, gauges
from meshkit.tlog import (
    LogKeys,
    NoteInvalid,
    Policy,
    VerifierKey,
    check_log,
    cosignature_line,
    cosignature_message,
    judge_checkpoint,
    open_checkpoint,
    parse_add_checkpoint,
    split_note,
)
from tests.audit.witness_world import (
    MemoryLog,
    WitnessProcess,
    make_certificates,
    policy_lines,
    running,
    until,
)
from tests.audit.world import ORIGIN, make_event, make_outcome


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory, certificates):
    """Two witnesses on what might be two hosts; tests may kill one, and start it again."""
    two = [
        WitnessProcess(tmp_path_factory.mktemp(f"w{n}"), f"witness.example/{n}", certificates)
        for n in (0, 1)
    ]
    with running(*(one.start() for one in two)):
        yield two


@pytest.fixture
def up(pair):
    for one in pair:
        if one.process is None:
            one.start()
    return pair


def settings_for(world, pair, need=None, **more):
    """Have the witnesses know the log, under a key of this test; return the service's settings."""
    for one in pair:
        one.trust(world.vkey)
    path = world.folder / "witness-policy"
    path.write_text(policy_lines(*pair, need=need))
    return {
        "witness_policy": path,
        "witness_ca": pair[0].ca,
        "witness_required": True,
        "witness_timeout_ms": 10_000,  # this machine may be busy
        "witness_grace_ms": 5_000,
        "witness_rest_s": 0.05,
        **more,
    }


@pytest.fixture
def world(world, request):
    """A log with an origin of its own, for the witnesses outlive it."""
    world.signer = MemorySigner(f"{ORIGIN}/{request.node.name[:80]}")
    world.vkey = world.signer.vkey
    return world


def shipped(world):
    return Policy.parse((world.data / "policy").read_bytes())


def published(world):
    """The checkpoint on disk, judged by the policy that lies there for auditors."""
    return judge_checkpoint((world.log / "checkpoint").read_text(), shipped(world))


def at_least(audit, world, size):
    return lambda: audit.stats.published >= size and published(world)


async def test_a_published_checkpoint_bears_the_quorum_and_auditors_can_tell(world, up):
    async with world.open(**settings_for(world, up)) as audit:
        await audit.append(make_outcome())
        found = await until(at_least(audit, world, 2))
        assert found.quorum
        assert set(found.cosigned) == {"w0-ed", "w0-pq", "w1-ed", "w1-pq"}
        assert all(abs(time_s - time.time()) < 120 for time_s in found.cosigned.values())
        states = audit.witnesses.states
        assert [state.failing for state in states] == ["", ""]
        assert all(state.size == found.checkpoint.size for state in states)
        assert gauges()["audit.witness_quorum"] == 1
        assert gauges()["audit.witnesses_failing"] == 0
        served = await audit.checkpoint()
    assert open_checkpoint(served.note, shipped(world)) == served
    assert open_checkpoint(served.note, VerifierKey.parse(world.vkey)) == served
    bare = served.note.split("\n\n")[0] + "\n\n" + served.note.split("\n\n")[1].split("\n")[0]
    with pytest.raises(NoteInvalid, match="quorum"):
        open_checkpoint(bare + "\n", shipped(world))

    def read(path):
        return (world.log / path).read_bytes() if (world.log / path).exists() else None

    assert check_log(read, shipped(world)).origin == VerifierKey.parse(world.vkey).name


async def test_the_log_goes_on_where_it_was_after_a_restart(world, up):
    for _ in range(3):
        async with world.open(**settings_for(world, up)) as audit:
            await audit.append(make_outcome())
        assert published(world).quorum


async def test_a_rotated_log_key_is_cosigned_throughout_once_witnesses_know_it(world, up):
    async with world.open(**settings_for(world, up, checkpoint_key_look_s=0.02)) as audit:
        await audit.append(make_outcome())
        await until(at_least(audit, world, 2))
        old = shipped(world)
        world.signer.rotate()
        await until(lambda: len(shipped(world).logs) == 2)
        size = (await audit.append(make_outcome())).index + 1
        both = await until(at_least(audit, world, size))
        assert both.quorum
        assert judge_checkpoint(both.checkpoint.note, old).quorum  # by those who know no better
        for one in up:
            one.trust(*audit.vkey.split("\n"))
        world.signer.retire()
        await until(lambda: len(shipped(world).logs) == 1)
        size = (await audit.append(make_outcome())).index + 1
        alone = await until(at_least(audit, world, size))
        assert alone.quorum
        with pytest.raises(NoteInvalid, match="not signed by a log"):
            judge_checkpoint(alone.checkpoint.note, old)


async def test_checkpoints_wait_for_a_killed_witness_and_acks_do_not(world, up):
    async with world.open(**settings_for(world, up)) as audit:
        await audit.append(make_outcome())
        before = await until(at_least(audit, world, 2))
        up[1].kill()
        appended = [await audit.append(make_outcome()) for _ in range(5)]
        await until(lambda: gauges()["audit.witness_quorum"] == 0)
        noted = before.checkpoint.size + len(appended) + 1  # the note of it is among them
        await until(lambda: audit.stats.durable >= noted)
        assert published(world).checkpoint == before.checkpoint
        assert [state.failing for state in audit.witnesses.states] == ["", "unreachable"]
        up[1].start()
        found = await until(at_least(audit, world, appended[-1].index + 1))
        assert found.quorum
        await until(at_least(audit, world, audit.stats.durable))
        leaves = audit._parts.store.entries(0, audit.stats.published)
    events = [json.loads(leaf)["event"] for leaf in leaves]
    down = [event for event in events if event.get("action") == "witness.down"]
    assert [event["detail"]["quorum"] for event in down][:2] == ["lost", "held"]


async def test_without_must_checkpoints_go_on_and_the_alarm_is_raised(world, up):
    settings = settings_for(world, up, witness_required=False)
    up[0].kill()
    async with world.open(**settings) as audit:
        await audit.append(make_outcome())
        found = await until(at_least(audit, world, 3))
        assert not found.quorum
        assert gauges()["audit.witness_quorum"] == 0
        up[0].start()

        async def held():
            """The witness is asked about the next checkpoint, if by then it has rested."""
            await audit.append(make_outcome())
            return published(world).quorum

        await until(held)


async def test_one_of_two_is_enough_where_policy_says_so(world, up):
    settings = settings_for(world, up, need=1, witness_rest_s=60)
    up[0].kill()
    async with world.open(**settings) as audit:
        for size in (2, 3, 4):
            await audit.append(make_outcome())
            assert (await until(at_least(audit, world, size))).quorum


async def test_a_quiet_log_is_cosigned_again(world, up):
    settings = settings_for(world, up, witness_refresh_s=0.01, segment_age_max_s=0.05)
    async with world.open(**settings) as audit:
        first = await until(at_least(audit, world, 1))
        await until(lambda: published(world).cosigned["w0-ed"] > first.cosigned["w0-ed"])
        assert published(world).checkpoint.size == audit.stats.published
        assert published(world).quorum


async def test_a_crash_between_lock_and_publishing_is_mended(world, up):
    """The witnesses know of a larger tree than what is published: the lock does, too."""
    settings = settings_for(world, up)
    async with world.open(**settings) as audit:
        await audit.append(make_outcome())
    kept = world.folder / "kept"
    shutil.copytree(world.data, kept)
    async with world.open(**settings, publish_interval_ms=60_000) as audit:
        await audit.append(make_outcome())
        wal = {path: path.read_bytes() for path in (world.data / "wal").iterdir()}
    # As if the process had died before the checkpoint was put in place.
    newer = published(world).checkpoint
    shutil.copy(kept / "log" / "checkpoint", world.log / "checkpoint")
    for path in (world.data / "wal").iterdir():
        path.unlink()
    for path, data in wal.items():
        path.write_bytes(data)
    async with world.open(**settings) as audit:
        assert published(world).checkpoint.size >= newer.size or audit.stats.durable >= newer.size
    assert published(world).quorum


async def test_log_and_lock_put_back_together_are_caught_by_a_witness(world, up):
    settings = settings_for(world, up, need=1)
    async with world.open(**settings) as audit:
        await audit.append(make_outcome())
    kept = world.folder / "kept"
    shutil.copytree(world.data, kept)
    shutil.copy(world.folder / "lock.sqlite", kept / "lock.sqlite")
    async with world.open(**settings) as audit:
        await audit.append(make_outcome())
    shutil.rmtree(world.data)
    shutil.copytree(kept, world.data)
    shutil.copy(kept / "lock.sqlite", world.folder / "lock.sqlite")
    before = counters().get("audit.witness.contradicts", 0)
    with pytest.raises(Refusal, match="EVIDENCE_LOST"):
        async with world.open(**settings):
            pass
    assert counters()["audit.witness.contradicts"] > before
    (theirs, *_) = (world.data / "evidence").glob("*.theirs")
    (ours, *_) = (world.data / "evidence").glob("*.ours")
    key = VerifierKey.parse(world.vkey)
    larger = open_checkpoint(theirs.read_text(), key)
    assert larger.size > open_checkpoint(ours.read_text(), key).size


async def stopped(audit):
    try:
        await audit.append(make_event(action="service.start"))
    except Refusal as refusal:
        return refusal.reason.name == "EVIDENCE_LOST"
    return False


async def test_of_two_writers_under_one_key_one_is_cosigned_and_one_stops_for_good(world, up):
    """Each has a lock of its own, as after a copy of the whole host; the witness is one."""
    settings = settings_for(world, up[:1])
    async with world.open(**settings) as audit:
        await audit.append(make_outcome())
    twin = type(world)(world.folder / "twin")
    twin.folder.mkdir()
    shutil.copytree(world.data, twin.data)
    shutil.copy(world.folder / "lock.sqlite", twin.folder / "lock.sqlite")
    twin.signer, twin.sealer = world.signer, world.sealer
    # Both come up while the witness is away: neither can know of the other.
    up[0].kill()
    async with world.open(**settings) as one, twin.open(**settings) as other:
        await one.append(make_outcome())
        await other.append(make_outcome())
        up[0].start()

        async def decided():
            return [await stopped(one), await stopped(other)].count(True) == 1

        await until(decided)
        assert published(twin if await stopped(one) else world).quorum


async def test_a_policy_about_another_log_or_in_the_clear_ends_the_start(world, tmp_path, up):
    settings = settings_for(world, up)
    path = settings["witness_policy"]
    sound = path.read_text()
    for bad, why in (
        (f"log {MemoryLog('other.example').vkey}\n{sound}", "another log"),
        (sound.replace("https://127.0.0.1", "http://192.0.2.1"), "https"),
        (sound.replace(up[0].url, ""), "no URL"),
        (sound.replace("quorum quorum", "quorum nobody"), "not defined"),
    ):
        path.write_text(bad)
        with pytest.raises(ValueError, match=why):
            async with world.open(**settings):
                pass


async def test_without_witnesses_auditors_get_a_policy_all_the_same(world):
    async with world.open() as audit:
        await audit.append(make_outcome())
    assert shipped(world).quorum == "none"
    assert open_checkpoint((world.log / "checkpoint").read_text(), shipped(world)).size == 2


def test_keys_of_before_a_rotation_stay_in_what_auditors_get():
    old, new = MemoryLog().vkey, MemoryLog().vkey
    other = MemoryLog("other.example").vkey
    policy = Policy(logs=(old, other), witnesses=())
    assert policy_for_auditors(policy, LogKeys((new,))).logs == (new, old)


# --- witnesses that lie -------------------------------------------------------------------------


class Liar:
    """A witness in this process that can be told what to answer."""

    def __init__(self, folder):
        self.keys = WitnessKeys.make(folder, "liar.example/w")
        self.url = ""
        self.answer = None

    async def add(self, request):
        asked = parse_add_checkpoint(await request.read())
        return await self.answer(asked)

    @asynccontextmanager
    async def serving(self):
        application = web.Application()
        application.router.add_post("/add-checkpoint", self.add)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield
        finally:
            await runner.cleanup()


@pytest.fixture
async def liar(tmp_path):
    one = Liar(tmp_path / "liar")
    async with one.serving():
        yield one


def lines(keys, text, time_s=None):
    return keys.cosign(text, int(time.time()) if time_s is None else time_s)


def wrong_signature(keys, asked):
    good = lines(keys, asked.text).splitlines(keepends=True)
    key = keys.vkeys[1]
    bad = cosignature_line(key, int(time.time()), bytes(2_420))
    return good[0] + bad


def of_another_log(keys, asked):
    return lines(keys, asked.text.replace(asked.origin, "other.example/log"))


def of_an_older_checkpoint(keys, asked):
    return lines(keys, MemoryLog(asked.origin).text(3))


def of_long_ago(keys, asked):
    return lines(keys, asked.text, 1_700_000_000)


def by_a_stranger(keys, asked):
    stranger = WitnessKeys(keys.name, Ed25519PrivateKey.generate(), MLDSA44PrivateKey.generate())
    return lines(stranger, asked.text)


def under_another_time(keys, asked):
    """A true signature, with its time stamp moved."""
    key = keys.vkeys[0]
    signature = keys.ed25519.sign(cosignature_message(key, asked.text, int(time.time())))
    return cosignature_line(key, int(time.time()) + 5, signature)


LIES = {
    wrong_signature: "wrong",
    of_another_log: "wrong",
    of_an_older_checkpoint: "wrong",
    under_another_time: "wrong",
    of_long_ago: "another_time",
    by_a_stranger: "unsigned",
    (lambda *_: ""): "wrong",
    (lambda *_: "hello\n"): "wrong",
    (lambda _keys, asked: f"\n\n{asked.note}"): "wrong",
    (lambda *_: "x" * 100_000): "too_long",
}


async def test_no_lie_reaches_the_note(world, liar):
    path = world.folder / "policy"
    path.write_text(policy_lines(liar))
    told = []

    async def lie(asked):
        return web.Response(text=told[-1](liar.keys, asked))

    async def status(code, body=""):
        return web.Response(status=code, text=body)

    liar.answer = lie
    told.append(wrong_signature)
    settings = {"witness_policy": path, "witness_rest_s": 0, "witness_timeout_ms": 5_000}
    async with world.open(**settings) as audit:
        for tell, kind in LIES.items():
            told.append(tell)
            size = (await audit.append(make_outcome())).index + 1
            await until(lambda size=size: audit.stats.published >= size)
            await until(lambda kind=kind: audit.witnesses.states[0].failing == kind)
            note = (world.log / "checkpoint").read_text()
            assert len(split_note(note)[1]) == 1, kind
            assert not published(world).quorum
        for code, body, kind in (
            (500, "", "status"),
            (403, "", "status"),
            (409, "many\n", "wrong"),
            (409, "0\n", "undecided"),
            (302, "", "status"),
            (422, "", "status"),  # with an old size of 0 it makes no sense
        ):
            liar.answer = lambda _asked, code=code, body=body: status(code, body)
            size = (await audit.append(make_outcome())).index + 1
            await until(lambda size=size: audit.stats.published >= size)
            await until(lambda kind=kind: audit.witnesses.states[0].failing == kind)

        async def honest(asked):
            return web.Response(text=lines(liar.keys, asked.text))

        liar.answer = honest
        await audit.append(make_outcome())
        await until(lambda: published(world).quorum)


async def test_a_witness_that_hangs_costs_its_timeout_and_no_more(world, liar, up):
    """Beside one that answers: the quorum of one holds, and nobody waits for the other."""
    settings = settings_for(
        world, [up[0]], witness_grace_ms=1, witness_rest_s=60, witness_timeout_ms=1_000
    )
    both = [up[0], liar]
    settings["witness_policy"].write_text(policy_lines(*both, need=1))
    asked = asyncio.Event()

    async def hang(_asked):
        asked.set()
        await asyncio.sleep(30)

    liar.answer = hang
    async with world.open(**settings) as audit:
        await audit.append(make_outcome())
        found = await until(at_least(audit, world, 2))
        assert found.quorum
        assert set(found.cosigned) == {"w0-ed", "w0-pq"}
    assert asked.is_set()


async def test_a_witness_far_away_is_heard_though_the_quorum_never_waits_for_it(world, liar, up):
    """The near one may be in the hands of whoever put the log back; the far one knows."""
    settings = settings_for(world, [up[0]], witness_grace_ms=1, witness_timeout_ms=5_000)
    settings["witness_policy"].write_text(policy_lines(up[0], liar, need=1))
    told, opened = ["cosigned"], []

    async def far(asked):
        for audit in opened:  # the answer comes when nobody waits for it any more
            await until(lambda audit=audit: audit.stats.published >= asked.size)
        if told[-1] == "larger":
            return web.Response(status=409, body=b"1000000\n")
        return web.Response(text=lines(liar.keys, asked.text))

    liar.answer = far
    async with world.open(**settings) as audit:
        started = audit.witnesses.states[1].size
        assert started >= 0  # at the start it is waited for
        opened.append(audit)
        size = (await audit.append(make_outcome())).index + 1
        await until(at_least(audit, world, size))
        await until(lambda: audit.witnesses.states[1].size > started)
        told.append("larger")

        await until(lambda: stopped(audit))
    opened.clear()
    with pytest.raises(Refusal, match="EVIDENCE_LOST"):
        async with world.open(**settings):
            pass


async def test_a_witness_that_claims_a_larger_log_ends_it_unproven(world, liar):
    """Whoever is in the policy can do that; what it cannot show is no evidence."""
    path = world.folder / "policy"
    path.write_text(policy_lines(liar))

    async def larger(_asked):
        return web.Response(status=409, body=b"1000000\n")

    liar.answer = larger
    with pytest.raises(Refusal, match="EVIDENCE_LOST"):
        async with world.open(witness_policy=path):
            pass
    assert not (world.data / "evidence").exists()
    assert (world.log / "checkpoint").exists()
