"""What a client of a whole Sealgate sees, over mutual TLS, with the real model behind it."""

import asyncio
import json
import secrets

import pytest

from sealgate import (
    AsyncClient,
    BlockedError,
    Client,
    DeniedError,
    FinishReason,
    InvalidRequestError,
    Message,
    NotFoundError,
    Role,
    UnavailableError,
)
from sealgate.receipts import check

MODEL = "smollm2-135m-instruct"


async def test_an_answer_comes_with_a_receipt_that_fits_it(house) -> None:
    async with house.client() as client:  # has the vkey: it checks the receipt or raises
        result = await client.chat("What is the capital of France?", model=MODEL, max_tokens=24)

    assert "Paris" in result.text
    assert result.finish_reason is FinishReason.STOP
    assert result.usage.prompt_tokens > 8
    assert 0 < result.usage.completion_tokens <= 24
    assert result.receipt.origin == "sealgate.local/audit"


async def test_a_stream_is_the_same_answer_in_pieces(house) -> None:
    question = "Name three colours of the rainbow."
    async with house.client() as client:
        stream = client.stream(question, model=MODEL, max_tokens=40, no_cache=True)
        pieces = [piece async for piece in stream]
        whole = await client.chat(question, model=MODEL, max_tokens=40, no_cache=True)

    assert "".join(pieces) == stream.result.text == whole.text
    assert len(pieces) > 1
    assert stream.result.usage == whole.usage


def test_the_synchronous_client_sees_the_same(house) -> None:
    facts = house.facts
    with Client.from_folder(facts["gateway"], facts["tls"], vkey=house.vkey) as client:
        stream = client.stream("Say hello.", model=MODEL, max_tokens=16)
        assert "".join(stream) == stream.result.text
        assert [model.name for model in client.models()] == [MODEL]


async def test_personal_data_is_masked_on_its_way_in(house) -> None:
    prompt = "I am Maria Thompson, maria@example.org, card 4111 1111 1111 1111. What is a refund?"
    async with house.client() as client:
        result = await client.chat(prompt, model=MODEL, max_tokens=8)

    masked = {count.type for count in result.screening.counts if count.action == "mask"}
    assert {"PERSON", "EMAIL", "CREDIT_CARD"} <= masked


async def test_equal_questions_are_answered_once(house) -> None:
    question = f"Repeat this word: {secrets.token_hex(4)}"
    async with house.client() as client:
        first, second = await asyncio.gather(
            client.chat(question, model=MODEL, max_tokens=12),
            client.chat(question, model=MODEL, max_tokens=12),
        )
        third = await client.chat(question, model=MODEL, max_tokens=12)

    assert first.text == second.text == third.text
    assert sorted((first.cache_tier, second.cache_tier)) == ["l1", "miss"]
    assert third.cache_tier == "l1"
    assert len({r.receipt.call_id for r in (first, second, third)}) == 3


async def test_random_sampling_is_not_cached(house) -> None:
    async with house.client() as client:
        for _ in range(2):
            result = await client.chat("Tell me a word.", model=MODEL, max_tokens=4, temperature=1)
            assert result.cache_tier == "off"


async def test_a_blocked_prompt_has_a_record_and_its_caller_a_receipt(house) -> None:
    async with house.client() as client, house.reader() as reader:
        with pytest.raises(BlockedError) as caught:
            await client.chat("Check AKIA" + "IOSFODNN7EXAMPLE", model=MODEL)
        records = await reader.records(call_id=caught.value.receipt.call_id)

    outcome = json.loads(records[-1].leaf)["event"]
    assert outcome["outcome"] == "BLOCKED"
    assert "AKIA" not in str(caught.value)


async def test_the_record_names_the_callers_trace(house) -> None:
    trace_id = secrets.token_bytes(16)
    async with house.client() as client, house.reader() as reader:
        result = await client.chat(
            "Hello!", model=MODEL, max_tokens=4, traceparent=f"00-{trace_id.hex()}-{'b7' * 8}-01"
        )
        records = await reader.records(trace_id=trace_id)

    assert result.receipt.trace_id == trace_id
    assert [record.phase.value for record in records] == ["intent", "outcome"]
    assert records[-1].index == result.receipt.index


