"""`python -m tests.chaos [--seconds N] [--seed N] [--table] [--faults "part kind seconds" …]`.

Runs the mesh under load, brings about one fault after another, and holds it to what
docs/ARCHITECTURE.md says. Exits 1 if a promise was broken, with the seed and the faults so far.
"""

from __future__ import annotations

from tests.chaos import network

PARTITIONS = network.enter()  # before anything is started, or grpc imported

from meshkit import tls_floor  # isort: skip  # noqa: E402 -- before grpc, as in every entry point

import argparse  # noqa: E402 -- after the network
import asyncio  # noqa: E402 -- the same
import json  # noqa: E402 -- the same
import random  # noqa: E402 -- the same
import secrets  # noqa: E402 -- the same
import shutil  # noqa: E402 -- the same
import sys  # noqa: E402 -- the same
import tempfile  # noqa: E402 -- the same
import time  # noqa: E402 -- the same
from pathlib import Path  # noqa: E402 -- the same

from meshkit.telemetry import configure_logging  # noqa: E402 -- the same
from tests.chaos.faults import Fault, drawn  # noqa: E402 -- the same
from tests.chaos.runner import Limits, Run, promises_kept  # noqa: E402 -- the same
from tests.chaos.say import say  # noqa: E402 -- the same
from tests.chaos.table import CELLS  # noqa: E402 -- the same
from tests.chaos.world import world  # noqa: E402 -- the same

assert tls_floor.in_time()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="for random faults")
    parser.add_argument("--seed", type=int, default=None, help="of the faults; default: drawn")
    parser.add_argument("--table", action="store_true", help="first, each cell of the table")
    parser.add_argument("--faults", nargs="*", default=[], help="'part kind seconds', instead")
    parser.add_argument("--pause-ms", type=float, default=50.0, help="of a caller between calls")
    parser.add_argument("--recovery-s", type=float, default=45.0, help="after a fault, at most")
    parser.add_argument("--growth-mb", type=float, default=256.0, help="of a process, at most")
    parser.add_argument("--out", type=Path, default=None, help="JSON of all that was seen")
    return parser


async def _run(asked: argparse.Namespace, seed: int, folder: Path) -> Run:
    limits = Limits(recovery_s=asked.recovery_s, growth_mb=asked.growth_mb)
    dice = random.Random(seed)
    async with world(folder) as made:
        run = Run(made, limits)
        async with run.under_load(asked.pause_ms / 1_000):
            for told in asked.faults:
                part, *kind, hold_s = told.split(" ")
                await run.suffer(Fault(part, " ".join(kind), float(hold_s)))
            for cell in CELLS if asked.table else ():
                if PARTITIONS or cell.kind != "partitioned":
                    await run.suffer(cell)
            until = time.monotonic() + (0 if asked.faults else asked.seconds)
            while time.monotonic() < until and not run.broken:
                await run.suffer(drawn(dice, partitions=PARTITIONS))
        await promises_kept(run)
        return run


def main() -> int:
    asked = _parser().parse_args()
    seed = asked.seed if asked.seed is not None else secrets.randbelow(2**31)
    configure_logging()
    say(f"seed {seed}; network partitions: {'yes' if PARTITIONS else 'NOT TO BE HAD HERE'}")
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    run = asyncio.run(_run(asked, seed, folder))
    report = run.report() | {"seed": seed, "partitions": PARTITIONS}
    if asked.out is not None:
        asked.out.write_text(json.dumps(report, indent=1))
    say(json.dumps({k: v for k, v in report.items() if k != "faults"}, indent=1))
    if run.broken:
        say(f"BROKEN, seed {seed}; what was kept is under {folder}. Faults:")
        say("\n".join(f"  {each['fault']}" for each in report["faults"]))
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
