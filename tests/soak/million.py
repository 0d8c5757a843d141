"""A log of a million records, made by the audit service's own code, verified by Go and by us.

    python -m tests.soak.million [--records N] [--folder DIR]

In process, without gRPC: intents and outcomes with texts and commitments, payloads sealed, index
on. The folder (some 2.5 GB) is removed at the end. Prints one JSON line; `wall` and `cpu` are
seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import count
from pathlib import Path

from bench.audit_server import ORIGIN
from bench.parts import MemoryKeys
from meshkit.call_id import new_call_id
from meshkit.envelope import keyring
from meshkit.wrapped_keys import FolderWrappedKeys
from sealgate.cli.audit import HOLDS, add_parser
from tests.audit.go_verifier import built
from tests.audit.world import World, make_intent, make_outcome

BATCH = 1_024
UNDER_WAY = 4


def _cpu_s(who):
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


async def write(folder, records):
    """Append until there are `records`; return seconds, and what the service measured."""
    world = World(folder)
    world.signer = type(world.signer)(ORIGIN)
    world.vkey = world.signer.vkey
    left = count(records - 1, -2 * (BATCH // 2))  # the first entry is the log's own

    async def client(audit):
        while (some := min(BATCH, next(left))) > 0:
            events = []
            while len(events) < some:
                call_id = new_call_id()
                events += [make_intent(call_id), make_outcome(call_id)]
            for answer in await audit.append_many(events[:some]):
                assert answer.index >= 0

    start, cpu = time.perf_counter(), _cpu_s(resource.RUSAGE_SELF)
    async with keyring(MemoryKeys(), FolderWrappedKeys(folder / "keys")) as sealer:
        world.sealer = sealer
        settings = {"publish_interval_ms": 1_000, "segment_bytes_max": 8 << 20}
        async with world.open(**settings) as audit:
            await asyncio.gather(*(client(audit) for _ in range(UNDER_WAY)))
            durable_s = time.perf_counter() - start
    return world, {
        "durable_s": round(durable_s, 1),
        "published_s": round(time.perf_counter() - start, 1),
        "cpu_s": round(_cpu_s(resource.RUSAGE_SELF) - cpu, 1),
    }


def timed(work, who):
    start, cpu = time.perf_counter(), _cpu_s(who)
    found = work()
    took = {"wall": round(time.perf_counter() - start, 2), "cpu": round(_cpu_s(who) - cpu, 2)}
    return found, took


def go(world, folder):
    program = built(folder)
    command = [program, world.log, world.data / "vkey"]

    def run():
        return subprocess.run(command, capture_output=True, text=True, check=True)

    done, took = timed(run, resource.RUSAGE_CHILDREN)
    return done.stdout.strip(), took


def ours(world):
    """Run `sealgate audit verify` as its own code does, without the start of Python."""
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    words = ["audit", "verify", "--log", str(world.log), "--vkey", str(world.data / "vkey")]
    args = parser.parse_args([*words, "--json"])
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code, took = timed(lambda: args.run(args), resource.RUSAGE_SELF)
    assert code == HOLDS, said.getvalue()
    return json.loads(said.getvalue())["size"], took


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.soak.million", description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=None)
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="million-"))
    try:
        world, written = asyncio.run(write(folder, asked.records))
        size = sum(path.stat().st_size for path in world.log.rglob("*") if path.is_file())
        by_go, go_took = go(world, folder)
        by_us, our_took = ours(world)
        assert by_go == f"OK {by_us}"
        assert by_us == asked.records
    finally:
        if asked.folder is None:
            shutil.rmtree(folder)
    sys.stdout.write(json.dumps({
        "records": by_us, "log_bytes": size, "written": written, "go": go_took,
        "sealgate": our_took, "cores": os.cpu_count(),
    }) + "\n")  # fmt: skip


if __name__ == "__main__":
    main()
