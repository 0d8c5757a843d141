"""Faults from the kernel itself: short forms of tests/audit/syscalls.py, which `make chaos` runs
whole. Each program run forks writers, so it is a process of its own."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("fault", ["EIO", "KILL"])
def test_a_system_call_that_fails_or_kills_costs_no_event_and_signs_nothing_bad(tmp_path, fault):
    if shutil.which("strace") is None:
        pytest.fail("apt-get install strace")
    done = subprocess.run(
        [sys.executable, "-m", "tests.audit.syscalls", str(tmp_path), fault, "0.02", "short"],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2_000:]
    told = json.loads(done.stdout)
    assert told["places"] > 250, "the writer no longer does what it did: are calls renamed?"
    assert told["tried"] >= 4
    assert told["hit"] >= 2


def test_nothing_is_told_or_named_before_it_is_durable(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.audit.syscalls", str(tmp_path), "ORDER"],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2_000:]
    told = json.loads(done.stdout)
    assert told["acknowledged"] == 10
    assert told["published"] >= 5
    assert told["fsyncs"] > 50
