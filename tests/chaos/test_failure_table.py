"""A short run of `make chaos`: cells of the failure table, then random faults of a fixed seed.

One mesh for all of them, in a process (and where it can be had, a network) of its own. What each
cell must show is said in `faults.py` (`Fault.allowed`) and `runner.py`; here it is read off.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos import network
from tests.chaos.table import CELLS

ROOT = Path(__file__).parent.parent.parent
RANDOM_S = 10
PAUSE_MS = 250
SEED = 20261122
RUN_S = 400
CLOSED = {
    ("compliance", "partitioned"): "COMPLIANCE_DOWN",
    ("compliance", "truncated"): "COMPLIANCE_DOWN",
    ("compliance", "wrong digest"): "INVALID_FIELD",
    ("inference", "paused"): "INFERENCE_DOWN",
    ("inference", "partitioned"): "INFERENCE_DOWN",
    ("inference", "truncated"): "INFERENCE_DOWN",
    ("inference", "wrong digest"): "INFERENCE_DOWN",
    ("audit", "partitioned"): "AUDIT_DOWN",
    ("audit", "truncated"): "AUDIT_DOWN",
    ("audit", "wrong digest"): "RECEIPT",
}
"""What callers must have heard: a fault that nobody noticed would show nothing."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """The report of one run."""
    out = tmp_path_factory.mktemp("chaos") / "report.json"
    command = [sys.executable, "-m", "tests.chaos", "--table", "--out", str(out)]
    process = subprocess.Popen(
        [*command, "--seed", str(SEED), "--seconds", str(RANDOM_S), "--pause-ms", str(PAUSE_MS)],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != network.INSIDE},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        told, _ = process.communicate(timeout=RUN_S)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        raise
    assert out.exists(), told[-4_000:]
    return json.loads(out.read_text())


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_a_cell_of_the_failure_table(seen, cell) -> None:
    if cell.kind == "partitioned" and not seen["partitions"]:
        pytest.skip("no network namespace can be had here, so nothing can be partitioned")
    (found,) = (each for each in seen["faults"][: len(CELLS)] if each["fault"] == str(cell))
    assert found["unexpected"] == []
    assert found["recovered_s"] is not None
    assert found["answered"] > 0
    must = CLOSED.get((cell.target, cell.kind))
    assert must is None or found["heard"].get(must, 0) > 0


def test_no_call_fails_while_every_service_is_replaced_or_redis_is_lost(seen) -> None:
    kinds = {("redis", "killed"), *((cell.target, "replaced") for cell in CELLS[:5])}
    found = [
        each for each in seen["faults"][: len(CELLS)] if (each["target"], each["kind"]) in kinds
    ]
    assert len(found) == 6
    assert [sum(each["heard"].values()) for each in found] == [0] * 6
    assert sum(each["answered"] for each in found) > 100


def test_what_was_promised_holds_after_all_of_it(seen) -> None:
    """Canaries, events, receipts, memory: over the table and the random faults after it."""
    assert seen["broken"] == []
    assert seen["canaries that left"] == 0
    assert seen["answered"] > 500
    assert seen["records"] >= 2 * seen["answered"]
    assert len(seen["faults"]) > len(CELLS) - sum(cell.kind == "partitioned" for cell in CELLS)
