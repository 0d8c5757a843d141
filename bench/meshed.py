"""The mesh: five processes on the whole host. Rate of a governed hit, price of a hop, memory.

A hit has four hops: screening, look-up, and two events to the audit log. Their price is the CPU
that the five processes spend on a call beyond what the appliance, the same services in one process,
spends on it in the same run; by four.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from bench import house, meter
from bench.catalogue import Figure, paired, repeated
from bench.children import WORK, all_cores, child
from bench.echo import IN_FLIGHT, pin_load
from bench.governed import twin_echo, warm
from bench.statistics import median
from bench.workload import DISTINCT
from sealgate.v1 import gateway_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bench.echo import Echo
    from bench.plan import Plan

NAMES = ("governed_mesh_rps", "mesh_hop_us", "mesh_memory_idle_mb", "mesh_memory_grown_mb")
HOPS = 4
NEW_EVERY = 20
"""While memory is watched one call in so many asks something new."""
_L1 = gateway_pb2.CACHE_TIER_L1


@dataclass(frozen=True, slots=True)
class Mesh:
    """A running mesh and a warm connection to its gateway."""

    caller: house.Caller
    pids: dict[str, int]

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds of each process so far."""
        return {name: meter.process_cpu_s(pid) for name, pid in self.pids.items()}

    def resident_mb(self) -> dict[str, float]:
        """Resident memory of each process."""
        return {name: _resident_mb(pid) for name, pid in self.pids.items()}


def _resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def measure(plan: Plan) -> list[Figure]:
    """Run the mesh, and beside it, idle, what it is compared with."""
    pin_load()
    figures: list[Figure] = []
    numbers = count(3_000_000, DISTINCT)
    async with running_mesh() as mesh:
        idle = mesh.resident_mb()
        if plan.wants("governed_mesh_rps", "mesh_hop_us"):
            async with twin_echo(mesh.caller) as echo:
                figures += await _rates(plan, mesh, echo, numbers)
        if plan.wants("mesh_memory_idle_mb", "mesh_memory_grown_mb"):
            figures += await _memory(plan, mesh, idle, numbers)
    return figures


@asynccontextmanager
async def running_mesh() -> AsyncIterator[Mesh]:
    """Run the mesh on all cores, with a null engine; everything else is on, Redis too."""
    options = {"folder": str(WORK / "mesh")}
    async with child("mesh", options, pinned_to=all_cores()) as process:
        told = await process.told()
        async with house.connected(process, told["port"], Path(told["tls"])) as caller:
            yield Mesh(caller, told["pids"])


async def _rates(plan: Plan, mesh: Mesh, echo: Echo, numbers: count[int]) -> list[Figure]:
    ours: list[float] = []
    theirs: list[float] = []
    each_us: list[dict[str, float]] = []
    for _ in range(plan.pairs):
        asked = await warm(mesh.caller, next(numbers))
        before = mesh.cpu_s()
        run = await mesh.caller.drive(asked, _L1, in_flight=IN_FLIGHT, seconds=plan.burst_s / 2)
        spent = mesh.cpu_s()
        each_us.append({name: (spent[name] - before[name]) / run.calls * 1e6 for name in spent})
        ours.append(run.calls / run.spent.wall_s)
        theirs.append((await echo.drive(in_flight=IN_FLIGHT, seconds=plan.burst_s / 2)).rate)
    cpu_us = [sum(each.values()) for each in each_us]
    services = ", ".join(
        f"{name} {median([each[name] for each in each_us]):.0f}" for name in sorted(mesh.pids)
    )
    note = (
        f"{median(cpu_us) / 1_000:.2f} ms of CPU a call (us: {services}) on {len(all_cores())} "
        "cores, which the load generator shares; the echo has one to itself; wall time"
    )
    figures = [paired("governed_mesh_rps", tuple(ours), tuple(theirs), note=note)]
    if plan.wants("mesh_hop_us"):
        figures.append(await _hop(plan, cpu_us, numbers))
    return figures


async def _hop(plan: Plan, mesh_us: list[float], numbers: count[int]) -> Figure:
    """Have the appliance do the same, and share out the difference."""
    alone_us: list[float] = []
    async with house.appliance() as caller:
        for _ in range(plan.pairs):
            asked = await warm(caller, next(numbers))
            run = await caller.drive(asked, _L1, in_flight=IN_FLIGHT, seconds=plan.burst_s / 2)
            alone_us.append(run.spent.cpu_s / run.calls * 1e6)
    hops = tuple((a - b) / HOPS for a, b in zip(mesh_us, alone_us, strict=True))
    note = f"CPU on both sides of each of {HOPS} hops of a hit, over one process for all five"
    return repeated("mesh_hop_us", hops, note=note)


async def _memory(
    plan: Plan, mesh: Mesh, idle: dict[str, float], numbers: count[int]
) -> list[Figure]:
    await _ask_many(plan, mesh, numbers)
    after = mesh.resident_mb()
    grown = {name: after[name] - idle[name] for name in idle}
    return [
        Figure(name="mesh_memory_idle_mb", value=sum(idle.values()), note=_each(idle)),
        Figure(
            name="mesh_memory_grown_mb",
            value=sum(grown.values()),
            note=f"{plan.memory_calls} calls, one in {NEW_EVERY} new; {_each(grown)}",
        ),
    ]


def _each(mb: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.0f}" for name, value in sorted(mb.items()))


async def _ask_many(plan: Plan, mesh: Mesh, numbers: count[int]) -> None:
    """Ask so many times, 64 at once; every answer is whole and recorded, wherever it is from."""
    asked = await warm(mesh.caller, next(numbers))
    left = iter(range(plan.memory_calls))
    fresh = count(5_000_000)

    async def ask() -> None:
        for number in left:
            new = number % NEW_EVERY == 0
            one = mesh.caller.requests(next(fresh), 1)[0] if new else asked[number % DISTINCT]
            answer = await mesh.caller.chat(one)
            house.check(answer, answer.cache_tier)

    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(ask())
