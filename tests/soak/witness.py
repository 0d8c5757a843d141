"""A witness in a process of its own, and the settings by which a log asks it."""

import asyncio
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

from audit.witness.keys import WitnessKeys

ROOT = Path(__file__).parents[2]
LIMIT_S = 30


@asynccontextmanager
async def witness(folder, vkey_file):
    """Start a witness that takes the log of `vkey_file` on, once that is there; yield settings."""
    keys = WitnessKeys.make(folder, "witness.example/soak")
    ready, logs = folder / "ready", folder / "logs"
    logs.write_text("")
    environment = os.environ | {
        "WITNESS_DATA_DIR": str(folder),
        "WITNESS_LOGS_FILE": str(logs),
        "WITNESS_PORT": "0",
        "WITNESS_READY_FILE": str(ready),
    }
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "audit.witness.main"], cwd=ROOT, env=environment, stderr=log,
            stdout=log,
        )  # fmt: skip
    introducing = asyncio.create_task(_introduce(vkey_file, logs))
    try:
        await _there(ready)
        names = ("classic", "quantum")
        lines = [
            f"witness {name} {key} http://127.0.0.1:{ready.read_text()}"
            for name, key in zip(names, keys.vkeys, strict=True)
        ]
        policy = folder / "policy"
        policy.write_text("\n".join([*lines, f"group both all {' '.join(names)}", "quorum both\n"]))
        yield {"witness_policy": str(policy)}
    finally:
        introducing.cancel()
        child.terminate()
        await asyncio.to_thread(child.wait, LIMIT_S)


async def _there(path):
    async with asyncio.timeout(LIMIT_S):
        while not path.exists():
            await asyncio.sleep(0.05)


async def _introduce(vkey_file, logs):
    await _there(vkey_file)
    logs.write_text(vkey_file.read_text())
