"""Server processes of their own, pinned to a core, gone when the bench is.

    parent                                child: python -m bench.servers KIND FD JSON
      spawn, pinned ------------------------> builds itself
      told(), one JSON line <---- FD -------- its port, or what it measured by itself
      …load…
      ask("steps") ---- standard input -----> its step times so far; then starts anew
            one JSON line <------ FD --------
      closes stdin -------------------------> end of file: drains and exits

A child that outlives its parent would read end-of-file as well, so none can be left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).parent.parent
RUNS = ROOT / "var" / "bench"
"""On the same disk as the product's data: fsync on a RAM disk would flatter us."""
WORK = RUNS / os.environ.setdefault("BENCH_RUN", str(os.getpid()))
"""This run's own folder, its children's as well: two runs at a time must not meet."""
SERVER_CORE = 0
LOAD_CORE = 1
TOLD_TIMEOUT_S = 240
LINE_BYTES_MAX = 8 * 1_024 * 1_024
"""Of what a child tells at a time: a call count of a whole server is some 100 kB."""
STOP_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class Child:
    """A server process, perhaps still on its way up."""

    pid: int
    log: Path
    _lines: asyncio.StreamReader
    _input: asyncio.StreamWriter

    async def ask(self, word: str) -> dict[str, Any]:
        """Send a word of `bench.servers.ASKS` and wait for the answer. Raises as `told`."""
        self._input.write(f"{word}\n".encode())
        return await self.told()

    async def told(self) -> dict[str, Any]:
        """Wait for the child's next line: the first comes once it is up.

        Raises:
            ChildFailedError: it ended first, or TOLD_TIMEOUT_S passed.
        """
        try:
            line = await asyncio.wait_for(self._lines.readline(), TOLD_TIMEOUT_S)
        except TimeoutError:
            line = b""
        if not line:
            msg = f"a bench server did not come up; see {self.log}"
            raise ChildFailedError(msg)
        told: dict[str, Any] = json.loads(line)
        return told


class ChildFailedError(RuntimeError):
    """A server did not come up; its log says why."""


_USABLE = sorted(os.sched_getaffinity(0))
"""Looked up before anything is pinned: afterwards there would be one core left for both."""


def cores() -> tuple[set[int], set[int]]:
    """Return the cores for the server and for the load: 0 and 1, the same one if there is one."""
    return {_USABLE[SERVER_CORE]}, {_USABLE[min(LOAD_CORE, len(_USABLE) - 1)]}


def all_cores() -> set[int]:
    """Return every core there was before anything was pinned."""
    return set(_USABLE)


@asynccontextmanager
async def child(
    kind: str, options: dict[str, Any], *, pinned_to: set[int] | None
) -> AsyncIterator[Child]:
    """Run `python -m bench.servers KIND` for as long as the block runs.

    Args:
        kind: Which server; see `bench.servers`.
        options: Given to it as JSON.
        pinned_to: Cores for it and all its threads and children; None leaves it all there are.
    """
    WORK.mkdir(parents=True, exist_ok=True)
    log = WORK / f"{kind}.log"
    read_end, write_end = os.pipe()
    try:
        process = await _spawn(kind, options, log, write_end, pinned_to)
    finally:
        os.close(write_end)
    lines = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), os.fdopen(read_end, "rb")
    )
    assert process.stdin is not None
    try:
        yield Child(process.pid, log, lines, process.stdin)
    finally:
        pipe.close()
        await _stop(process)


async def _spawn(
    kind: str, options: dict[str, Any], log: Path, write_end: int, pinned_to: set[int] | None
) -> asyncio.subprocess.Process:
    pinning = {"BENCH_CORES": ",".join(str(core) for core in sorted(pinned_to or ()))}
    arguments = (sys.executable, "-m", "bench.servers", kind, str(write_end), json.dumps(options))
    with log.open("wb") as sink:
        return await asyncio.create_subprocess_exec(
            *arguments,
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=sink,
            stderr=sink,
            pass_fds=(write_end,),
            env=os.environ | pinning,
        )


def forget_runs() -> None:
    """Delete this run's folder, and those of runs whose process is gone."""
    for folder in RUNS.glob("*"):
        if folder == WORK or not Path("/proc", folder.name).exists():
            shutil.rmtree(folder, ignore_errors=True)


def pin_as_told() -> None:
    """Pin this child as its parent asked; before any thread starts, so that all inherit it."""
    if told := os.environ.get("BENCH_CORES"):
        os.sched_setaffinity(0, {int(core) for core in told.split(",")})


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    for ask in (None, process.terminate, process.kill):
        if process.returncode is None and ask is not None:
            with contextlib.suppress(ProcessLookupError):
                ask()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
            return
