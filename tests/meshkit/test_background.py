"""Work beside a block: ended with it, its failure told, a cancellation of the block never lost."""

import asyncio

import pytest

from meshkit.background import running


async def test_it_runs_beside_the_block_and_has_ended_after_it():
    seen = []

    async def work():
        try:
            seen.append("begun")
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            seen.append("ended")

    async with running(work(), "work"):
        await asyncio.sleep(0)
        assert seen == ["begun"]
    assert seen == ["begun", "ended"]


async def test_a_failing_block_ends_it_too():
    async with asyncio.timeout(5):
        with pytest.raises(KeyError):
            async with running(asyncio.Event().wait(), "work"):
                raise KeyError


async def test_what_ended_the_work_is_told():
    async def work():
        raise LookupError

    with pytest.raises(LookupError):
        async with running(work(), "work"):
            await asyncio.sleep(0)


async def test_a_block_that_is_cancelled_while_it_waits_stays_cancelled():
    may_end = asyncio.Event()

    async def stubborn():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await may_end.wait()
            raise

    reached = False

    async def block():
        nonlocal reached
        async with running(stubborn(), "work"):
            await asyncio.sleep(0)
        reached = True

    task = asyncio.create_task(block())
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not reached
