"""What can go wrong with a Triton, on a real one with scripted models: typed, and over."""

import asyncio
import time
from contextlib import aclosing
from dataclasses import replace
from types import SimpleNamespace

import pytest

from inference.engines.base import RequestContext
from inference.engines.triton.control import Control, ControlError, State
from inference.engines.triton.load import load_triton
from inference.registry import ModelFileError, load_manifest, model_info
from inference.settings import InferenceSettings
from meshkit.contract import (
    Document,
    Ended,
    FinishReason,
    Generated,
    Message,
    Parameters,
    Reason,
    Refusal,
    Role,
)
from meshkit.counters import counters
from tests.gateway.test_failures import relay
from tests.inference import triton_world as world

WAIT_S = 60.0


def said(text):
    return (Message(Role.USER, text),)


async def answer(engine, text, *, context=None, **parameters):
    given = {} if context is None else {"context": context}
    asked = Parameters(**{"max_tokens": 64} | parameters)
    return [item async for item in engine.generate(said(text), asked, **given)]


async def refused(engine, text, **given):
    with pytest.raises(Refusal) as caught:
        await answer(engine, text, **given)
    return caught.value


async def until(condition):
    ends = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < ends, "it did not come about"
        await asyncio.sleep(0.02)


@pytest.fixture
def events():
    before = counters()
    return lambda name: counters().get(f"triton.{name}", 0) - before.get(f"triton.{name}", 0)


async def test_a_model_that_errs_is_typed_silent_and_asked_again(on_triton, events, capfd) -> None:
    engine = await on_triton("scripted")

    refusal = await refused(engine, "fail canary-4711")
    assert refusal.reason is Reason.INFERENCE_DOWN
    assert "4711" not in str(refusal)
    assert "4711" not in "".join(capfd.readouterr())
    assert events("failed.error") == 1
    assert [item.text for item in await answer(engine, "say 2") if isinstance(item, Generated)]


@pytest.mark.parametrize("fault", ["bad", "more", "huge"])
async def test_what_cannot_be_an_answer_is_none(on_triton, events, fault) -> None:
    engine = await on_triton("scripted")

    assert (await refused(engine, fault)).reason is Reason.INFERENCE_DOWN
    assert events("failed.shape") == 1
    assert isinstance((await answer(engine, "say 1"))[-1], Ended)


async def test_a_model_that_falls_silent_is_given_up(on_triton, events) -> None:
    engine = await on_triton("scripted", silence_ms_max=2_000)

    assert (await refused(engine, "hang")).reason is Reason.INFERENCE_DOWN
    assert events("failed.silent") == 1
    assert isinstance((await answer(engine, "say 1"))[-1], Ended)


async def test_a_caller_who_leaves_stops_the_model(on_triton, triton) -> None:
    engine = await on_triton("scripted")
    async with aclosing(engine.generate(said("slow"), Parameters(max_tokens=4_000))) as items:
        for _ in range(3):
            await anext(items)
    steps = triton.metric("sealgate_steps", "scripted")

    await until(lambda: stands_still(triton, "sealgate_steps", "scripted"))
    # Had it gone on, it would have said 4,000 words, 20 a second.
    assert triton.metric("sealgate_steps", "scripted") - steps < 400
    assert isinstance((await answer(engine, "say 1"))[-1], Ended)


def stands_still(triton, name, model):
    before = triton.metric(name, model)
    time.sleep(0.5)
    return before > 0 and triton.metric(name, model) == before


async def test_a_deadline_ends_the_answer_and_the_model(on_triton, triton) -> None:
    engine = await on_triton("scripted")
    soon = RequestContext(deadline_s=time.monotonic() + 0.6)

    assert (await refused(engine, "slow", context=soon, max_tokens=4_000)).reason is (
        Reason.OUT_OF_TIME
    )
    await until(lambda: stands_still(triton, "sealgate_steps", "scripted"))
    past = RequestContext(deadline_s=time.monotonic() - 1)
    assert (await refused(engine, "say 1", context=past)).reason is Reason.OUT_OF_TIME


async def test_streams_are_bounded(on_triton) -> None:
    engine = await on_triton("scripted", streams_max=2)
    many = Parameters(max_tokens=4_000)
    async with (
        aclosing(engine.generate(said("slow"), many)) as first,
        aclosing(engine.generate(said("slow"), many)) as second,
    ):
        await anext(first)
        await anext(second)
        refusal = await refused(engine, "say 1")
        assert (refusal.reason, refusal.retry_after_ms) == (Reason.OVERLOADED, 1_000)
    assert isinstance((await answer(engine, "say 1"))[-1], Ended)


async def test_an_unload_lets_answers_end_and_the_model_is_loaded_again(
    on_triton, triton, events
) -> None:
    engine = await on_triton("scripted")
    place = world.settings(triton, "scripted", models_dir="var/models").triton
    control = Control(place)
    running = engine.generate(said("slow 30"), Parameters(max_tokens=64))
    words = [await anext(running)]

    unloading = asyncio.create_task(asyncio.to_thread(control.unload, "scripted"))
    words += [item async for item in running]
    await unloading
    assert words[-1].usage.completion_tokens == 30
    await until(lambda: engine.healthy and events("event.loaded"))
    assert isinstance((await answer(engine, "say 1"))[-1], Ended)
    control.close()


