"""What a figure was measured on, and how much memory a process holds."""

import os
import platform
import re
from pathlib import Path


def machine():
    cpu = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    memory = int(Path("/proc/meminfo").read_text().split()[1]) // 1_024
    return (
        f"{len(os.sched_getaffinity(0))} cores, {cpu[1] if cpu else platform.machine()}, "
        f"{memory} MiB, Linux {platform.release()}, Python {platform.python_version()}"
    )


def rss_mb(pid):
    """Resident memory of a process, in MiB."""
    found = re.search(r"VmRSS:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return round(int(found[1]) / 1_024, 1)
