"""Short form of tests/audit/histories.py, whose check tells wrong histories from right ones."""

import asyncio
import errno

import pytest

from meshkit.call_id import new_call_id
from meshkit.contract import Appended, Reason
from tests.audit.histories import CONFLICT, NO_ANSWER, Op, linearizable, run
from tests.audit.powerloss import FailingDisk
from tests.audit.world import make_intent

A, B = bytes(16), bytes([1] * 16)


async def test_two_hundred_histories_under_faults_are_linearizable(tmp_path):
    found = await run(tmp_path, 200, "short")
    assert found["histories"] == 200
    assert found["calls"] > 800
    assert found["power losses"] >= 8


async def test_what_never_became_durable_conflicts_with_nothing(world):
    disk = FailingDisk()
    call_id = new_call_id()
    async with world.open(disk) as audit:
        disk.full = errno.ENOSPC
        answers = await asyncio.gather(
            *(audit.append_many([make_intent(call_id)]) for _ in range(2))
        )
        assert [answer.reason for (answer,) in answers] == [Reason.AUDIT_DOWN] * 2
        disk.full = None
        (taken,) = await audit.append_many([make_intent(call_id)])
        assert isinstance(taken, Appended)


def test_a_right_history_is_explained():
    ops = [
        Op(A, 0, 1, 6, 5),
        Op(A, 1, 2, 8, CONFLICT),  # overlaps the one it conflicts with
        Op(B, 0, 3, 4, NO_ANSWER),  # no answer: it happened
        Op(B, 0, 5, 9, 6),
        Op(bytes([2] * 16), 0, 7),  # or it did not
    ]
    assert linearizable(ops, {}, 5, {A: (0, 5), B: (0, 6)}, 7)


WRONG = {
    "an index twice": ([Op(A, 0, 1, 2, 0), Op(B, 0, 3, 4, 0)], {A: (0, 0), B: (0, 1)}, 2),
    "two indexes for one event": ([Op(A, 0, 1, 2, 0), Op(A, 0, 3, 4, 1)], {A: (0, 0)}, 1),
    "a later event before an earlier one": (
        [Op(A, 0, 1, 2, 1), Op(B, 0, 3, 4, 0)],
        {A: (0, 1), B: (0, 0)},
        2,
    ),
    "a gap": ([Op(A, 0, 1, 2, 1)], {A: (0, 1)}, 2),
    "an acknowledged event that is lost": ([Op(A, 0, 1, 2, 0)], {}, 0),
    "a conflict with nothing": ([Op(A, 0, 1, 2, CONFLICT)], {}, 0),
    "a conflict with what came later": (
        [Op(A, 1, 1, 2, CONFLICT), Op(A, 0, 3, 4, 0)],
        {A: (0, 0)},
        1,
    ),
    "no conflict where there is one": ([Op(A, 0, 1, 2, 0), Op(A, 1, 3, 4, 0)], {A: (0, 0)}, 1),
    "other content than was acknowledged": ([Op(A, 0, 1, 2, 0)], {A: (1, 0)}, 1),
    "an event that nobody sent": ([Op(A, 0, 1, 2, 0)], {A: (0, 0), B: (0, 1)}, 2),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_history_is_not(name):
    ops, after, end = WRONG[name]
    assert not linearizable(ops, {}, 0, after, end)
