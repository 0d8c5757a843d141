"""The engine around a scripted model: overload, faults, departures, shutdown."""

# ruff: noqa: ARG002 -- the scripted model has a model's signatures
import asyncio
import threading
import time
from contextlib import aclosing

import pytest
import pytest_asyncio
import torch
from structlog.testing import capture_logs

from inference.engines.base import ANONYMOUS, RequestContext
from inference.engines.runner import CpuRunner
from inference.engines.torch import TorchEngine
from inference.prefix import Prefixes
from inference.tokenizer import ChatTokenizer, byte_letters
from meshkit.contract import (
    Ended,
    FinishReason,
    Message,
    ModelInfo,
    Parameters,
    Reason,
    Refusal,
    Role,
)

CONTROL, NORMAL = 3, 1
LETTER = 5
ASK = (Message(Role.USER, "canary"),)
INFO = ModelInfo(name="scripted", digest=b"d" * 32, context_tokens=256, licence="none")


def byte_tokenizer() -> ChatTokenizer:
    """Three control tokens, then one token a byte."""
    letters = list(byte_letters())
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *letters]
    return ChatTokenizer(tokens, [], [CONTROL] * 3 + [NORMAL] * len(letters))


class ScriptedModel:
    """Says the same letter for ever; can be told to stumble, or to wait."""

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.bad_rows = False
        self.step_s = 0.0
        self.gate = threading.Event()
        self.gate.set()
        self.rows: list[int] = []
        self.prompts: list[int] = []
        self.greed = 0
        self.size = len(byte_tokenizer()._raw)

    def prefill(self, tokens, *, slot, start):
        self.prompts.append(len(tokens))
        return self._logits(1)[0]

    def decode(self, tokens, positions):
        self.rows.append(len(tokens))
        logits = self._logits(len(tokens))
        if self.bad_rows:
            logits[0, 7] = torch.nan
        return logits

    def move(self, move) -> None:
        pass

    def _logits(self, rows: int):
        self.gate.wait(60)
        time.sleep(self.step_s)
        if self.greed:
            torch.empty(self.greed)
        if self.fault is not None:
            raise self.fault
        logits = torch.zeros(rows, self.size)
        logits[:, LETTER] = 9
        return logits


@pytest.fixture
def model() -> ScriptedModel:
    return ScriptedModel()


class Ahead(CpuRunner):
    """Queues a step, and works once the step is read: as a device seems to."""

    ahead = 1

    def run(self, step, answers):
        begin = super().run

        def read():
            return begin(step, answers)()

        return read


@pytest_asyncio.fixture
async def make_engine(model, make_settings):
    engines = []

    def make(vocabulary=None, *, runner=CpuRunner, **changes) -> TorchEngine:
        engine = TorchEngine(
            runner(model, chunk_tokens=256, vocabulary=vocabulary),
            byte_tokenizer(),
            info=INFO,
            default_system="s",
            settings=make_settings(**changes),
        )
        engine.start()
        engines.append(engine)
        return engine

    yield make
    model.gate.set()
    for engine in engines:
        await engine.close()
        assert not engine._thread.is_alive()


async def drain(engine, context=ANONYMOUS, ask=ASK, **parameters):
    answer = engine.generate(ask, Parameters(**parameters), context=context)
    return [item async for item in answer]


async def refused(engine, context=ANONYMOUS, ask=ASK, **parameters) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await drain(engine, context, ask, **parameters)
    return caught.value


async def until(condition) -> None:
    """Wait for what must come."""
    for _ in range(6_000):
        if condition():
            return
        await asyncio.sleep(0.005)
    pytest.fail("it never came")


def in_time(seconds: float, **told) -> RequestContext:
    return RequestContext(deadline_s=time.monotonic() + seconds, **told)


async def test_requests_share_forward_passes(make_engine, model) -> None:
    engine = make_engine(slots=4)
    model.gate.clear()
    asked = [asyncio.create_task(drain(engine, max_tokens=20)) for _ in range(6)]
    await asyncio.sleep(0.05)
    model.gate.set()
    answers = await asyncio.gather(*asked)

    assert max(model.rows) == 4
    assert sum(model.rows) == 6 * 19
    assert engine.generated_tokens == 6 * 20
    assert {answer[-1].finish_reason for answer in answers} == {FinishReason.LENGTH}


