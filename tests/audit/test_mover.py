"""What is moved by a process of its own: the same as by a thread, whatever happens to it."""

import asyncio
import errno
import io
import json
import os
import signal
import subprocess
import sys

import pytest

from audit.log.disk import Disk
from audit.log.mover_process import MOVER_LOCK, MoverEndedError, MoverProcess, serve
from audit.log.opening import _MOVER_WAIT_S
from audit.search.questions import Question
from meshkit.contract import Phase, Reason, Refusal
from meshkit.counters import counters
from tests.audit.witness_world import until
from tests.audit.world import make_intent, make_outcome

_AT_ONCE = {"mover_process_events": 1}


async def moved_by_process(audit):
    """Append until the process is what moves; return it."""
    process = audit.parts.mover.process
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


def asked(folder, *orders):
    """Run the process's loop here; return what it answers."""
    told = io.BytesIO()
    lines = "".join(json.dumps(order) + "\n" for order in orders)
    serve(folder, io.BytesIO(lines.encode()), told)
    greeting, *answers = told.getvalue().splitlines()
    assert greeting == b"ready"
    return [json.loads(answer) for answer in answers]


@pytest.fixture
async def waiting(world):
    """Orders to move what is in a write-ahead log."""
    async with world.open(mover_process_events=0, segment_age_max_s=600) as audit:
        await audit.append(make_outcome())
        await audit.parts.mover.catch_up()
        start, groups = audit.stats.durable - 1, audit.parts.wal.groups
        where = [[str(g.segment), g.first, g.count, g.offset, g.length] for g in groups]
        yield {"move": start, "groups": [each for each in where if each[1] >= start]}


async def test_the_same_call_and_phase_twice_is_evidence_lost(world, waiting):
    (told,) = asked(world.data, waiting)
    assert told == {"failed": Reason.EVIDENCE_LOST.name}


async def test_a_disk_that_fails_is_told_with_its_error(world, waiting):
    """A folder that cannot be made, as on a full disk: asked again, it is another answer."""
    day = next((world.data / "payloads").iterdir())
    day.rename(world.data / "aside")
    day.write_bytes(b"")
    failed, released = asked(world.data, waiting, {"release": True})
    assert failed == {"failed": "OSError", "errno": errno.ENOTDIR}
    assert released == {}
    day.unlink()
    (world.data / "aside").rename(day)
