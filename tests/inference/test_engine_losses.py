"""Nobody is forgotten by an engine whose bookkeeping fails between two steps."""

import asyncio

import pytest_asyncio

from inference.engines.base import ANONYMOUS
from inference.engines.runner import CpuRunner
from inference.engines.torch import TorchEngine
from meshkit.contract import Ended, Parameters, Reason, Refusal
from tests.inference.test_engine import ASK, INFO, ScriptedModel, byte_tokenizer, until

WAIT_S = 60


class Immovable(ScriptedModel):
    """Its slots cannot be copied while `stuck`."""

    stuck = False

    def move(self, move) -> None:  # noqa: ARG002 -- a model's signature
        if self.stuck:
            raise RuntimeError


@pytest_asyncio.fixture
async def scripted(make_settings):
    model = Immovable()
    engine = TorchEngine(
        CpuRunner(model, chunk_tokens=256),
        byte_tokenizer(),
        info=INFO,
        default_system="s",
        settings=make_settings(slots=2),
    )
    engine.start()
    yield engine, model
    model.gate.set()
    await engine.close()


async def told(engine, tokens: int):
    """How an answer ends: its last item, or its refusal."""
    try:
        answer = engine.generate(ASK, Parameters(max_tokens=tokens), context=ANONYMOUS)
        return [item async for item in answer][-1]
    except Refusal as refusal:
        return refusal


async def test_who_was_done_hears_of_it_although_the_step_fails_behind_him(scripted) -> None:
    engine, model = scripted
    model.gate.clear()
    short = asyncio.create_task(told(engine, 3))
    await until(lambda: model.prompts)
    long = asyncio.create_task(told(engine, 9))
    await until(lambda: engine._joining)
    model.stuck = True
    model.gate.set()
    ends = await asyncio.wait_for(asyncio.gather(short, long), WAIT_S)

    assert isinstance(ends[0], Ended)
    assert isinstance(ends[1], Refusal)
    assert ends[1].reason is Reason.INFERENCE_DOWN


async def test_who_comes_while_a_leaver_cannot_be_cleared_away_is_told(scripted) -> None:
    engine, model = scripted
    model.step_s = 0.02  # else it may be done before the next one comes
    leaver = engine.generate(ASK, Parameters(max_tokens=200), context=ANONYMOUS)
    await anext(leaver)
    other = asyncio.create_task(told(engine, 200))
    await until(lambda: 2 in model.rows)
    model.stuck, model.step_s = True, 0
    with engine._wake:  # so that the engine finds both at once
        await leaver.aclose()
        comer = asyncio.create_task(told(engine, 2))
        await until(lambda: engine._joining)
    ends = await asyncio.wait_for(asyncio.gather(other, comer), WAIT_S)
    model.stuck = False

    assert {end.reason for end in ends} == {Reason.INFERENCE_DOWN}
    assert isinstance(await told(engine, 2), Ended)