async def test_beyond_the_queue_a_caller_is_told_to_come_again(make_engine, model) -> None:
    engine = make_engine(slots=1, waiting_max=1, overloaded_retry_ms=321)
    model.gate.clear()
    taken = [asyncio.create_task(drain(engine, max_tokens=2)) for _ in range(2)]
    await asyncio.sleep(0.02)
    refusal = await refused(engine)
    model.gate.set()
    await asyncio.gather(*taken)

    assert (refusal.reason, refusal.retry_after_ms) == (Reason.OVERLOADED, 321)
    assert isinstance((await drain(engine, max_tokens=2))[-1], Ended)


async def test_logits_that_are_no_numbers_end_their_request_alone(make_engine, model) -> None:
    engine = make_engine(slots=2)
    model.gate.clear()
    asked = [asyncio.create_task(drain(engine, max_tokens=9)) for _ in range(2)]
    await asyncio.sleep(0.02)
    model.bad_rows = True
    model.gate.set()
    first, second = await asyncio.gather(*asked, return_exceptions=True)
    model.bad_rows = False

    assert {first.reason, second.reason} == {Reason.INFERENCE_DOWN}
    assert engine.healthy
    assert isinstance((await drain(engine, max_tokens=2))[-1], Ended)


async def test_a_fault_ends_all_requests_and_the_engine_recovers(make_engine, model) -> None:
    engine = make_engine(slots=2, restarts_max=1)
    model.gate.clear()
    asked = [asyncio.create_task(refused(engine)) for _ in range(4)]
    await asyncio.sleep(0.02)
    model.fault = RuntimeError("prompt was: canary")
    with capture_logs() as logs:
        model.gate.set()
        refusals = await asyncio.gather(*asked)
    model.fault = None

    assert {refusal.reason for refusal in refusals} == {Reason.INFERENCE_DOWN}
    assert [entry["kind"] for entry in logs] == ["RuntimeError"]
    assert "canary" not in str(logs)
    assert engine.healthy
    assert isinstance((await drain(engine, max_tokens=2))[-1], Ended)


async def test_a_device_out_of_memory_is_overloaded_however_often(make_engine, model) -> None:
    engine = make_engine(restarts_max=1)
    for _ in range(3):
        model.fault = torch.OutOfMemoryError("no memory for: a prompt")
        refusal = await refused(engine, max_tokens=3)
        assert refusal.reason is Reason.OVERLOADED
        assert refusal.retry_after_ms
    model.fault = None

    assert isinstance((await drain(engine, max_tokens=3))[-1], Ended)
    assert engine.healthy


async def test_an_engine_that_keeps_failing_says_so(make_engine, model) -> None:
    engine = make_engine(restarts_max=1)
    model.fault = RuntimeError()
    reasons = {(await refused(engine)).reason for _ in range(3)}
    engine._thread.join(30)

    assert reasons == {Reason.INFERENCE_DOWN}
    assert not engine.healthy


async def test_faults_with_answers_between_them_do_not_add_up(make_engine, model) -> None:
    engine = make_engine(restarts_max=1)
    for _ in range(4):
        model.fault = RuntimeError()
        assert (await refused(engine)).reason is Reason.INFERENCE_DOWN
        model.fault = None
        assert isinstance((await drain(engine, max_tokens=2))[-1], Ended)

    assert engine.healthy


async def test_closing_ends_what_is_under_way(make_engine, model) -> None:
    engine = make_engine(slots=1)
    asked = [asyncio.create_task(refused(engine, max_tokens=10_000)) for _ in range(2)]
    model.gate.clear()
    await asyncio.sleep(0.02)
    closing = asyncio.create_task(engine.close())
    await asyncio.sleep(0.02)
    model.gate.set()
    await closing

    assert {refusal.reason for refusal in await asyncio.gather(*asked)} <= {Reason.INFERENCE_DOWN}
    assert (await refused(engine)).reason is Reason.INFERENCE_DOWN


async def test_a_prompt_that_leaves_no_room_is_refused(make_engine) -> None:
    engine = make_engine()
    with pytest.raises(Refusal) as caught:
        async for _ in engine.generate((Message(Role.USER, "x" * 300),), Parameters()):
            pass

    assert (caught.value.reason, caught.value.field) == (Reason.INVALID_FIELD, "messages")


