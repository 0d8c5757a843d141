"""What the mesh costs on top of the real model: tokens a second and the first text.

The same engine, in the same process, on the same cores, in turns: asked directly, and by clients
over mTLS through gateway and compliance with every control on. Each pair asks the same new prompts
both ways, so nothing comes out of a cache. The clients share the cores with it all.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import house
from bench.catalogue import Figure, paired
from bench.children import WORK, child
from bench.governed import watched
from bench.parts import asked
from bench.statistics import median
from meshkit.contract import Ended, Generated, Parameters
from sealgate.v1 import common_pb2, gateway_pb2

if TYPE_CHECKING:
    from bench.plan import Plan
    from inference.engines.base import Engine

NAMES = ("on_top_tokens_1", "on_top_tokens_16", "on_top_first_ms_1", "on_top_first_ms_16")
STREAMS = (1, 16)
TOKENS = 96
PROMPT = "Write a long story, number {}, about a lighthouse keeper and the sea."

Seen = tuple[float, float]
"""Tokens a second of all streams together; seconds to the first text, the median of them."""


def prompt(number: int) -> str:
    """Return a prompt that no other number has."""
    return PROMPT.format(number)


async def alone(engine: Engine, first: int, streams: int) -> dict[str, Any]:
    """Ask the engine itself; in the server's process."""
    began_s = time.perf_counter()

    async def one(number: int) -> tuple[int, float]:
        first_s = 0.0
        items = engine.generate(asked(prompt(number)), Parameters(max_tokens=TOKENS))
        async with aclosing(items):
            async for item in items:
                if isinstance(item, Generated) and item.text:
                    first_s = first_s or time.perf_counter() - began_s
                if isinstance(item, Ended):
                    return item.usage.completion_tokens, first_s
        msg = "an engine ended without saying so"
        raise house.UnexpectedAnswerError(msg)

    told = await asyncio.gather(*(one(first + n) for n in range(streams)))
    return {"seen": _seen(told, time.perf_counter() - began_s)}


async def through(caller: house.Caller, first: int, streams: int) -> Seen:
    """Ask the same of the gateway, as its clients do."""
    began_s = time.perf_counter()

    async def one(number: int) -> tuple[int, float]:
        first_s, tokens = 0.0, 0
        async for frame in caller.stream(_request(number, caller.model)):
            if frame.HasField("delta"):
                first_s = first_s or time.perf_counter() - began_s
            if frame.HasField("final"):
                tokens = frame.final.usage.completion_tokens
        return tokens, first_s

    told = await asyncio.gather(*(one(first + n) for n in range(streams)))
    return _seen(told, time.perf_counter() - began_s)


def _request(number: int, model: str) -> gateway_pb2.ChatRequest:
    turn = common_pb2.Message(role=common_pb2.ROLE_USER, content=prompt(number))
    parameters = common_pb2.Parameters(max_tokens=TOKENS)
    return gateway_pb2.ChatRequest(model=model, messages=[turn], parameters=parameters)


def _seen(told: list[tuple[int, float]], took_s: float) -> Seen:
    if not all(tokens and first_s for tokens, first_s in told):
        msg = "a stream brought nothing"
        raise house.UnexpectedAnswerError(msg)
    return sum(tokens for tokens, _ in told) / took_s, median([first_s for _, first_s in told])


async def measure(plan: Plan) -> list[Figure]:
    """Run the appliance with the real model; ask both ways in turns."""
    options = {"folder": str(WORK / "on_top"), "slots": max(STREAMS)}
    figures: list[Figure] = []
    async with child("model", options, pinned_to=None) as process:
        told = await process.told()
        async with (
            house.connected(process, told["port"], Path(told["tls"])) as caller,
            watched(plan, process.pid, *NAMES),
        ):
            await _pair(caller, 0, 1)
            for streams in STREAMS:
                figures += await _both_ways(caller, streams, 2 if plan.quick else 5)
    return figures


async def _both_ways(caller: house.Caller, streams: int, pairs: int) -> list[Figure]:
    seen = [await _pair(caller, 10_000 * streams + 100 * n, streams) for n in range(pairs)]
    note = f"{streams} at a time, {TOKENS} tokens each, new prompts, every control on"
    ours, theirs = zip(*seen, strict=True)
    rates = (tuple(rate for rate, _ in side) for side in (ours, theirs))
    firsts = (tuple(1_000 * first_s for _, first_s in side) for side in (ours, theirs))
    return [
        paired(f"on_top_tokens_{streams}", *rates, note=note),
        paired(f"on_top_first_ms_{streams}", *firsts, note=f"{note}; hold-back included"),
    ]


async def _pair(caller: house.Caller, first: int, streams: int) -> tuple[Seen, Seen]:
    theirs = (await caller.process.ask(f"alone={first},{streams}"))["seen"]
    return await through(caller, first, streams), (theirs[0], theirs[1])
