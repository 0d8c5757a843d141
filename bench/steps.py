"""Microseconds per step.

The big steps are timed where they happen, in the true appliance with one call at a time, by the
clock that every step of the pipeline runs under anyway (wall time, waiting included). The small
ones are timed by themselves in process (CPU time).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.catalogue import Figure, repeated
from bench.children import child, cores
from bench.echo import pin_load
from bench.governed import watched

if TYPE_CHECKING:
    from bench.plan import Plan

SMALL = (
    "step_screen_us",
    "step_screen_again_us",
    "step_release_us",
    "holdback_chars",
    "cache_l1_hit_us",
    "step_commit_us",
    "step_seal_us",
    "step_append_us",
    "step_serialise_us",
)
NAMES = SMALL


async def measure(plan: Plan) -> list[Figure]:
    """Measure what is wanted."""
    pin_load()
    return await _small(plan)


async def _small(plan: Plan) -> list[Figure]:
    wanted = [name for name in SMALL if plan.wants(name)]
    options = {"wanted": wanted, "seconds": plan.micro_s, "repeats": plan.pairs}
    async with (
        child("small", options, pinned_to=cores()[0]) as process,
        watched(plan, process.pid, *wanted),
    ):
        told = await process.told()
    return [repeated(name, tuple(means)) for name, means in told.items()]
