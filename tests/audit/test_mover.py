"""What is moved by a process of its own: the same as by a thread, whatever happens to it."""

import asyncio
import errno
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from audit.log.disk import Disk
from audit.log.mover_process import MOVER_LOCK, MoverEndedError, MoverProcess
from audit.log.opening import _MOVER_WAIT_S
from audit.log.wal import Group
from audit.search.index import Index
from audit.search.questions import Question
from audit.search.rows import row_of
from meshkit.contract import Phase, Refusal
from meshkit.counters import counters
from tests.audit.witness_world import until
from tests.audit.world import make_intent, make_outcome

_AT_ONCE = {"mover_process_events": 1}


async def moved_by_process(audit):
    """Append until the process is what moves; return it."""
    process = audit.parts.mover.process
    async with asyncio.timeout(60):
        while not process.ready:
            await audit.append(make_outcome())
            await audit.parts.mover.catch_up()
            await asyncio.sleep(0.01)
    await audit.append(make_outcome())
    await audit.parts.mover.catch_up()
    return process


async def test_a_process_moves_what_a_thread_would(world):
    async with world.open(**_AT_ONCE) as audit:
        process = await moved_by_process(audit)
        thread, mine = audit.parts.payloads, []
        thread.add = mine.append  # whoever moves in this process would be seen
        outcomes = [make_outcome() for _ in range(300)]
        intents = [make_intent(each.call_id) for each in outcomes]
        both = [one for pair in zip(intents, outcomes, strict=True) for one in pair]
        appended = await audit.append_many(both)
        await audit.parts.mover.catch_up()
        assert not mine
        assert process.pid is not None
        assert audit.stats.indexed == audit.stats.durable
        assert not audit.parts.mover.rows
        for event, told in zip(both, appended, strict=True):
            assert (await audit.append(event)).index == told.index
        opened = await audit.payload("acme", appended[1].index)
        assert opened.payload == outcomes[0].payload
        question = Question(trace_id=outcomes[7].trace.trace_id)
        page = await audit.search("acme", question)
        assert [record.index for record in page.records] == [appended[15].index]
        assert audit.parts.index.find(outcomes[7].call_id, Phase.OUTCOME).payload
        running = process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(running, 0)
    async with world.open(mover_process_events=0) as audit:
        assert (await audit.append(both[5])).index == appended[5].index


async def test_a_process_that_is_killed_loses_and_doubles_nothing(world):
    kept = {}
    async with world.open(**_AT_ONCE) as audit:
        process = await moved_by_process(audit)
        before = counters().get("audit.mover_ended", 0)
        moving = asyncio.create_task(audit.parts.mover.catch_up())
        for number in range(400):
            event = make_outcome()
            kept[event.call_id] = (await audit.append(event)).index
            if number == 200:
                os.kill(process.pid, signal.SIGKILL)
        await moving
        await audit.parts.mover.catch_up()
        assert counters()["audit.mover_ended"] == before + 1
        assert process.pid is None  # a thread goes on, and for a while no other is begun
        found = [audit.parts.index.find(call, Phase.OUTCOME) for call in kept]
        assert [place.number for place in found] == list(kept.values())
        assert all([(await audit.payload("acme", number)).payload for number in kept.values()])


async def test_a_move_that_was_done_though_nobody_heard_of_it_is_not_done_again(world, monkeypatch):
    async with world.open(**_AT_ONCE) as audit:
        process = await moved_by_process(audit)
        ask = process.move

        def unheard(start, groups):
            ask(start, groups)
            process.end()
            raise MoverEndedError

        monkeypatch.setattr(MoverProcess, "move", lambda _, *asked: unheard(*asked))
        told = await audit.append(make_outcome())
        await audit.parts.mover.catch_up()
        assert audit.stats.indexed == told.index + 1


async def test_an_index_that_cannot_be_asked_how_far_it_is_is_asked_again(world, monkeypatch):
    """Else what the process put in would be put in twice: evidence lost, and the log closed."""
    async with world.open(**_AT_ONCE) as audit:
        await moved_by_process(audit)
        learn, failed = Index.refresh, []

        def failing(index):
            if not failed:
                failed.append(index)
                raise sqlite3.OperationalError
            learn(index)

        monkeypatch.setattr(Index, "refresh", failing)
        told = await audit.append(make_outcome())
        await until(lambda: audit.stats.indexed > told.index)
        assert failed
        assert audit.parts.mover.process.ready
        await audit.append(make_outcome())


async def test_one_that_is_stopped_is_given_up(world, monkeypatch):
    async with world.open(**_AT_ONCE) as audit:
        process = await moved_by_process(audit)
        stopped = process.pid
        os.kill(stopped, signal.SIGSTOP)
        monkeypatch.setattr("audit.log.mover_process._PATIENCE_S", 0.3)
        events = [make_outcome() for _ in range(50)]
        told = await audit.append_many(events)
        await audit.parts.mover.catch_up()
        assert process.pid is None
        with pytest.raises(ProcessLookupError):
            os.kill(stopped, 0)
        assert [audit.parts.index.find(e.call_id, e.phase).number for e in events] == [
            each.index for each in told
        ]


