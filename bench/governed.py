"""Governed unary calls against the echo: throughput and latency of a cache hit, and the miss."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from bench import house
from bench.catalogue import Figure, paired
from bench.children import ROOT
from bench.echo import IN_FLIGHT, Echo, echo_server, pin_load
from bench.profile import calls_summary, profiled
from bench.statistics import median, quantile
from bench.workload import DISTINCT
from sealgate.v1 import gateway_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from bench.children import Child
    from bench.load import Run
    from bench.plan import Plan

NAMES = ("governed_hit_rps", "governed_hit_p50", "governed_hit_p99", "governed_miss_rps")
MISSES_IN_FLIGHT = 16
WATCH_S = 8.0
"""Length of a profiled burst."""
MISS_BATCH = 1_024
"""More than a burst can ask, so that no prompt comes twice."""


async def measure(plan: Plan) -> list[Figure]:
    """Run the appliance and an echo of the same message sizes, and compare them in pairs."""
    pin_load()
    async with house.appliance() as caller, twin_echo(caller) as echo:
        numbers = count(1_000_000, MISS_BATCH)
        figures: list[Figure] = []
        for kind in (HITS, MISSES):
            if plan.wants(kind.name):
                figures.append(await _rate(kind, plan, caller, echo, numbers))
                await _watch(kind, plan, caller, numbers)
        if plan.wants("governed_hit_p50", "governed_hit_p99"):
            figures += await _hit_latency(plan, caller, echo, numbers)
            await _watch(LONE_HITS, plan, caller, numbers)
        return figures


@asynccontextmanager
async def twin_echo(caller: house.Caller) -> AsyncIterator[Echo]:
    """Run an echo whose messages are as long as those of a governed call."""
    (asked,) = caller.requests(0, 1)
    answer = await caller.chat(asked)
    sizes = {"request_bytes": len(asked), "reply_bytes": answer.ByteSize()}
    async with echo_server(**sizes) as echo:
        await echo.drive(in_flight=IN_FLIGHT, seconds=0.5)
        yield echo


def watched(plan: Plan, pid: int, *names: str) -> AbstractAsyncContextManager[None]:
    """Profile the server if the plan asks for the profile of one of these figures."""
    if not plan.profiles(*names):
        return nullcontext()
    return profiled(pid, report_of(plan, "profile"))


async def count_calls(plan: Plan, process: Child, burst: Callable[[], Awaitable[int]]) -> None:
    """Count the server's function calls during a burst, which tells how much was served."""
    await process.ask("watch calls")
    served = await burst()
    rows = (await process.ask("tell calls"))["rows"]
    report_of(plan, "calls").write_text(calls_summary(rows, served))


def report_of(plan: Plan, kind: str) -> Path:
    """Name the file that a profile goes to."""
    return ROOT / "bench" / "results" / f"{kind}-{plan.profile}.txt"


async def warm(caller: house.Caller, first: int) -> list[bytes]:
    """Return DISTINCT requests whose answers are in the cache: fresh, so that none expires."""
    asked = caller.requests(first, DISTINCT)
    for one in asked:
        await caller.chat(one)
    for one in asked:
        house.check(await caller.chat(one), gateway_pb2.CACHE_TIER_L1)
    return asked


async def _new(caller: house.Caller, first: int) -> list[bytes]:
    """Return requests that were never asked, more than a burst can ask."""
    return caller.requests(first, MISS_BATCH)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """What distinguishes hits from misses."""

    names: tuple[str, ...]
    tier: int
    in_flight: int
    prepare: Callable[[house.Caller, int], Awaitable[list[bytes]]]

    @property
    def name(self) -> str:
        return self.names[0]


HITS = _Kind(
    names=("governed_hit_rps",),
    tier=gateway_pb2.CACHE_TIER_L1,
    in_flight=IN_FLIGHT,
    prepare=warm,
)
LONE_HITS = _Kind(
    names=("governed_hit_p50", "governed_hit_p99"),
    tier=gateway_pb2.CACHE_TIER_L1,
    in_flight=1,
    prepare=warm,
)
MISSES = _Kind(
    names=("governed_miss_rps",),
    tier=gateway_pb2.CACHE_TIER_MISS,
    in_flight=MISSES_IN_FLIGHT,
    prepare=_new,
)


async def _rate(
    kind: _Kind, plan: Plan, caller: house.Caller, echo: Echo, numbers: count[int]
) -> Figure:
    ours: list[Run] = []
    theirs: list[Run] = []
    for _ in range(plan.pairs):
        asked = await kind.prepare(caller, next(numbers))
        ours.append(
            await caller.drive(asked, kind.tier, in_flight=kind.in_flight, seconds=plan.burst_s)
        )
        theirs.append(await echo.drive(in_flight=IN_FLIGHT, seconds=plan.burst_s))
    busy = min(run.spent.busy for run in ours), min(run.spent.busy for run in theirs)
    cpu_ms = 1_000 / median([run.rate_per_cpu for run in ours])
    note = (
        f"{cpu_ms:.2f} ms of CPU a call; server core at least {100 * busy[0]:.0f} % busy, "
        f"under the echo {100 * busy[1]:.0f} %"
    )
    rates = (tuple(run.rate for run in runs) for runs in (ours, theirs))
    return paired(kind.name, *rates, note=note)


async def _watch(kind: _Kind, plan: Plan, caller: house.Caller, numbers: count[int]) -> None:
    """Profile one more burst that counts for no figure, if a profile of this kind is asked for."""
    if plan.profiles(*kind.names):
        asked = await kind.prepare(caller, next(numbers))
        async with watched(plan, caller.pid, *kind.names):
            await caller.drive(asked, kind.tier, in_flight=kind.in_flight, seconds=WATCH_S)
        asked = await kind.prepare(caller, next(numbers))

        async def burst() -> int:
            run = await caller.drive(asked, kind.tier, in_flight=kind.in_flight, seconds=WATCH_S)
            return run.calls

        await count_calls(plan, caller.process, burst)


async def _hit_latency(
    plan: Plan, caller: house.Caller, echo: Echo, numbers: count[int]
) -> list[Figure]:
    """Take equal numbers of calls from both, one at a time, a few at a time in turns."""
    ours: dict[float, list[float]] = {0.5: [], 0.99: []}
    theirs: dict[float, list[float]] = {0.5: [], 0.99: []}
    for _ in range(plan.pairs):
        asked = await warm(caller, next(numbers))
        governed = [await _timed(caller, asked[n % DISTINCT]) for n in range(plan.latency_calls)]
        echoed = [await _timed_echo(echo) for _ in range(plan.latency_calls)]
        for q, seen in ours.items():
            seen.append(1_000 * quantile(governed, q))
            theirs[q].append(1_000 * quantile(echoed, q))
    note = f"{plan.pairs} pairs of {plan.latency_calls} calls, one at a time"
    return [
        paired(name, tuple(ours[q]), tuple(theirs[q]), note=note)
        for name, q in (("governed_hit_p50", 0.5), ("governed_hit_p99", 0.99))
    ]


async def _timed(caller: house.Caller, asked: bytes) -> float:
    loop = asyncio.get_running_loop()
    start = loop.time()
    answer = await caller.chat(asked)
    taken = loop.time() - start
    house.check(answer, gateway_pb2.CACHE_TIER_L1)
    return taken


async def _timed_echo(echo: Echo) -> float:
    loop = asyncio.get_running_loop()
    start = loop.time()
    await echo.call(0)
    return loop.time() - start
