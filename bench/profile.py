"""Where a server's time goes: py-spy from outside, boiled down to a page."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sys
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

RATE_HZ = 250
LONGEST_S = 300
TOP = 45


@asynccontextmanager
async def profiled(pid: int, into: Path) -> AsyncIterator[None]:
    """Sample a process while the block runs; leave `into` and the raw stacks beside it.

    Only the thread that holds the interpreter is sampled, and it is not stopped for it: what a
    model's native code or the kernel does meanwhile is not in the profile, and the server runs at
    nearly its usual speed.

    Raises:
        FileNotFoundError: py-spy is not installed.
    """
    raw = into.with_suffix(".stacks")
    raw.parent.mkdir(parents=True, exist_ok=True)
    arguments = (
        *("record", "--pid", str(pid), "--format", "raw", "--output", str(raw)),
        *("--rate", str(RATE_HZ), "--duration", str(LONGEST_S)),
        *("--gil", "--nonblocking"),
    )
    quiet = asyncio.subprocess.DEVNULL
    spy = await asyncio.create_subprocess_exec(_py_spy(), *arguments, stdout=quiet, stderr=quiet)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            spy.send_signal(signal.SIGINT)
        await spy.wait()
    _boil_down(raw, into)


def _boil_down(raw: Path, into: Path) -> None:
    into.write_text(summary(raw.read_text().splitlines()))


def summary(stacks: Iterable[str]) -> str:
    """Boil folded stacks (`frame;frame;frame count`) down to the top lines, own and inclusive.

    A frame that recurs in one stack counts once in the inclusive column. Stacks of imports are left
    out: they are the start, not the work.
    """
    own: Counter[str] = Counter()
    inclusive: Counter[str] = Counter()
    for line in stacks:
        stack, _, count = line.rpartition(" ")
        if "<frozen importlib" in stack:
            continue
        frames = stack.split(";")
        own[frames[-1]] += int(count)
        for frame in set(frames):
            inclusive[frame] += int(count)
    total = own.total()
    return "\n".join(
        [
            f"{total} samples",
            *_table("own time", own, total),
            *_table("inclusive", inclusive, total),
            "",
        ]
    )


def calls_summary(rows: Iterable[tuple[str, str, int, float]], requests: int) -> str:
    """Boil counted calls down to what one request costs, by package and by function.

    Args:
        rows: Module path, function, calls, own seconds; as `bench.servers` tells them.
        requests: How many requests (or events) were served meanwhile.
    """
    packages: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    times: Counter[str] = Counter()
    for path, name, count, own_s in rows:
        packages[path.split("/")[0]] += round(own_s * 1e9)
        functions[f"{path}:{name}"] += round(own_s * 1e9)
        times[f"{path}:{name}"] += count
    lines = [
        f"{times.total() / requests:,.0f} function calls a request on the event loop's thread.",
        "Counting makes each call dearer: compare lines, do not add them up.",
        *("", "own time by package, us a request"),
        *(f"{ns / requests / 1e3:8.1f}  {name}" for name, ns in packages.most_common(12)),
        *("", "own time by function: us a request, calls a request"),
        *(
            f"{ns / requests / 1e3:8.1f} {times[name] / requests:7.1f}  {name}"
            for name, ns in functions.most_common(TOP)
        ),
    ]
    return "\n".join([*lines, ""])


def _table(title: str, counts: Counter[str], total: int) -> list[str]:
    rows = [f"{100 * count / total:5.1f} %  {frame}" for frame, count in counts.most_common(TOP)]
    return ["", title, *rows]


def _py_spy() -> str:
    beside = Path(sys.executable).parent / "py-spy"
    found = str(beside) if beside.exists() else shutil.which("py-spy")
    if found is None:
        msg = "py-spy"
        raise FileNotFoundError(msg)
    return found
