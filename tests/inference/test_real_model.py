"""SmolLM2 itself, through the service, as a gateway would ask it."""

import asyncio
from contextlib import aclosing

import pytest

from meshkit.contract import (
    Ended,
    FinishReason,
    Generated,
    Message,
    Reason,
    Refusal,
    Role,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

STORY = "Tell me a long story about a lighthouse keeper."


async def test_it_knows_the_capital_of_france(smollm) -> None:
    text, ended, pieces = await smollm.ask("What is the capital of France?", max_tokens=24)

    assert "Paris" in text
    assert ended.finish_reason is FinishReason.STOP
    assert ended.usage.prompt_tokens == 37
    assert sum(piece.tokens for piece in pieces) == ended.usage.completion_tokens


async def test_equal_seeds_give_equal_answers_alone_and_in_company(smollm) -> None:
    drawn = {"max_tokens": 24, "temperature": 0.9, "top_p": 0.95, "seed": 7}
    alone, *_ = await smollm.ask(STORY, **drawn)
    together = await asyncio.gather(
        smollm.ask(STORY, **drawn),
        smollm.ask("Count to one hundred.", max_tokens=30, temperature=1.0, seed=1),
        smollm.ask("List the planets, please, and say how large each is.", max_tokens=9),
        smollm.ask(STORY, **drawn),
    )

    assert together[0][0] == together[3][0] == alone
    assert (await smollm.ask(STORY, **drawn | {"seed": 8}))[0] != alone


async def test_two_callers_are_answered_at_the_same_time(smollm) -> None:
    order = []

    async def caller(name: str) -> None:
        async for item in smollm.stream(STORY, max_tokens=40, temperature=0.5, seed=3):
            order.append((name, item))

    await asyncio.gather(caller("a"), caller("b"))

    first_of_b = next(at for at, (name, _) in enumerate(order) if name == "b")
    end_of_a = next(
        at for at, (name, item) in enumerate(order) if name == "a" and isinstance(item, Ended)
    )
    assert first_of_b < end_of_a / 2


async def at_rest(engine):
    """Wait until the engine holds no request; return how many tokens it has made."""
    async with asyncio.timeout(60):
        while engine._requests or engine._leaving:
            await asyncio.sleep(0.005)
    return engine.generated_tokens


async def test_closing_the_iterator_stops_the_engine(smollm, loaded) -> None:
    engine = smollm.service
    async with aclosing(smollm.stream(STORY, max_tokens=1_000)) as items:
        async for _ in items:
            break
    at_close = engine.generated_tokens
    settled = await at_rest(loaded)
    await asyncio.sleep(0.5)

    # One step may have been under way, and some tokens guessed in it.
    assert settled - at_close <= 4
    assert engine.generated_tokens == settled


async def test_cancelling_the_task_stops_the_engine(smollm, loaded) -> None:
    engine = smollm.service
    before = engine.generated_tokens
    task = asyncio.create_task(smollm.ask(STORY, max_tokens=1_000))
    async with asyncio.timeout(60):
        while engine.generated_tokens < before + 10:
            await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    at_cancel = engine.generated_tokens

    # One step may have been under way, and some tokens guessed in it.
    assert await at_rest(loaded) - at_cancel <= 4
    assert engine.generated_tokens < before + 900


async def test_a_stop_sequence_ends_the_answer_before_it(smollm) -> None:
    text, ended, _ = await smollm.ask(
        "What is the capital of France?", max_tokens=24, stop=(" is Par",)
    )

    assert text == "The capital of France"
    assert ended.finish_reason is FinishReason.STOP


async def test_max_tokens_ends_the_answer(smollm) -> None:
    _, ended, _ = await smollm.ask(STORY, max_tokens=5)

    assert ended.finish_reason is FinishReason.LENGTH
    assert ended.usage.completion_tokens == 5


async def test_characters_of_many_tokens_come_whole(smollm) -> None:
    text, _, pieces = await smollm.ask("请用中文回答：你好吗？", max_tokens=20)

    assert "你好" in text
    assert "👏" in text
    assert "\ufffd" not in text
    assert sum(piece.tokens for piece in pieces) > len(text)


async def test_a_long_prompt_is_read_in_chunks_and_remembered(smollm) -> None:
    prompt = f"Ada has a zebra. {'The weather was mild. ' * 130}\n"
    text, ended, _ = await smollm.ask(f"{prompt}What does Ada have?", max_tokens=8)

    assert ended.usage.prompt_tokens > 2 * 256
    assert "zebra" in text


async def test_a_prompt_longer_than_the_context_is_refused(smollm) -> None:
    with pytest.raises(Refusal) as caught:
        await smollm.ask("word " * 5_000)

    assert (caught.value.reason, caught.value.field) == (Reason.INVALID_FIELD, "messages")


async def test_an_answer_ends_where_the_context_does(smollm) -> None:
    _, ended, _ = await smollm.ask("The weather was mild. " * 196, max_tokens=500)

    assert ended.finish_reason is FinishReason.LENGTH
    assert ended.usage.prompt_tokens + ended.usage.completion_tokens == 1_024


async def test_pieces_are_generated_and_the_end_comes_last(smollm) -> None:
    items = [item async for item in smollm.stream("Say hi.", max_tokens=6)]

    assert all(isinstance(item, Generated) for item in items[:-1])
    assert isinstance(items[-1], Ended)


async def test_kept_beginnings_and_guesses_change_no_bit_of_it(smollm, loaded) -> None:
    """The same conversation twice, its beginning kept in between, its own words in the answer."""
    runner = loaded._runner
    told = "The Marigold brought timber. The Heron brought salt and took forty barrels of fish."
    ask = (
        Message(Role.SYSTEM, f"You repeat reports word for word. {told} {told} {told}"),
        Message(Role.USER, f"Repeat this report word for word: {told}"),
    )
    found = []
    for guess_tokens in (0, 4):
        runner.guess_tokens = guess_tokens
        *pieces, _ = [item async for item in smollm.stream(messages=ask, max_tokens=24)]
        found.append(("".join(piece.text for piece in pieces), runner.reused_tokens))
    runner.guess_tokens = loaded._settings.guess_tokens

    (text, before), (again, after) = found
    assert again == text
    assert after - before >= 64
    assert runner.held_tokens > 0