async def test_without_the_admins_key_nothing_is_loaded(triton, tmp_path) -> None:
    wrong = tmp_path / "key"
    wrong.write_text("another key")
    place = world.settings(triton, "scripted", models_dir="var/models").triton
    for path in (wrong, tmp_path / "gone", None):
        control = Control(place.model_copy(update={"admin_key_file": path}))
        with pytest.raises(ControlError):
            control.load("vllm_old")
        control.close()
    assert Control(place).look("nobody") is State.NO_MODEL


@pytest.fixture
def mortal(tmp_path):
    """A server of one's own, to kill."""
    repository = tmp_path / "repository"
    repository.mkdir()
    world.standin(repository, "scripted")
    with world.running(repository) as server:
        yield server


async def test_a_killed_triton_is_typed_and_used_again(on_triton, mortal, events) -> None:
    engine = await on_triton("scripted", mortal, return_wait_ms=50)
    running = engine.generate(said("slow"), Parameters(max_tokens=4_000))
    await anext(running)

    mortal.kill()
    with pytest.raises(Refusal) as caught:
        [item async for item in running]
    assert caught.value.reason is Reason.INFERENCE_DOWN
    await until(lambda: not engine.healthy)
    assert (await refused(engine, "say 1")).reason is Reason.INFERENCE_DOWN
    assert events("event.away") == 1

    await asyncio.to_thread(mortal.start)
    await until(lambda: engine.healthy)
    ended = (await answer(engine, "say 3"))[-1]
    assert ended.finish_reason is FinishReason.STOP
    assert events("event.loaded") == 1

    # The same model on other hardware: another arithmetic, so not the one that was opened.
    info = model_info(load_manifest(world.MODEL), context_tokens=512)
    other = replaced(info, b'"precision":"', b'"precision":"another, ')
    assert other.digest != engine.info.digest
    mortal.kill()
    world.standin(mortal.repository, "scripted", told=other)
    await asyncio.to_thread(mortal.start)
    await until(lambda: events("event.not_ours") >= 1)
    assert not engine.healthy
    assert (await refused(engine, "say 1")).reason is Reason.INFERENCE_DOWN


def replaced(info, old=b"Apache", new=b"Apachx"):
    """The same model, said to be of another licence, or precision."""
    told = Document("model.manifest", info.documents[0].content.replace(old, new))
    return replace(info, digest=told.digest, documents=(told,))


async def test_a_stub_that_dies_is_typed_and_replaced(on_triton, mortal, events) -> None:
    engine = await on_triton("scripted", mortal)

    assert (await refused(engine, "die")).reason is Reason.INFERENCE_DOWN
    # Triton itself calls the model ready, and starts no other stub.
    await until(lambda: events("event.broken") and engine.healthy)
    assert isinstance((await answer(engine, "say 1"))[-1], Ended)


async def test_a_repository_that_lies_is_not_opened(on_triton, triton) -> None:
    info = model_info(load_manifest(world.MODEL), context_tokens=512)
    world.standin(triton.repository, "liar_of_manifest", told=replaced(info))
    world.standin(triton.repository, "liar_of_digest", told=replace(info, digest=b"d" * 32))
    world.standin(triton.repository, "liar_of_name", told=replace(info, name="another"))
    world.standin(triton.repository, "not_streaming", decoupled=False)
    world.standin(triton.repository, "other_tensors", inputs=world.VLLM_IN)
    for model in (
        *("liar_of_manifest", "liar_of_digest", "liar_of_name"),
        *("not_streaming", "other_tensors", "not_there"),
    ):
        with pytest.raises(ModelFileError, match="cannot be had from Triton"):
            await on_triton(model)


async def test_another_model_is_found_out_by_its_first_response(on_triton, triton, events) -> None:
    world.standin(triton.repository, "liar_later", answers_as=b"d" * 32)
    engine = await on_triton("liar_later")

    assert (await refused(engine, "say 3")).reason is Reason.INFERENCE_DOWN
    assert events("failed.shape") == 1


async def test_a_connection_that_takes_its_time_is_waited_for(on_triton, triton) -> None:
    """A busy machine may need longer for it than the first pause between two tries is."""
    async with relay(triton.port, wait_s=0.5) as (port, cut):
        slow = SimpleNamespace(address=f"{triton.host}:{port}", repository=triton.repository)
        engine = await on_triton("scripted", slow)
        assert isinstance((await answer(engine, "say 1"))[-1], Ended)
        await engine.close()
        cut()


async def test_a_triton_that_is_not_there_is_said_so() -> None:
    settings = InferenceSettings(engine="triton", triton={"url": "127.0.0.1:1", "control_ms": 500})
    with pytest.raises(ModelFileError, match="cannot be had from Triton"):
        await asyncio.to_thread(load_triton, settings)
