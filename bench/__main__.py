"""`python -m bench [--only NAME…] [--quick] [--profile NAME] [--list]`.

Exits 0 when everything asked for was measured, whether budgets were met or missed: a miss is
published, not hidden. Exits 1 when a figure could not be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

from bench import machine, report
from bench.catalogue import ENTRIES, Figure
from bench.children import ROOT, WORK, forget_runs
from bench.plan import MEMORY_CALLS, Plan

if TYPE_CHECKING:
    from collections.abc import Sequence

RESULTS = ROOT / "bench" / "results"
SUITES = (
    "echo",
    "governed",
    "meshed",
    "streams",
    "auditing",
    "steps",
    "screening",
    "shared",
    "decode",
    "on_top",
)
"""Modules with `NAMES` and `measure`, in the order in which they run."""


def main(arguments: Sequence[str]) -> int:
    """Run the command line; return the exit status."""
    asked = _parser().parse_args(arguments)
    if asked.list:
        for name, entry in ENTRIES.items():
            print(f"{name:30} {entry.unit:12} {entry.meaning}")
        return 0
    wanted = frozenset(asked.only or ([asked.profile] if asked.profile else ENTRIES))
    plan = Plan(
        wanted=wanted,
        quick=asked.quick,
        profile=asked.profile,
        memory_calls_max=asked.memory_calls,
    )
    forget_runs()
    WORK.mkdir(parents=True)
    described = machine.describe()
    figures, failed = asyncio.run(_measure(plan))
    print("\n" + report.table(figures))
    if failed:
        print(f"\nNOT MEASURED: {', '.join(failed)}", file=sys.stderr)
    else:
        forget_runs()
    _store(plan, described, figures)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.split("\n")[0])
    names = sorted(ENTRIES)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, help="these figures")
    parser.add_argument("--quick", action="store_true", help="smoke: seconds, numbers mean nothing")
    parser.add_argument("--profile", metavar="NAME", choices=names, help="py-spy its server")
    parser.add_argument(
        "--memory-calls",
        type=int,
        default=MEMORY_CALLS,
        metavar="N",
        help="calls that the mesh's memory is watched over",
    )
    parser.add_argument("--list", action="store_true", help="name the figures and stop")
    return parser


async def _measure(plan: Plan) -> tuple[list[Figure], list[str]]:
    """Run the suites that have something wanted; one that breaks does not stop the others."""
    usable = os.sched_getaffinity(0)
    figures: list[Figure] = []
    failed: list[str] = []
    for name in SUITES:
        suite = importlib.import_module(f"bench.{name}")
        wanted = [figure for figure in suite.NAMES if figure in plan.wanted]
        if not wanted:
            continue
        print(f"{name}: {', '.join(wanted)}", flush=True)
        start = time.monotonic()
        try:
            measured: list[Figure] = await suite.measure(plan)
        except Exception:  # noqa: BLE001 -- one broken suite must not hide the others' figures
            traceback.print_exc()
            measured = []
        os.sched_setaffinity(0, usable)
        figures += [figure for figure in measured if figure.name in plan.wanted]
        failed += sorted(set(wanted) - {figure.name for figure in measured})
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
    return figures, failed


def _store(plan: Plan, described: dict[str, Any], figures: Sequence[Figure]) -> None:
    """Keep the results. Smoke runs and profiled runs never become published figures."""
    unpublished = plan.quick or plan.profile is not None
    path = RESULTS / ("unpublished.json" if unpublished else "latest.json")
    report.write(path, described, figures)
    print(f"\n{path.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
