"""However tokens come, their text arrives whole, in order, paid for, and stops when told."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.tokens import Pace, TokenStream
from meshkit.contract import Ended, FinishReason, Generated, Reason, Refusal, Usage

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


async def collected(stream, *, eager_until=0):
    chunks = []
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
    async def slow():
        for _ in range(5):
            yield Generated("a")
            await asyncio.sleep(0.05)
        yield ENDED

    chunks = await collected(TokenStream(slow(), Pace(8, 10, eager=True), 10**6, free))
    assert chunks == ["a"] * 5


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
