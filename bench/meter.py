"""What a server process and its core spent between two moments, read from outside.

Other work on the machine must not count against the server under test, and its own waiting must.
So a rate here is requests per second of *available* time: wall time less the time in which
processes other than the server's kept its core busy.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_CPUCLOCK_SCHED = 2


@dataclass(frozen=True, slots=True)
class Reading:
    """Clocks at one moment, all in seconds."""

    wall_s: float
    cpu_s: float
    core_busy_s: float


@dataclass(frozen=True, slots=True)
class Spent:
    """Between two readings."""

    wall_s: float
    cpu_s: float
    """By the server process, all threads."""
    foreign_s: float
    """By anybody else on the server's core."""

    @property
    def available_s(self) -> float:
        """Wall time that the server could have used, used or not."""
        return max(self.wall_s - self.foreign_s, self.cpu_s)

    @property
    def busy(self) -> float:
        """Share of the available time that the server used: near 1, it was the bottleneck."""
        return self.cpu_s / self.available_s if self.available_s else 0.0


def process_cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process so far, all its threads, to the nanosecond.

    Source: clock_getcpuclockid(3); the clock id is made as glibc makes it.

    Raises:
        OSError: there is no such process.
    """
    return time.clock_gettime_ns((~pid << 3) | _CPUCLOCK_SCHED) / 1e9


def core_busy_s(core: int) -> float:
    """Return the seconds a core was not idle since boot; one tick (10 ms) fine.

    Steal counts as busy: the hypervisor's other guests are foreign work too. Source: proc(5).
    """
    user, nice, system, _idle, _iowait, irq, softirq, steal = _ticks(f"cpu{core}")
    return (user + nice + system + irq + softirq + steal) / _TICKS_PER_S


def stolen_s() -> float:
    """Return the seconds since boot in which the hypervisor let others run, a core on average."""
    return _ticks("cpu")[7] / _TICKS_PER_S / (os.cpu_count() or 1)


def _ticks(row: str) -> list[int]:
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name == row:
            return [int(each) for each in fields[:8]]
    msg = f"no {row}"
    raise ValueError(msg)


def read(pid: int, core: int) -> Reading:
    """Read all three clocks."""
    return Reading(time.perf_counter(), process_cpu_s(pid), core_busy_s(core))


def between(before: Reading, after: Reading) -> Spent:
    """Subtract. Foreign time is never negative: the core's clock is coarser than the process's."""
    cpu_s = after.cpu_s - before.cpu_s
    foreign_s = max(0.0, after.core_busy_s - before.core_busy_s - cpu_s)
    return Spent(after.wall_s - before.wall_s, cpu_s, foreign_s)
