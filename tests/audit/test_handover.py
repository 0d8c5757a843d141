"""One writer after another: the second stands by, and takes the log over when it is let go of."""

import asyncio

import pytest

from meshkit.contract import Phase, Refusal
from tests.audit.world import make_event, make_intent, make_outcome


async def test_a_successor_stands_by_and_takes_over_all_there_is(world, tmp_path) -> None:
    standby = tmp_path / "standby"
    call_id = bytes(range(16))

    async def second():
        async with world.open(writer_wait_ms=30_000, standby_file=standby) as log:
            appended = await log.append(make_outcome(call_id))
            again = await log.append(intent)
            return appended.index, again.index, await log.records("acme", call_id=call_id)

    intent = make_intent(call_id)
    async with world.open() as first:
        index = (await first.append(intent)).index
        waiting = asyncio.create_task(second())
        async with asyncio.timeout(20):
            while not standby.exists():
                await asyncio.sleep(0.01)
        await first.append(make_event())
        assert not waiting.done()
    outcome, again, records = await asyncio.wait_for(waiting, 30)

    assert outcome > index
    assert again == index, "taken once, though it was sent to both"
    assert [record.phase for record in records] == [Phase.INTENT, Phase.OUTCOME]


async def test_a_successor_does_not_wait_for_ever(world) -> None:
    async with world.open():
        with pytest.raises(Refusal, match="CONFLICT"):
            async with world.open(writer_wait_ms=100):
                pytest.fail("two writers")
