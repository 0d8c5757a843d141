"""A bell wakes its listener once it is rung, and rings until it is silenced."""

import asyncio

import pytest

from meshkit.bell import Bell


async def test_a_listener_is_woken_once_it_rings() -> None:
    bell = Bell()
    listening = asyncio.create_task(bell.heard())
    await asyncio.sleep(0)
    assert not listening.done()

    bell.ring()
    bell.ring()  # again, before the listener had its turn
    await asyncio.wait_for(listening, 30)


async def test_what_rang_before_is_heard_until_it_is_silenced() -> None:
    bell = Bell()
    bell.ring()
    await asyncio.wait_for(bell.heard(), 30)
    await asyncio.wait_for(bell.heard(), 30)

    bell.silence()
    listening = asyncio.create_task(bell.heard())
    await asyncio.sleep(0)
    assert not listening.done()
    bell.ring()
    await asyncio.wait_for(listening, 30)


async def test_a_listener_that_leaves_makes_room_for_the_next() -> None:
    bell = Bell()
    gone = asyncio.create_task(bell.heard())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError):
        await bell.heard()
    gone.cancel()
    await asyncio.wait([gone])

    listening = asyncio.create_task(bell.heard())
    await asyncio.sleep(0)
    bell.ring()
    await asyncio.wait_for(listening, 30)
