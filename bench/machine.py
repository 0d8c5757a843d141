"""What the figures were measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from bench.children import ROOT, WORK
from inference.engines.jit.compiled import cpu_dots


def describe() -> dict[str, Any]:
    """Describe the machine: what a reader needs to compare figures, and no host name."""
    return {
        "cpu": _cpu(),
        "instructions": _instructions(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "kernel": platform.release(),
        "filesystem": _filesystem(WORK),
        "python": platform.python_version(),
        "grpcio": importlib.metadata.version("grpcio"),
        "commit": _commit(),
        "load_1m_before": round(os.getloadavg()[0], 2),
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _instructions() -> str:
    """Return what the compiled step of a model is made of here: one CPU's name may hide others."""
    dots = cpu_dots()
    return dots.name if dots else "none"


def _filesystem(folder: Path) -> str:
    """Return the type of the file system that holds a folder: the longest mount point wins."""
    at = str(folder.resolve())
    best = ("", "unknown")
    for line in Path("/proc/mounts").read_text().splitlines():
        _device, point, kind, *_ = line.split()
        inside = at == point or at.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]


def _commit() -> str:
    told = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return told.stdout.strip() or "unknown"
