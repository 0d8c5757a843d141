"""Streaming: what a token costs, and what the first released character costs.

CPU is the server process's own, read from outside; the same engine without a gateway in front of
it, with as many streams at the same pace, is the baseline that is subtracted, and nothing else is.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from statistics import mean, median
from typing import TYPE_CHECKING, NamedTuple

from bench import house, meter
from bench.catalogue import Figure, repeated
from bench.children import child, cores
from bench.echo import pin_load
from bench.governed import watched

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from bench.plan import Plan

NAMES = ("stream_token_us", "ttft_added_cpu_ms")
STREAMS = 16
TOKENS_PER_S = 200
TOKEN_CHARS = 4
STREAM_TOKENS = 4_096
FIRSTS = 8
"""First characters a repeat, one at a time: long enough for some three of the audit log's
checkpoints, so that each repeat has its share of what those cost."""
_SETTLED_S = 0.05
"""After a call was cancelled, until the next: its end, engine and record, is over by then."""


async def measure(plan: Plan) -> list[Figure]:
    """Run the appliance with a paced null engine and measure both figures."""
    pin_load()
    figures: list[Figure] = []
    async with house.appliance(tokens_per_s=TOKENS_PER_S) as caller:
        if plan.wants("ttft_added_cpu_ms"):
            async with watched(plan, caller.pid, "ttft_added_cpu_ms"):
                figures.append(await _first_characters(plan, caller))
        if plan.wants("stream_token_us"):
            async with watched(plan, caller.pid, "stream_token_us"):
                figures.append(await _tokens(plan, caller))
    return figures


async def _first_characters(plan: Plan, caller: house.Caller) -> Figure:
    numbers = itertools.count(2_000_000)
    repeats: list[_First] = []
    alone_us: list[float] = []
    async with _engine_alone(plan, streams=1) as cost_us:
        for _ in range(plan.pairs):
            alone_us.append(await cost_us())
            calls = [await _first_character(caller, next(numbers)) for _ in range(FIRSTS)]
            repeats.append(_First(*map(mean, zip(*calls, strict=True))))
    note = (
        f"{median([one.cpu_ms for one in repeats]):.1f} ms by the whole server process, less "
        f"{mean(one.tokens for one in repeats):.0f} tokens of the engine by itself, "
        f"{median(alone_us):.0f} us each"
    )
    added = (
        one.cpu_ms - one.tokens * us / 1_000 for one, us in zip(repeats, alone_us, strict=True)
    )
    return repeated("ttft_added_cpu_ms", tuple(added), note=note)


class _First(NamedTuple):
    """What it took until the first delta came."""

    cpu_ms: float
    """Of the whole server process."""
    tokens: float
    """That the engine had generated."""


async def _first_character(caller: house.Caller, number: int) -> _First:
    """Measure one call, then cancel it. Begins when what came before is over."""
    await asyncio.sleep(_SETTLED_S)
    asked = house.request(number, max_tokens=STREAM_TOKENS, model=caller.model)
    before = meter.process_cpu_s(caller.pid)
    frames = caller.stream(asked)
    async for frame in frames:
        if frame.HasField("delta"):
            spent = meter.process_cpu_s(caller.pid) - before
            tokens = await caller.newest_tokens()
            frames.cancel()
            return _First(1_000 * spent, tokens)
    msg = "a stream ended without a delta"
    raise house.UnexpectedAnswerError(msg)


@dataclass(slots=True)
class _Tally:
    """What the streams have delivered so far."""

    characters: int = 0
    frames: int = 0
    started: set[int] = field(default_factory=set)
    under_way: asyncio.Event = field(default_factory=asyncio.Event)
    """All streams have delivered something."""

    def add(self, stream: int, delta: str) -> None:
        """Count one frame."""
        self.characters += len(delta)
        self.frames += 1
        self.started.add(stream)
        if len(self.started) == STREAMS:
            self.under_way.set()


async def _tokens(plan: Plan, caller: house.Caller) -> Figure:
    async with _engine_alone(plan, streams=STREAMS) as cost_us:
        alone_us = median([await cost_us() for _ in range(plan.pairs)])
    tally = _Tally()
    async with asyncio.TaskGroup() as group:
        readers = [group.create_task(_read(caller, n, tally)) for n in range(STREAMS)]
        await tally.under_way.wait()
        began, characters = time.monotonic(), tally.characters
        windows = [await _window(plan, caller.pid, tally) for _ in range(plan.pairs)]
        rate = (tally.characters - characters) / TOKEN_CHARS / (time.monotonic() - began)
        for reader in readers:
            reader.cancel()
    note = (
        f"{STREAMS} streams of {TOKENS_PER_S} tokens/s, {rate:,.0f} tokens/s came through; "
        f"{tally.characters / max(tally.frames, 1) / TOKEN_CHARS:.1f} tokens a frame; "
        f"engine alone {alone_us:.1f} us/token subtracted"
    )
    return repeated("stream_token_us", tuple(us - alone_us for us in windows), note=note)


async def _read(caller: house.Caller, stream: int, tally: _Tally) -> None:
    asked = house.request(3_000_000 + stream, max_tokens=STREAM_TOKENS, model=caller.model)
    async for frame in caller.stream(asked):
        if frame.HasField("delta"):
            tally.add(stream, frame.delta)


async def _window(plan: Plan, pid: int, tally: _Tally) -> float:
    """Return CPU microseconds a token over one burst, all streams under way."""
    characters, before = tally.characters, meter.process_cpu_s(pid)
    await asyncio.sleep(plan.burst_s)
    spent = meter.process_cpu_s(pid) - before
    return 1e6 * spent * TOKEN_CHARS / max(tally.characters - characters, 1)


@asynccontextmanager
async def _engine_alone(
    plan: Plan, *, streams: int
) -> AsyncIterator[Callable[[], Awaitable[float]]]:
    """Run the engine in a process of its own; yield what measures its CPU microseconds a token."""
    options = {"streams": streams, "tokens_per_s": TOKENS_PER_S, "seconds": plan.burst_s}
    async with child("engine", options, pinned_to=cores()[0]) as process:
        await process.told()

        async def cost_us() -> float:
            told = await process.ask("cost")
            return float(told["us_per_token"])

        yield cost_us