@pytest.mark.parametrize(
    "asked",
    [
        *({"temperature": bad} for bad in (-1.0, float("nan"), float("inf"))),
        *({"temperature": 1.0, "top_p": bad} for bad in (0.0, -0.5, 1.5, float("nan"))),
        *({"max_tokens": bad} for bad in (0, -1)),
    ],
)
async def test_what_cannot_be_sampled_is_refused_and_harms_nobody(make_engine, asked) -> None:
    """The gateway lets none of it through; Triton's port may be open to others on its host."""
    engine = make_engine()
    running = asyncio.create_task(drain(engine, max_tokens=60))
    refusal = await refused(engine, **asked)

    assert (refusal.reason, refusal.field) == (Reason.INVALID_FIELD, "parameters")
    assert (await running)[-1].usage.completion_tokens == 60


async def test_a_prompt_of_no_tokens_is_refused(make_engine, monkeypatch) -> None:
    """As a template makes it that writes nothing for these roles."""
    engine = make_engine(vocabulary=300)
    monkeypatch.setattr(engine._tokenizer, "encode_chat", lambda *_, **__: [])
    refusal = await refused(engine)

    assert (refusal.reason, refusal.field) == (Reason.INVALID_FIELD, "messages")


async def test_leaving_frees_the_slot_for_the_next(make_engine, model) -> None:
    engine = make_engine(slots=1, waiting_max=1)
    model.step_s = 0.005
    async with aclosing(engine.generate(ASK, Parameters(max_tokens=100))) as items:
        await anext(items)
        model.gate.clear()
        waiting = asyncio.create_task(drain(engine, max_tokens=3))
        await until(lambda: len(engine._open) == 2)
    model.gate.set()

    answer = await asyncio.wait_for(waiting, 60)
    assert answer[-1].usage.completion_tokens == 3
    assert engine.generated_tokens < 50


async def test_who_waits_beyond_its_deadline_never_touches_the_model(make_engine, model) -> None:
    engine = make_engine(slots=1)
    model.gate.clear()
    running = asyncio.create_task(drain(engine, max_tokens=3))
    await until(lambda: model.prompts)
    refusal = await refused(engine, in_time(0.05))
    model.gate.set()
    await running
    await drain(engine, max_tokens=2)

    assert refusal.reason is Reason.OUT_OF_TIME
    assert len(model.prompts) == 2


async def test_who_comes_too_late_or_could_not_be_done_in_time_is_refused_at_once(
    make_engine, model
) -> None:
    engine = make_engine(slots=1)
    model.step_s = 0.2
    await drain(engine, max_tokens=1)
    late = await refused(engine, in_time(-0.001))
    # 0.2 s for so short a prompt are the best it has seen: twice that will not do for this one.
    hopeless = await refused(engine, in_time(0.4), ask=(Message(Role.USER, "x" * 170),))
    model.step_s = 0
    answer = await drain(engine, in_time(60), max_tokens=2)

    assert (late.reason, hopeless.reason) == (Reason.OUT_OF_TIME, Reason.OUT_OF_TIME)
    assert len(model.prompts) == 2
    assert isinstance(answer[-1], Ended)


async def test_a_device_that_is_ahead_refuses_nobody_by_a_pace_that_was_not_seen(
    make_engine, model
) -> None:
    engine = make_engine(slots=1, runner=Ahead)
    model.step_s = 0.2
    await drain(engine, max_tokens=1)
    model.step_s = 0
    # Begun in time, it is done in time: a short prompt says nothing of how long this one takes.
    answer = await drain(engine, in_time(1.0), ask=(Message(Role.USER, "x" * 170),), max_tokens=2)

    assert isinstance(answer[-1], Ended)


async def test_an_answer_under_way_ends_with_its_deadline(make_engine, model) -> None:
    engine = make_engine()
    model.step_s = 0.01
    refusal = await refused(engine, in_time(0.1), max_tokens=10_000)
    told = engine.generated_tokens

    assert refusal.reason is Reason.OUT_OF_TIME
    assert (await drain(engine, max_tokens=2))[-1].usage.completion_tokens == 2
    assert engine.generated_tokens <= told + 6


