"""The order of the steps, and what a caller gets when all goes well."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from meshkit.contract import Message, Phase, Role, answer_bytes, prompt_bytes
from meshkit.reading import wanted
from meshkit.tlog import commit
from sealgate.v1 import gateway_pb2 as pb
from sealgate.v1.common_pb2 import FINISH_REASON_STOP
from tests.gateway.conftest import ASSISTANT, chat, until


async def streamed(stub, request, **call):
    frames = [f async for f in stub.ChatStream(pb.ChatStreamRequest(chat=request), **call)]
    return [f.delta for f in frames[:-1]], frames[-1].final


async def test_an_answer_comes_with_the_receipt_of_its_record(start) -> None:
    async with start() as house, house.caller() as stub:
        reply = await stub.Chat(chat())

        assert reply.text == "HELLO BIG WORLD"
        assert reply.finish_reason == FINISH_REASON_STOP
        intent, outcome = house.audit.events
        assert (intent.phase, outcome.phase) == (Phase.INTENT, Phase.OUTCOME)
        assert outcome.outcome == "released"
        assert outcome.actor.spiffe_id == ASSISTANT
        assert outcome.connection.tls_version == "TLSv1.3"
        assert reply.receipt.index == 1
        assert reply.receipt.call_id == intent.call_id == outcome.call_id
        sent = prompt_bytes([Message(Role.USER, "hello big world")])
        assert commit(reply.receipt.prompt_salt, sent) == intent.prompt_received.value
        got = answer_bytes(reply.text)
        assert commit(reply.receipt.answer_salt, got) == outcome.answer_delivered.value


async def test_a_streamed_call_takes_the_same_path(start) -> None:
    async with start() as house, house.caller() as stub:
        whole = await stub.Chat(chat(no_cache=True))
        unary = list(house.journal)
        house.journal.clear()
        deltas, final = await streamed(stub, chat(no_cache=True))

        assert "".join(deltas) == whole.text
        assert house.journal == unary
        assert final.receipt.index == 3
        assert house.audit.events[-1].action == "chat.stream"


async def test_the_steps_have_one_order(start) -> None:
    async with start() as house, house.caller() as stub:
        await stub.Chat(chat())

        assert house.journal == [
            "sent intent",
            "screen",
            "cache.get",
            "durable intent",
            "release",  # compliance listens before the model speaks
            "generate",
            "released",
            "cache.put",
            "sent outcome",
            "durable outcome",
        ]


async def test_engine_and_compliance_of_a_call_meet_in_what_is_wanted(start) -> None:
    """Of this call alone: what another waits for says nothing here."""
    async with start() as house, house.caller() as stub:
        met = {"generate": [], "release": []}

        def watched(service, method):
            real = getattr(service, method)

            async def watching(*args, **rest):
                met[method].append(wanted())
                async for item in real(*args, **rest):
                    yield item

            setattr(service, method, watching)

        watched(house.inference, "generate")
        watched(house.compliance, "release")
        await asyncio.gather(
            streamed(stub, chat("one", no_cache=True)), streamed(stub, chat("two", no_cache=True))
        )

    assert sorted(map(id, met["generate"])) == sorted(map(id, met["release"]))
    assert len({id(each) for each in met["generate"]}) == 2
    assert None not in met["generate"]


@pytest.mark.parametrize("warm", [False, True])
async def test_nothing_happens_before_the_intent_is_durable(start, warm) -> None:
    """Not even a cached answer leaves."""
    async with start() as house, house.caller() as stub:
        if warm:
            await stub.Chat(chat())
        house.journal.clear()
        house.audit.hold = asyncio.Event()
        stream = stub.ChatStream(pb.ChatStreamRequest(chat=chat()))
        first = asyncio.create_task(stream.read())
        await until(lambda: len(house.journal) >= 3)
        await asyncio.sleep(0.2)

        assert house.journal == ["sent intent", "screen", "cache.get"]
        assert not first.done()
        house.audit.hold.set()
        assert (await first).delta.startswith("HELLO")
        while await stream.read() is not grpc.aio.EOF:
            pass


async def test_the_last_frame_waits_for_the_outcome(start) -> None:
    async with start() as house, house.caller() as stub:
        stream = stub.ChatStream(pb.ChatStreamRequest(chat=chat("one")))
        asked, gate = asyncio.Event(), asyncio.Event()
        append = house.audit.append

        async def held(event):
            if event.phase is Phase.OUTCOME:
                asked.set()
                await gate.wait()
            return await append(event)

        house.audit.append = held
        assert (await stream.read()).delta == "ONE"
        last = asyncio.create_task(stream.read())
        await asked.wait()
        await asyncio.sleep(0.2)
        assert not last.done()
        gate.set()
        assert (await last).final.receipt.index == 1
        assert await stream.read() is grpc.aio.EOF


async def test_an_equal_question_is_answered_from_the_cache_and_recorded_again(start) -> None:
    async with start() as house, house.caller() as stub:
        first = await stub.Chat(chat())
        second = await stub.Chat(chat())

        assert (first.cache_tier, second.cache_tier) == (pb.CACHE_TIER_MISS, pb.CACHE_TIER_L1)
        assert second.text == first.text
        assert len(house.inference.prompts) == 1
        assert [event.cache_tier for event in house.audit.of(Phase.OUTCOME)] == ["miss", "l1"]
        assert second.receipt.answer_salt != first.receipt.answer_salt


async def test_only_screened_text_reaches_the_model(start) -> None:
    async with start() as house, house.caller() as stub:
        reply = await stub.Chat(chat("my secret word"))

        assert house.inference.prompts[0][0].content == "my [MASKED] word"
        assert reply.screening.counts[0].type == "SECRET"
        assert house.audit.events[-1].payload.screened[0].content == "my [MASKED] word"


@pytest.mark.parametrize("given", [{"no_cache": True}, {"parameters": {"temperature": 1.0}}])
async def test_what_is_not_to_be_cached_never_meets_the_cache(start, given) -> None:
    async with start() as house, house.caller() as stub:
        reply = await stub.Chat(chat(**given))

        assert reply.cache_tier == pb.CACHE_TIER_OFF
        assert not [step for step in house.journal if step.startswith("cache")]


async def test_models_are_listed_for_those_who_may_ask_them(start) -> None:
    async with start() as house, house.caller() as stub:
        reply = await stub.ListModels(pb.ListModelsRequest())

        assert [model.name for model in reply.models] == ["shouter"]
        assert house.audit.events[0].action == "models.list"
        assert house.audit.outcomes == ["released"]


async def test_frames_gather_after_the_first(start) -> None:
    text = " ".join(f"w{n}" for n in range(100))
    slow = {"inference": {"token_s": 0.001}}
    async with start(slow, frame_ms=60_000) as house, house.caller() as stub:
        deltas, _ = await streamed(stub, chat(text, no_cache=True))

        assert "".join(deltas) == text.upper()
        assert deltas[0] == "W0 "
        assert len(deltas) < 40
