"""SmolLM2 in a real Triton that runs our engine: the same answers, and a model that stops."""

import asyncio
import threading
import time
from contextlib import aclosing

import pytest
import pytest_asyncio

from inference.engines.base import RequestContext
from inference.engines.triton.watch import Watch
from inference.release.loading import StoreLoader
from inference.service import InferenceService
from inference.store.store import ModelStore
from meshkit.contract import (
    Ended,
    FinishReason,
    Generated,
    Message,
    Parameters,
    Reason,
    Refusal,
    Role,
)
from meshkit.counters import counters, gauges
from meshkit.screening_mac import MacKeys, mac_verifier
from tests.inference import triton_world as world

KEYS = MacKeys({1: b"k" * 32}, current=1)
WAIT_S = 60.0
LOOKS = 5
"""In a row that find nothing new: then it has stopped."""
WHOLE = 900
"""Tokens of the story below if nobody stops it: it comes to no end of its own before."""
STORY = (Message(Role.USER, "Tell me a long story about a lighthouse keeper."),)


@pytest_asyncio.fixture
async def engine(on_triton, triton):
    return await on_triton(world.MODEL, metrics_url=f"127.0.0.1:{triton.metrics_port}")


async def answer(engine, messages, **parameters):
    *pieces, ended = [item async for item in engine.generate(messages, Parameters(**parameters))]
    return "".join(piece.text for piece in pieces), ended, sum(piece.tokens for piece in pieces)


@pytest.mark.parametrize(
    "asked",
    [
        {"max_tokens": 12},
        {"max_tokens": 12, "temperature": 0.9, "top_p": 0.9, "seed": 2**63 + 5},
        {"max_tokens": 40, "stop": (" Paris",)},
    ],
    ids=["greedy", "seeded", "stop"],
)
async def test_the_answer_is_that_of_the_engine_in_process(engine, smollm, asked) -> None:
    capital = (Message(Role.USER, "What is the capital of France?"),)
    here, ended, pieces = await smollm.ask(messages=capital, **asked)

    text, there, tokens = await answer(engine, capital, **asked)
    assert (text, there) == (here, ended)
    assert tokens == sum(piece.tokens for piece in pieces) == there.usage.completion_tokens


async def test_the_model_is_the_one_that_the_manifest_names(engine, loaded) -> None:
    assert engine.info == loaded.info
    assert engine.info.documents == loaded.info.documents


async def test_through_the_service_with_a_mac_that_holds(engine, make_screened, scope) -> None:
    service = InferenceService((engine,), verify=mac_verifier(lambda: KEYS))
    screened = make_screened((Message(Role.USER, "Say hello."),))
    items = service.generate(scope, world.MODEL, screened, Parameters(max_tokens=6))
    *pieces, ended = [item async for item in items]

    assert all(isinstance(piece, Generated) for piece in pieces)
    assert ended.usage.completion_tokens <= 6
    assert [info.name for info in await service.models()] == [world.MODEL]


async def test_a_caller_who_leaves_stops_the_engine_in_triton(engine, triton) -> None:
    name = "sealgate_generated_tokens"
    begun = before = triton.metric(name, world.MODEL)
    async with aclosing(engine.generate(STORY, Parameters(max_tokens=WHOLE))) as items:
        for _ in range(3):
            await anext(items)
    ends, still = time.monotonic() + WAIT_S, 0
    while still < LOOKS:  # a busy machine may need long for a step
        await asyncio.sleep(0.3)
        now = triton.metric(name, world.MODEL)
        still, before = (still + 1 if now == before > 0 else 0), now
        assert time.monotonic() < ends
    seen = now
    assert seen - begun < WHOLE // 2, "it went on to its end"

    # It goes on to count for the next caller, and only for him.
    _, ended, _ = await answer(engine, STORY, max_tokens=5)
    while (now := triton.metric(name, world.MODEL)) < seen + 5:
        assert time.monotonic() < ends
        await asyncio.sleep(0.05)
    assert now == seen + ended.usage.completion_tokens


