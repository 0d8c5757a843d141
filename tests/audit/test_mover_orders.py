"""What is asked of the process that moves, tried in this one; and which groups it is asked for."""

import asyncio
import errno
import io
import json
import sqlite3
import tempfile
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.log.disk import Disk
from audit.log.mover_process import MoverEndedError, serve
from audit.log.pace import groups_from
from audit.log.wal import Entry, Group, Wal
from audit.search.index import Index
from meshkit.contract import Direction, FindingCount, Reason
from tests.audit.world import ORIGIN, World, make_event, make_intent, make_outcome


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
        start = audit.stats.durable - 1
    last = [group for group in written(world.data) if group.first >= start]
    assert last
    return {"move": start, "groups": places(last)}


def written(folder):
    """The groups that lie in a log's folder; the open log lets go of those that are published."""
    wal = Wal(Disk(), folder / "wal", segment_bytes_max=1 << 20)
    assert wal.recover()
    wal.close()
    return wal.groups


def places(groups):
    """Groups as orders name them."""
    return [[str(g.segment), g.first, g.count, g.offset, g.length] for g in groups]


@pytest.fixture
def forgetful(world, waiting):
    """An index that has the last entry and does not know of it."""
    with sqlite3.connect(world.data / "index.sqlite") as connection:
        connection.execute("UPDATE meta SET size = size - 1")
    connection.close()
    return waiting


async def test_an_order_for_another_index_is_not_obeyed(world, waiting):
    assert asked(world.data, waiting) == [{"failed": MoverEndedError.__name__}]


async def test_the_same_call_and_phase_twice_is_evidence_lost(world, forgetful):
    (told,) = asked(world.data, forgetful)
    assert told == {"failed": Reason.EVIDENCE_LOST.name}


async def test_a_disk_that_fails_is_told_with_its_error(world, forgetful):
    """A folder that cannot be made, as on a full disk: asked again, it is another answer."""
    day = next((world.data / "payloads").iterdir())
    day.rename(world.data / "aside")
    day.write_bytes(b"")
    failed, released = asked(world.data, forgetful, {"release": True})
    assert failed == {"failed": "OSError", "errno": errno.ENOTDIR}
    assert released == {}
    day.unlink()
    (world.data / "aside").rename(day)


@pytest.fixture(scope="module")
def by_thread(tmp_path_factory):
    """A log whose thread moved all kinds of events: its folder, and where they are to be read."""
    world = World(tmp_path_factory.mktemp("by-thread"))
    count = FindingCount(
        direction=Direction.PROMPT, type="EMAIL", subtype="", action="mask", count=2
    )
    kinds = [
        lambda: make_outcome(counts=(count,), subject="ada@example.org"),
        lambda: make_intent(tenant="other", actor=None),
        lambda: make_event(action="audit.search", outcome="DENIED"),
        lambda: make_event(tenant="", actor=None),
        make_outcome,
    ]

    async def moved():
        kept = {"segment_bytes_max": 1 << 20, "segment_age_max_s": 600}
        async with world.open(mover_process_events=0, **kept) as audit:
            for number in range(20):
                await audit.append_many([kind() for kind in kinds[number % 3 :]])
            await audit.parts.mover.catch_up()

    asyncio.run(moved())
    groups = written(world.data)
    assert groups[0].first == 0
    return world.data, groups


def everything(folder):
    """Return what is in a log's index and payload store."""
    connection = sqlite3.connect(folder / "index.sqlite")
    dumped = list(connection.iterdump())
    connection.close()
    store = folder / "payloads"
    return dumped, {
        str(each.relative_to(store)): each.read_bytes() for each in store.rglob("*.sealed")
    }


@settings(max_examples=10, deadline=None)
@given(cuts=st.lists(st.integers(0, 60), max_size=4))
def test_index_and_payloads_are_the_same_by_thread_and_by_process(by_thread, cuts):
    """By the rows of events on one side and of leaves on the other, however orders are cut."""
    folder, groups = by_thread
    edges = sorted({0, len(groups), *(each % len(groups) for each in cuts)})
    orders = [
        {"move": groups[start].first, "groups": places(groups[start:end])}
        for start, end in pairwise(edges)
    ]
    with tempfile.TemporaryDirectory() as other:
        index = Index(Path(other) / "index.sqlite", ORIGIN)
        assert asked(Path(other), *orders) == [{} for _ in orders]
        index.close()
        assert everything(Path(other)) == everything(folder)


@settings(max_examples=30)
@given(
    counts=st.lists(st.integers(1, 9), max_size=20),
    most=st.integers(1, 30),
    large=st.integers(1, 30),
)
def test_however_large_they_are_groups_are_taken_in_turn(counts, most, large):
    """None is left out or taken twice, and payloads of any size are in memory by parts."""
    groups = []
    for count in counts:
        first = groups[-1].end if groups else 5
        groups.append(Group(first, count, Path("1.wal"), 0, count * 7))
    start, end = 5, 5 + sum(counts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("audit.log.pace._BYTES_MAX", large)
        while start < end:
            taken = list(groups_from(groups, start, most))
            assert taken[0].first == start
            assert sum(each.length for each in taken[:-1]) < large
            assert sum(each.count for each in taken[:-1]) < most
            start = taken[-1].end
    assert start == end


def test_a_group_is_there_before_the_end_of_the_log_is_behind_it(tmp_path):
    """Who finds no groups before the end would look for their entries in the tree."""
    seen = []

    class Watched(Wal):
        def __setattr__(self, name, value):
            if name == "end" and value:
                seen.append(self.groups[-1].end == value)
            super().__setattr__(name, value)

    wal = Watched(Disk(), tmp_path, segment_bytes_max=1 << 16)
    wal.begin(0)
    wal.append([Entry(b"leaf")])
    wal.close()
    assert seen == [True]