async def test_one_that_is_stopped_does_not_hold_up_the_end(world, monkeypatch):
    monkeypatch.setattr("audit.log.mover_process._PATIENCE_S", 40)
    async with world.open(**_AT_ONCE) as audit:
        stopped = (await moved_by_process(audit)).pid
        os.kill(stopped, signal.SIGSTOP)
        monkeypatch.setattr("audit.log.mover_process._HURRIED_S", 0.3)
        event = make_outcome()
        told = await audit.append(event)
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 30
    with pytest.raises(ProcessLookupError):
        os.kill(stopped, 0)
    async with world.open(mover_process_events=0) as audit:
        assert audit.parts.index.find(event.call_id, event.phase).number == told.index


async def test_one_that_stops_reading_is_given_up_too(world, monkeypatch):
    """An order may be larger than what a pipe holds."""
    async with world.open():
        pass
    process = MoverProcess(world.data)
    process.begin()
    await until(lambda: process.ready)
    os.kill(process.pid, signal.SIGSTOP)
    monkeypatch.setattr("audit.log.mover_process._PATIENCE_S", 0.3)
    with pytest.raises(MoverEndedError):
        process.move(0, [Group(0, 1, world.data / "wal", 0, 0)] * 10_000)
    assert process.pid is None


@pytest.fixture
def many_files():
    """More open files than select() can tell of."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4_096)), hard))
    handles = [os.open(os.devnull, os.O_RDONLY) for _ in range(1_100)]
    yield
    for handle in handles:
        os.close(handle)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
async def test_a_service_with_many_connections_has_one_too(world):
    async with world.open(**_AT_ONCE) as audit:
        assert (await moved_by_process(audit)).ready


async def test_where_none_can_be_started_a_thread_moves(world, monkeypatch):
    def forbidden(*_asked, **_options):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(subprocess, "Popen", forbidden)
    before = counters().get("audit.mover_ended", 0)
    async with world.open(**_AT_ONCE) as audit:
        told = await audit.append(make_outcome())
        await audit.parts.mover.catch_up()
        assert audit.stats.indexed == told.index + 1
    assert counters()["audit.mover_ended"] == before + 1  # and is not tried again with each event


async def test_it_is_found_wherever_the_service_was_started(world, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "audit.py").write_text("raise SystemExit\n")
    monkeypatch.chdir(tmp_path / "elsewhere")
    async with world.open(**_AT_ONCE) as audit:
        assert (await moved_by_process(audit)).ready


async def test_nobody_needed_it_for_a_while(world, monkeypatch):
    """It goes though no event comes."""
    async with world.open(**_AT_ONCE) as audit:
        process = await moved_by_process(audit)
        ended, before = process.pid, counters().get("audit.mover_ended", 0)
        with monkeypatch.context() as patch:
            patch.setattr("audit.log.mover._REST_S", 0.0)
            await audit.parts.mover.catch_up()
        assert process.pid is None
        with pytest.raises(ProcessLookupError):
            os.kill(ended, 0)
        assert counters().get("audit.mover_ended", 0) == before
        await moved_by_process(audit)  # and comes back


async def test_an_entry_that_was_moved_before_the_loop_heard_of_it_is_let_go(world):
    async with world.open(**_AT_ONCE) as audit:
        told, mover = await audit.append(make_outcome()), audit.parts.mover
        await mover.catch_up()
        mover.rows[told.index] = row_of(told.index, audit.parts.leaf(told.index))
        await mover.catch_up()
        assert not mover.rows


async def test_what_is_taken_away_is_not_written_to_any_more(world):
    """A partition is dropped while the process has its file open: what follows is in a new one."""
    async with world.open(**_AT_ONCE) as audit:
        await moved_by_process(audit)
        store = audit.parts.payloads
        (partition,) = [each for each in store.partitions() if each.tenant]
        await audit.parts.mover.taking_away(lambda: store.drop(partition))
        later = await audit.append(make_outcome())
        await audit.parts.mover.catch_up()
        assert audit.parts.mover.process.ready
        assert (await audit.payload("acme", later.index)).payload


async def test_the_next_writer_waits_until_the_killed_ones_process_is_gone(world, monkeypatch):
    async with world.open():
        pass
    held = Disk().lock(world.data / MOVER_LOCK)
    monkeypatch.setattr("audit.log.opening._MOVER_WAIT_S", _MOVER_WAIT_S / 100)
    with pytest.raises(Refusal, match="CONFLICT"):
        async with world.open():
            pass
    os.close(held)
    async with world.open():
        pass


_PARENT = """
import asyncio, sys
from pathlib import Path
from tests.audit.test_mover import moved_by_process
from tests.audit.world import World

async def main():
    async with World(Path(sys.argv[1])).open(mover_process_events=1) as audit:
        process = await moved_by_process(audit)
        print(process.pid, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_it_ends_with_a_parent_that_is_killed(tmp_path):
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    with parent:
        pid = int(parent.stdout.readline())
        with pytest.raises(BlockingIOError):
            Disk().lock(tmp_path / "audit" / MOVER_LOCK)
        os.kill(pid, signal.SIGSTOP)  # so that it cannot end by itself
        parent.kill()
    await until(lambda: _free(tmp_path / "audit" / MOVER_LOCK))


def _free(path):
    try:
        os.close(Disk().lock(path))
    except BlockingIOError:
        return False
    return True
