"""Tokens a second of the real model: the torch engine, SmolLM2-135M, one stream on this CPU."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bench.catalogue import Figure, repeated
from bench.children import child
from bench.governed import watched
from bench.parts import asked
from inference.engines.load import load_engine
from inference.settings import InferenceSettings
from meshkit.contract import Generated, Parameters

if TYPE_CHECKING:
    from bench.plan import Plan
    from inference.engines.base import Engine

NAMES = ("smollm2_decode_tokens_per_s",)
TOKENS = 64
PROMPT = "Write a long story about a lighthouse keeper and the sea."


async def measure(plan: Plan) -> list[Figure]:
    """Let a process of its own load the model and decode, on all cores."""
    options = {"tokens": 16 if plan.quick else TOKENS, "repeats": plan.pairs}
    async with (
        child("decode", options, pinned_to=None) as process,
        watched(plan, process.pid, *NAMES),
    ):
        told = await process.told()
    note = f"greedy, {options['tokens']} tokens, time to the first token left out"
    return [repeated(NAMES[0], tuple(told["tokens_per_s"]), note=note)]


async def decode_rates(*, tokens: int, repeats: int) -> list[float]:
    """Return tokens a second of each of `repeats` answers; one more goes before, to warm up."""
    engine = load_engine(InferenceSettings.load())
    engine.start()
    try:
        return [await _rate(engine, tokens) for _ in range(repeats + 1)][1:]
    finally:
        await engine.close()


async def _rate(engine: Engine, tokens: int) -> float:
    first, count = 0.0, 0
    async for item in engine.generate(asked(PROMPT), Parameters(max_tokens=tokens)):
        if isinstance(item, Generated):
            first = first or time.perf_counter()
            count += item.tokens
    return (count - 1) / (time.perf_counter() - first)
