"""The audit service in a process of its own, whose clock is set wrong now and then.

    python -m tests.soak.server FOLDER SKEW_S [JSON of AuditSettings]

Prints its port as one line; ends with its standard input. Every few seconds the wall clock that it
sees jumps by up to SKEW_S, forwards or back; monotonic clocks go on.
"""

from __future__ import annotations

from meshkit import tls_floor  # isort: skip -- before grpc, as in every entry point

import asyncio
import json
import random
import sys
import time
from pathlib import Path

from bench.audit_server import audit_server
from meshkit.telemetry import configure_logging

assert tls_floor.in_time()

JUMP_EVERY_S = 3.0


class Jumping:
    """Stands for `time.time` and `time.time_ns`."""

    def __init__(self):
        self.offset_ns = 0
        self._time_ns = time.time_ns

    def time_ns(self):
        return self._time_ns() + self.offset_ns

    def time(self):
        return self.time_ns() / 1e9

    async def jump(self, most_s):
        dice = random.Random(5)
        while True:
            await asyncio.sleep(JUMP_EVERY_S)
            self.offset_ns = int(dice.uniform(-most_s, most_s) * 1e9)


async def serve(folder, skew_s, settings):
    clock = Jumping()
    time.time_ns, time.time = clock.time_ns, clock.time
    async with audit_server(folder, **settings) as port:
        sys.stdout.write(f"{port}\n")
        sys.stdout.flush()
        jumps = asyncio.create_task(clock.jump(skew_s))
        await asyncio.to_thread(sys.stdin.read)
        jumps.cancel()


if __name__ == "__main__":
    configure_logging(stream=sys.stderr)
    more = json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}
    asyncio.run(serve(Path(sys.argv[1]), float(sys.argv[2]), more))
