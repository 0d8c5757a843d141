"""Background work in slices, and batches let in one a turn of the event loop."""

from __future__ import annotations

import asyncio

from audit.log.pace import Pace
from audit.log.turns import Turns


def test_little_behind_is_done_in_small_slices_with_rests_and_far_behind_in_a_hurry():
    behind = 0
    pace = Pace(lambda: behind, events_max=16_384)
    assert (pace.events, pace.rest_s(0.001)) == (16_384, 0.0)  # before it runs, and at its end
    pace.hurried = False
    assert pace.events <= 256
    assert 0.0 < pace.rest_s(0.001) <= 0.01
    assert pace.rest_s(60.0) <= 0.01
    behind = 100_000
    assert (pace.events, pace.rest_s(0.001)) == (16_384, 0.0)


def test_a_slice_is_no_larger_than_what_may_be_taken_at_all():
    pace = Pace(lambda: 0, events_max=7)
    pace.hurried = False
    assert pace.events == 7


async def test_one_is_let_in_each_turn_in_the_order_in_which_they_came():
    turns, order, turn = Turns(), list[tuple[int, int]](), 0

    async def enter(number: int) -> None:
        await turns.take()
        order.append((number, turn))

    entering = [asyncio.create_task(enter(number)) for number in range(8)]
    while not all(task.done() for task in entering):
        turn += 1
        await asyncio.sleep(0)
    assert [number for number, _ in order] == list(range(8))
    assert len({when for _, when in order}) == 8


async def test_who_gives_up_waiting_holds_up_nobody():
    turns = Turns()
    waiting = [asyncio.create_task(turns.take()) for _ in range(4)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    waiting[2].cancel()
    async with asyncio.timeout(10):
        await waiting[0]
        await waiting[3]
        await turns.take()
