"""Microseconds per step.

The pipeline's own steps are timed where they happen, in the true appliance, cache hits one at a
time, by the clock that every step runs under anyway: wall time, waiting for the disk included. The
others are timed by themselves in process: CPU time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import governed, house
from bench.catalogue import Figure, repeated
from bench.children import child, cores
from bench.echo import pin_load
from bench.governed import watched
from bench.workload import DISTINCT

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
PIPELINE = {
    "step_authenticate_us": "authenticate",
    "step_admit_us": "admit",
    "step_authorize_us": "authorize",
    "step_look_up_us": "cache.get",
    "step_intent_us": "intent",
    "step_outcome_us": "outcome",
}
"""Figure -> the pipeline's name of the step."""
NAMES = (*SMALL, *PIPELINE)
FIRST = 5_000_000


async def measure(plan: Plan) -> list[Figure]:
    """Measure what is wanted."""
    pin_load()
    figures: list[Figure] = []
    if plan.wants(*PIPELINE):
        figures += await _pipeline(plan)
    if plan.wants(*SMALL):
        figures += await _small(plan)
    return figures


async def _pipeline(plan: Plan) -> list[Figure]:
    runs: list[dict[str, float]] = []
    async with house.appliance() as caller:
        for repeat in range(plan.pairs):
            asked = await governed.warm(caller, FIRST + repeat * DISTINCT)
            await caller.steps()
            for number in range(plan.latency_calls):
                await caller.chat(asked[number % DISTINCT])
            runs.append(await caller.steps())
    return [repeated(name, tuple(run[step] for run in runs)) for name, step in PIPELINE.items()]


async def _small(plan: Plan) -> list[Figure]:
    wanted = [name for name in SMALL if plan.wants(name)]
    options = {"wanted": wanted, "seconds": plan.micro_s, "repeats": plan.pairs}
    async with (
        child("small", options, pinned_to=cores()[0]) as process,
        watched(plan, process.pid, *wanted),
    ):
        told = await process.told()
    return [repeated(name, tuple(means)) for name, means in told.items()]