async def test_many_short_answers_under_a_keen_watch(engine) -> None:
    # To ask a sender that has ended whether its caller has gone would kill the whole server.
    for _ in range(4):
        told = await asyncio.gather(
            *(answer(engine, (Message(Role.USER, f"{n}"),), max_tokens=2) for n in range(6))
        )
        assert {ended.finish_reason for _, ended, _ in told} <= {*FinishReason}
    assert engine.healthy


async def test_text_comes_in_pieces_of_several_tokens(engine) -> None:
    items = [item async for item in engine.generate(STORY, Parameters(max_tokens=60))]
    pieces = [item.tokens for item in items if isinstance(item, Generated)]

    assert sum(pieces) == items[-1].usage.completion_tokens == 60
    assert len(pieces) <= 60


async def test_the_models_own_refusals_arrive_as_they_are(engine) -> None:
    long = (Message(Role.USER, "word " * 3_000),)
    with pytest.raises(Refusal) as caught:
        await answer(engine, long)
    assert (caught.value.reason, caught.value.field) == (Reason.INVALID_FIELD, "messages")

    soon = RequestContext(salt=b"s" * 16, deadline_s=time.monotonic() + 0.5, priority=3)
    with pytest.raises(Refusal) as caught:
        async for _ in engine.generate(STORY, Parameters(max_tokens=900), context=soon):
            pass
    assert caught.value.reason is Reason.OUT_OF_TIME


async def test_tritons_metrics_are_among_ours(engine) -> None:
    before = counters()
    _, ended, _ = await answer(engine, STORY, max_tokens=3)
    assert isinstance(ended, Ended)
    ends = time.monotonic() + WAIT_S
    while counters().get("triton.seen.tokens", 0) - before.get("triton.seen.tokens", 0) < 3:
        assert time.monotonic() < ends
        await asyncio.sleep(0.05)
    while counters().get("triton.seen.success", 0) == before.get("triton.seen.success", 0):
        assert time.monotonic() < ends
        await asyncio.sleep(0.05)
    assert gauges()["triton.up"] == 1.0
    assert gauges()["triton.under_way"] == 0.0


async def test_triton_is_counted_from_the_start_of_the_engine_on(
    on_triton, triton, monkeypatch
) -> None:
    answered, look = threading.Event(), Watch._look
    monkeypatch.setattr(Watch, "_look", lambda watch: answered.wait(WAIT_S) and look(watch))
    before, seen = counters(), ("triton.seen.success", "triton.seen.tokens")
    engine = await on_triton(world.MODEL, metrics_url=f"127.0.0.1:{triton.metrics_port}")
    assert all(counters().get(name, 0) == before.get(name, 0) for name in seen)
    await answer(engine, STORY, max_tokens=3)
    answered.set()

    ends = time.monotonic() + WAIT_S
    while any(counters().get(name, 0) == before.get(name, 0) for name in seen):
        assert time.monotonic() < ends
        await asyncio.sleep(0.05)


async def test_a_release_takes_its_engine_from_triton(triton, loaded) -> None:
    settings = world.settings(triton, world.MODEL, models_dir=world.ROOT / "var" / "models")
    store = ModelStore(settings.models_dir)
    loader = StoreLoader(settings, store)
    ((name, version, digest),) = [each for each in loader.known() if each[0] == world.MODEL]
    engine = await asyncio.to_thread(loader.load, name, version, digest)
    try:
        text, _, _ = await answer(engine, STORY, max_tokens=3)
        assert text
        assert engine.info.digest == loaded.info.digest
    finally:
        await engine.close()
    with pytest.raises(Refusal) as caught:
        await answer(engine, STORY, max_tokens=3)
    assert caught.value.reason is Reason.INFERENCE_DOWN
