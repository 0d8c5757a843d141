"""Streaming: what a token costs, and what the first released character costs.

CPU is the server process's own, read from outside; the same engine without a gateway in front of
it is the baseline that is subtracted.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench import house, meter
from bench.catalogue import Figure, repeated
from bench.children import child, cores
from bench.echo import pin_load
from bench.governed import watched

if TYPE_CHECKING:
    from bench.plan import Plan

NAMES = ("stream_token_us", "ttft_added_cpu_ms")
STREAMS = 16
TOKENS_PER_S = 200
TOKEN_CHARS = 4
STREAM_TOKENS = 4_096
FIRSTS = 24
"""First characters timed, one at a time."""


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
    spent = [
        await _first_character(caller, 2_000_000 + n) for n in range(4 if plan.quick else FIRSTS)
    ]
    note = "whole server process, new prompt each time, baseline not subtracted: an upper bound"
    return repeated("ttft_added_cpu_ms", tuple(1_000 * cpu_s for cpu_s in spent), note=note)


async def _first_character(caller: house.Caller, number: int) -> float:
    """Return the CPU seconds the server spent until the first delta came; then cancel."""
    asked = house.request(number, max_tokens=STREAM_TOKENS, model=caller.model)
    before = meter.process_cpu_s(caller.pid)
    frames = caller.stream(asked)
    async for frame in frames:
        if frame.HasField("delta"):
            spent = meter.process_cpu_s(caller.pid) - before
            frames.cancel()
            return spent
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
    alone_us = await _engine_alone_us(plan)
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


async def _engine_alone_us(plan: Plan) -> float:
    options = {"streams": STREAMS, "tokens_per_s": TOKENS_PER_S, "seconds": plan.burst_s}
    async with child("engine", options, pinned_to=cores()[0]) as process:
        told = await process.told()
        return float(told["us_per_token"])
