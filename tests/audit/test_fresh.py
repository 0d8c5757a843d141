"""What is kept of durable events until they are in the tree is what the write-ahead log says."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from audit.log.fresh import FreshLeaves
from audit.log.wal import Wal
from meshkit.contract import Refusal
from meshkit.tlog import TILE_WIDTH, leaf_hash
from tests.audit.world import make_event, make_intent, make_outcome

_LEAF = b"leaf %6d"
_LEAF_BYTES = len(_LEAF % 0)


def _leaves(first, end):
    return [_LEAF % number for number in range(first, end)]


def _put(fresh, first, end):
    leaves = _leaves(first, end)
    fresh.put(first, leaves, [leaf_hash(leaf) for leaf in leaves])


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 12), st.integers(1, 30)), max_size=30),
    st.integers(0, 40),
)
def test_whatever_is_returned_goes_on_from_where_the_tree_ends(steps, room):
    fresh = FreshLeaves(room * _LEAF_BYTES)
    end = planned = 0
    begun = []
    for count, grown, most in steps:
        _put(fresh, end, end + count)
        begun.append(end)
        end += count
        leaves, hashes = fresh.since(planned, most)
        assert leaves == _leaves(planned, planned + len(leaves))
        assert hashes == [leaf_hash(leaf) for leaf in leaves]
        if end - max(first for first in begun if first <= planned) <= room:  # none had to go
            assert len(leaves) >= min(most, end - planned)
        planned = min(end, planned + grown)
        fresh.drop_before(planned)


def test_no_gap_is_passed_over():
    fresh = FreshLeaves(1_000)
    _put(fresh, 0, 3)
    _put(fresh, 5, 7)
    assert fresh.since(0, 10) == ([], [])
    assert fresh.since(5, 10)[0] == _leaves(5, 7)


async def test_the_tree_is_the_same_out_of_memory_and_out_of_the_write_ahead_log(
    world, memory_lock, monkeypatch
):
    """The lock is away, so that much waits: the last groups are in memory, those before are not."""
    read = []
    entries = Wal.read
    monkeypatch.setattr(Wal, "read", lambda wal, group: read.append(group) or entries(wal, group))
    world.lock = memory_lock
    async with world.open(fresh_bytes_max=8_192) as audit:
        memory_lock.down = True
        appended = []
        for number in range(40):
            intent = make_intent()
            some = [intent, make_outcome(intent.call_id), make_event()]
            appended += await audit.append_many(some[: 1 + number % 3])
        async with asyncio.timeout(60):
            while audit.stats.indexed < audit.stats.durable:
                await asyncio.sleep(0.01)
        groups = len(audit.parts.wal.groups)
        read.clear()
        memory_lock.down = False
        async with asyncio.timeout(60):
            while audit.stats.published < audit.stats.durable:
                await asyncio.sleep(0.01)
            while audit.parts.publisher.fresh.octets:  # nothing is kept for nothing
                await asyncio.sleep(0.01)
        assert 0 < len({group.first for group in read}) < groups
        assert not any(isinstance(one, Refusal) for one in appended)
        for one in appended:
            leaf = audit.parts.store.entries(one.index, one.index + 1)[0]
            assert leaf_hash(leaf) == one.leaf_hash
        assert audit.parts.store.planned > TILE_WIDTH // 4
    async with world.open():  # checks tiles, bundles and root of what it finds
        pass