async def test_the_more_important_goes_first(make_engine, model) -> None:
    engine = make_engine(slots=1)
    model.gate.clear()
    asked = [asyncio.create_task(drain(engine, max_tokens=1))]
    await until(lambda: model.prompts)
    for characters, priority in ((20, 0), (30, 2), (40, 1)):
        ask = (Message(Role.USER, "x" * characters),)
        context = RequestContext(priority=priority)
        asked.append(asyncio.create_task(drain(engine, context, ask, max_tokens=1)))
        await asyncio.sleep(0)
    model.gate.set()
    await asyncio.gather(*asked)

    lengths = model.prompts[1:]
    assert [length - min(lengths) for length in lengths] == [10, 20, 0]


async def test_a_step_that_hangs_is_told_and_survived(make_engine, model) -> None:
    engine = make_engine(step_timeout_ms=1_500)
    await drain(engine, max_tokens=1)
    model.gate.clear()
    stuck = await asyncio.wait_for(refused(engine), 20)
    unhealthy, refusal = engine.healthy, await asyncio.wait_for(refused(engine), 20)
    model.gate.set()
    await until(lambda: engine.healthy)

    assert (unhealthy, stuck.reason) == (False, Reason.INFERENCE_DOWN)
    assert refusal.reason is Reason.INFERENCE_DOWN
    assert isinstance((await drain(engine, max_tokens=2))[-1], Ended)


@pytest.mark.parametrize("death", [SystemExit, KeyboardInterrupt, GeneratorExit])
async def test_what_would_kill_the_thread_ends_its_requests_and_no_more(
    make_engine, model, death
) -> None:
    engine = make_engine()
    model.fault = death("prompt was: canary")
    with capture_logs() as logs:
        refusal = await refused(engine)
    model.fault = None

    assert refusal.reason is Reason.INFERENCE_DOWN
    assert [entry["kind"] for entry in logs] == [death.__name__]
    assert "canary" not in str(logs)
    assert isinstance((await drain(engine, max_tokens=2))[-1], Ended)


async def test_no_memory_on_a_cpu_is_overloaded_and_the_next_call_works(make_engine, model) -> None:
    """As PyTorch itself says it: nothing has so much."""
    engine = make_engine(restarts_max=0)
    for _ in range(2):
        model.greed = 1 << 50
        refusal = await refused(engine, max_tokens=3)
        assert refusal.reason is Reason.OVERLOADED
        assert refusal.retry_after_ms
    model.fault, model.greed = MemoryError(), 0
    assert (await refused(engine)).reason is Reason.OVERLOADED
    model.fault = None

    assert isinstance((await drain(engine, max_tokens=3))[-1], Ended)


async def test_kept_beginnings_are_let_go_when_a_step_finds_no_memory(make_engine, model) -> None:
    engine = make_engine()
    kept = engine._runner.prefixes = Prefixes(10)
    kept.put((b"key",), torch.zeros(1), 5)
    model.fault = RuntimeError()
    assert (await refused(engine)).reason is Reason.INFERENCE_DOWN
    assert len(kept) == 1
    model.fault = MemoryError()
    assert (await refused(engine)).reason is Reason.OVERLOADED
    model.fault = None

    assert isinstance((await drain(engine, max_tokens=2))[-1], Ended)
    assert (len(kept), kept.size) == (0, 0)


async def test_a_tokenizer_that_knows_more_than_the_model_fails_its_request_alone(
    make_engine, model
) -> None:
    engine = make_engine(vocabulary=225)
    running = asyncio.create_task(drain(engine, max_tokens=30))
    refusal = await refused(engine, ask=(Message(Role.USER, "À"),))

    assert refusal.reason is Reason.INFERENCE_DOWN
    assert (await running)[-1].usage.completion_tokens == 30
    assert engine.healthy


async def test_a_model_that_knows_more_than_the_tokenizer_fails_its_request_alone(
    make_engine, model
) -> None:
    engine = make_engine()
    model.size += 8
    plain = model._logits

    def unknown(rows: int):
        logits = plain(rows)
        logits[:, -1] = 99
        return logits

    model._logits = unknown
    refusal = await refused(engine)
    model._logits = plain

    assert refusal.reason is Reason.INFERENCE_DOWN
    assert isinstance((await drain(engine, max_tokens=3))[-1], Ended)
