"""However tokens come, their text arrives whole, in order, paid for, and stops when told."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.tokens import Pace, TokenStream
from meshkit.contract import Ended, FinishReason, Generated, Reason, Refusal, Usage
from meshkit.reading import Wanted

ENDED = Ended(finish_reason=FinishReason.STOP, usage=Usage(prompt_tokens=3, completion_tokens=9))
pieces = st.lists(st.tuples(st.text(max_size=3), st.integers(1, 4), st.booleans()), max_size=30)


async def engine(pieces, *, ended=ENDED, failure=None):
    for text, tokens, pauses in pieces:
        if pauses:
            await asyncio.sleep(0)
        yield Generated(text, tokens)
    if failure is not None:
        raise failure
    if ended is not None:
        yield ended


async def free():
    return 1_000_000


async def none():
    return 0


async def collected(stream, *, eager_until=0, chunks=None):
    chunks = [] if chunks is None else chunks
    async with stream:
        async for chunk in stream.deltas():
            chunks.append(chunk)
            if len(chunks) > eager_until:
                stream.delivered()
    return chunks


@settings(max_examples=60, deadline=None)
@given(pieces, st.integers(1, 9), st.booleans())
def test_the_text_is_the_engines_whatever_the_pace(pieces, tokens, eager) -> None:
    stream = TokenStream(engine(pieces), Pace(tokens, 1, eager=eager), 10**6, free)
    chunks = asyncio.run(collected(stream))

    assert "".join(chunks) == "".join(text for text, _, _ in pieces)
    assert all(chunks)
    assert stream.tokens == sum(tokens for _, tokens, _ in pieces)
    assert stream.usage == ENDED.usage


async def test_chunks_fill_up_once_something_was_delivered() -> None:
    each = [("a", 1, True)] * 40
    chunks = await collected(TokenStream(engine(each), Pace(8, eager=True), 10**6, free))

    assert chunks[0] == "a"
    assert {len(chunk) for chunk in chunks[1:-1]} <= {8, 9}


async def test_a_slow_engine_is_not_waited_for() -> None:
    chunks = []

    async def slow():
        for number in range(5):
            yield Generated("a")
            while len(chunks) == number:
                await asyncio.sleep(0.001)
        yield ENDED

    async with asyncio.timeout(30):
        stream = TokenStream(slow(), Pace(8, 10, eager=True), 10**6, free)
        assert await collected(stream, chunks=chunks) == ["a"] * 5


async def reads(stream, wants):
    """Read as compliance does: say before each chunk how much the next one should have."""
    chunks, wants = [], iter(wants)
    async with stream:
        stream.wanted.characters = next(wants, 1)
        async for chunk in stream.deltas():
            chunks.append((stream.wanted.characters, chunk))
            stream.wanted.characters = next(wants, 1)
            stream.delivered()
            await asyncio.sleep(0)
    return chunks


@settings(max_examples=60, deadline=None)
@given(pieces, st.lists(st.integers(1, 40), max_size=20), st.booleans())
def test_the_text_is_the_engines_whatever_its_reader_waits_for(pieces, wants, eager) -> None:
    stream = TokenStream(engine(pieces), Pace(4, 1, eager=eager), 10**6, free, wanted=Wanted())
    chunks = asyncio.run(reads(stream, wants))

    assert "".join(text for _, text in chunks) == "".join(text for text, _, _ in pieces)
    assert all(len(text) >= wanted for wanted, text in chunks[:-1])


async def test_a_reader_is_woken_for_what_it_waits_for_and_not_for_each_token() -> None:
    each = [("four", 1, True)] * 100
    stream = TokenStream(engine(each), Pace(8, 1, eager=True), 10**6, free, wanted=Wanted())
    chunks = await reads(stream, [25] + [16] * 100)

    assert [len(text) for _, text in chunks] == [28, *[16] * 23, 4]
    assert stream.wanted.held == 0


async def test_what_is_wanted_less_meanwhile_is_handed_over_without_another_token() -> None:
    async def two():
        yield Generated("a" * 20)
        await asyncio.sleep(0)
        yield Generated("b" * 10)
        await asyncio.Event().wait()

    stream = TokenStream(two(), Pace(8, eager=True), 10**6, free, wanted=Wanted(characters=20))
    async with stream:
        deltas = stream.deltas()
        assert await anext(deltas) == "a" * 20
        while not stream.wanted.held:
            await asyncio.sleep(0)
        stream.wanted.characters = 5
        assert await asyncio.wait_for(anext(deltas), 30) == "b" * 10


@settings(max_examples=40, deadline=None)
@given(pieces, st.integers(0, 40))
def test_no_more_is_given_than_is_paid_for(pieces, allowed) -> None:
    stream = TokenStream(engine(pieces), Pace(3), allowed, none)
    text = "".join(asyncio.run(collected(stream)))
    whole = "".join(text for text, _, _ in pieces)

    total = sum(tokens for _, tokens, _ in pieces)
    assert stream.limited is (total > allowed)
    assert whole.startswith(text)
    assert stream.limited or text == whole


async def test_what_the_engine_raises_comes_after_what_it_said() -> None:
    failure = Refusal(Reason.INFERENCE_DOWN)
    stream = TokenStream(engine([("a", 1, False)], failure=failure), Pace(8), 10**6, free)
    async with stream:
        deltas = stream.deltas()
        assert await anext(deltas) == "a"
        with pytest.raises(Refusal):
            await anext(deltas)

    assert stream.failure is failure
    assert stream.usage == Usage(completion_tokens=1)


async def test_leaving_stops_the_engine_before_it_returns() -> None:
    running = []

    async def endless():
        running.append(True)
        try:
            while True:
                await asyncio.sleep(0)
                yield Generated("a")
        finally:
            running.clear()

    stream = TokenStream(endless(), Pace(1, eager=True), 10**6, free)
    async with stream:
        async for _ in stream.deltas():
            break
    assert running == []