@pytest.mark.parametrize(
    ("options", "error", "field"),
    [
        ({"model": "gpt-17"}, NotFoundError, None),
        ({"max_tokens": 100_000}, InvalidRequestError, "parameters.max_tokens"),
        ({"temperature": 9.0}, InvalidRequestError, "parameters.temperature"),
        ({"temperature": float("nan")}, InvalidRequestError, "parameters.temperature"),
        ({"top_p": -1.0}, InvalidRequestError, "parameters.top_p"),
        ({"stop": ["x"] * 9}, InvalidRequestError, "parameters.stop"),
        ({"session": "no spaces"}, InvalidRequestError, "session"),
        ({"prompt": ""}, InvalidRequestError, "messages"),
        ({"prompt": "a\0b"}, InvalidRequestError, "messages"),
        ({"prompt": "x" * 300_000}, InvalidRequestError, "messages"),
    ],
)
async def test_bad_input_is_refused_by_name_and_without_its_value(
    house, options, error, field
) -> None:
    asked = {"prompt": "canary-7e1", "model": MODEL} | options
    async with house.client() as client:
        with pytest.raises(error) as caught:
            await client.chat(asked.pop("prompt"), **asked)
    if field is not None:
        assert caught.value.field.startswith(field)
    assert "canary" not in str(caught.value)
    assert "100000" not in str(caught.value)


async def test_a_prompt_beyond_the_context_is_refused(house) -> None:
    async with house.client() as client:
        with pytest.raises(InvalidRequestError) as caught:
            await client.chat("word " * 9_000, model=MODEL)
    assert caught.value.field == "messages"


async def test_two_callers_share_the_model(house) -> None:
    """Neither waits for the other's last token."""
    seen, connected = [], asyncio.Barrier(2)

    async def ask(name: str, topic: str) -> None:
        async with house.client() as client:
            await client.models()
            await connected.wait()
            stream = client.stream(f"Write about {topic}.", model=MODEL, max_tokens=60)
            async for _ in stream:
                seen.append(name)

    await asyncio.gather(ask("a", "rivers and lakes"), ask("b", "the history of bread"))
    assert seen.index("b") < len(seen) - 1 - seen[::-1].index("a")
    assert seen.index("a") < len(seen) - 1 - seen[::-1].index("b")


async def test_a_cancelled_stream_is_recorded_with_what_was_delivered(house) -> None:
    trace_id = secrets.token_bytes(16)
    async with house.client() as client, house.reader() as reader:
        stream = client.stream(
            "Write a very long story about a lighthouse.",
            model=MODEL,
            max_tokens=1_000,
            temperature=0.7,
            traceparent=f"00-{trace_id.hex()}-{'b7' * 8}-00",
        )
        async with stream:
            await anext(stream)
        async with asyncio.timeout(60):
            while len(records := await reader.records(trace_id=trace_id)) < 2:
                await asyncio.sleep(0.1)

    outcome = json.loads(records[-1].leaf)["event"]
    assert outcome["outcome"] == "CANCELLED"
    assert outcome["usage"]["completion_tokens"] < 900
    assert "answer_delivered" in outcome["commitments"]


async def test_many_callers_at_once_are_all_answered_or_told_when_to_come_back(house) -> None:
    async with house.client() as client:

        async def ask(number: int) -> str:
            try:
                await client.chat(f"Count from {number % 5}.", model=MODEL, max_tokens=6)
            except UnavailableError as busy:
                return busy.reason.name
            return "answered"

        outcomes = await asyncio.gather(*(ask(number) for number in range(200)))
    assert set(outcomes) <= {"answered", "OVERLOADED"}
    assert outcomes.count("answered") >= 100


async def test_an_application_may_not_read_the_log(house) -> None:
    async with house.reader(tls="tls") as reader:
        with pytest.raises(DeniedError):
            await reader.records(call_id=bytes(16))


async def test_an_auditor_may_not_chat(house) -> None:
    facts = house.facts
    async with AsyncClient.from_folder(facts["gateway"], facts["auditor_tls"]) as client:
        with pytest.raises(DeniedError) as caught:
            await client.chat("Hello", model=MODEL)
    check(caught.value.receipt, house.vkey, messages=(Message(Role.USER, "Hello"),))
