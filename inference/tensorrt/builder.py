"""Building a plan with TensorRT-RTX, which needs no GPU for it, in a process that may die.

The library lies in an environment of its own (`deploy/tensorrt.py`). It is closed code that parses
what it is given, so it gets a process without our keys, memory it cannot exceed, and a time;
however it ends, its caller hears of one of a few faults, and nothing half-written stays.

There is no timing cache: TensorRT-RTX chooses kernels without running them (its own timing cache
does nothing since 1.2), and compiles the rest on the GPU that loads the plan.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.tensorrt.faults import Fault, TensorRtError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from inference.architecture import Architecture

__all__ = ["CAPABILITIES", "Limits", "Shapes", "build_plan", "installed_version", "probe_plan"]

CAPABILITIES = {"7.5": "SM75", "8.0": "SM80", "8.6": "SM86", "8.9": "SM89"}
CAPABILITIES |= {"12.0": "SM120", "12.1": "SM121"}
"""What TensorRT-RTX builds for, by NVIDIA's numbers. Hopper (9.0) is not among them."""

_WORKER = Path(__file__).with_name("rtx_worker.py")
_LINE_BYTES_MAX = 1 << 16
_ASK_S = 60.0

Profile = dict[str, tuple[list[int], list[int], list[int]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the builder may use up.

    workspace_bytes: of a GPU's memory, by one layer, when the plan runs. memory_bytes: of this
    machine's, by the builder's process. time_s: to build.
    """

    workspace_bytes: int = 1 << 30
    memory_bytes: int = 16 << 30
    time_s: float = 1_800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shapes:
    """How large a step may be: rows of a decode step, tokens of a prompt's stretch, positions."""

    slots: int
    chunk_tokens: int
    context_tokens: int

    def profiles(self, arch: Architecture) -> list[Profile]:
        """TensorRT's two: decode (a token each), and stretches (of a prompt, or of guesses)."""
        past = [1, max(1, self.context_tokens // 4), self.context_tokens]
        one, rows = [1, 1, 1], [1, self.slots, self.slots]
        few, chunk = [1, 1, self.slots], [1, self.chunk_tokens, self.chunk_tokens]
        return [_profile(arch, rows, one, past), _profile(arch, few, chunk, past)]


def _profile(
    arch: Architecture, batch: Sequence[int], new: Sequence[int], past: Sequence[int]
) -> Profile:
    """Least, usual and most of each input."""
    kept = [[arch.layers, b, arch.kv_heads, p, arch.head] for b, p in zip(batch, past, strict=True)]
    made = {
        "tokens": [list(pair) for pair in zip(batch, new, strict=True)],
        "past_tokens": [[size] for size in batch],
        "past_keys": kept,
        "past_values": kept,
        "wanted": [[1], [1], [max(new)]],
    }
    return {name: (least, usual, most) for name, (least, usual, most) in made.items()}


def installed_version(home: Path) -> str:
    """Return which TensorRT-RTX is installed, by asking it. Cost: 0.3 s.

    Raises:
        TensorRtError: NOT_INSTALLED, KILLED or OUT_OF_TIME.
    """
    return str(_worked(home, {"do": "version"}, time_s=_ASK_S)["version"])


def probe_plan(home: Path, plan: Path) -> None:
    """Ask the library whether it would load a plan on this machine, by the plan's header.

    Raises:
        TensorRtError: NO_GPU, GPU_REFUSED, OTHER_VERSION, PLAN_DAMAGED, or as `installed_version`.
    """
    _worked(home, {"do": "probe", "plan": str(plan.resolve())}, time_s=_ASK_S)


def build_plan(
    home: Path,
    graph: Path,
    plan: Path,
    *,
    capabilities: Sequence[str],
    profiles: Sequence[Profile],
    limits: Limits,
    tell: Callable[[str, int], None] | None = None,
) -> str:
    """Build a plan from a checked graph; return the version of TensorRT-RTX that did.

    Args:
        home: where `deploy/tensorrt.py` put the library.
        graph: `model.onnx`, which `inference.tensorrt.files` found sound.
        plan: where the plan goes, once it is whole.
        capabilities: such as "8.9"; one plan holds all of them.
        profiles: see `Shapes.profiles`.
        limits: what the builder may use up.
        tell: called with what is being done, and how many steps of it all were.

    Raises:
        TensorRtError: see `Fault`; nothing is left at `plan` that was not there before.
    """
    unknown = [name for name in capabilities if name not in CAPABILITIES]
    if unknown or not capabilities:
        raise TensorRtError(Fault.CAPABILITY)
    fresh = plan.with_name(f".{plan.name}.part")
    job = {
        "do": "build",
        "graph": str(graph.resolve()),
        "plan": str(fresh.resolve()),
        "capabilities": [CAPABILITIES[name] for name in capabilities],
        "profiles": list(profiles),
        "workspace_bytes": limits.workspace_bytes,
        "memory_bytes": limits.memory_bytes,
    }
    try:
        told = _worked(home, job, time_s=limits.time_s, tell=tell)
        fresh.replace(plan)
    finally:
        fresh.unlink(missing_ok=True)
    return str(told["version"])


def _worked(
    home: Path,
    job: Mapping[str, Any],
    *,
    time_s: float,
    tell: Callable[[str, int], None] | None = None,
) -> dict[str, Any]:
    python = home.absolute() / ".venv" / "bin" / "python"
    if not python.exists() or not (home / "ready.json").exists():
        raise TensorRtError(Fault.NOT_INSTALLED)
    told = asyncio.run(_talked(python, job, time_s, tell))
    if "fault" in told:
        raise TensorRtError(Fault.__members__.get(str(told["fault"]), Fault.NOT_BUILT))
    return told


async def _talked(
    python: Path,
    job: Mapping[str, Any],
    time_s: float,
    tell: Callable[[str, int], None] | None,
) -> dict[str, Any]:
    """Run the worker; return its last word."""
    with tempfile.TemporaryDirectory(prefix="sealgate-tensorrt-") as scratch:
        process = await asyncio.create_subprocess_exec(
            python,
            "-I",
            _WORKER,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=scratch,
            env={"PATH": os.defpath, "TMPDIR": scratch, "HOME": scratch},
            limit=_LINE_BYTES_MAX,
        )
        try:
            async with asyncio.timeout(time_s):
                return await _listened(process, job, tell)
        except TimeoutError:
            raise TensorRtError(Fault.OUT_OF_TIME) from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            await process.wait()


async def _listened(
    process: asyncio.subprocess.Process,
    job: Mapping[str, Any],
    tell: Callable[[str, int], None] | None,
) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(json.dumps(job).encode())
        await process.stdin.drain()
        process.stdin.close()
    last: dict[str, Any] = {}
    async for line in process.stdout:
        try:
            last = json.loads(line)
        except ValueError:  # the library wrote past its logger
            continue
        if tell is not None and "phase" in last:
            tell(str(last["phase"]), int(last["steps"]))
    code = await process.wait()
    if code != 0 or not last or "phase" in last:
        raise TensorRtError(Fault.KILLED)
    return last
