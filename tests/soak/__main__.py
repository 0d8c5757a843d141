"""The long forms of the audit log's tests: each by name, with the figure it measured.

    python -m tests.soak [--list] [--seconds N] [--out FILE] [NAME …]

One after another, in processes of their own, for half an hour together and N seconds of steady
load (300 unless said). docs/audit.md says which fault each is about. Exits 1 if one failed;
the others are run all the same.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.soak.machine import machine

ROOT = Path(__file__).parents[2]
FOLDER, SECONDS = "FOLDER", "SECONDS"
"""In a command: a folder of its own, on a disk; how long the load lasts."""


@dataclass(frozen=True)
class Long:
    """`number` is that of the table in docs/audit.md; the command is run by this Python."""

    name: str
    number: str
    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()


LONG = (
    Long("syscalls-eio", "1", ("-m", "tests.audit.syscalls", FOLDER, "EIO", "1", "all")),
    Long("syscalls-enospc", "1", ("-m", "tests.audit.syscalls", FOLDER, "ENOSPC", "1", "all")),
    Long("syscalls-kill", "2", ("-m", "tests.audit.syscalls", FOLDER, "KILL", "1", "all")),
    Long("kills", "2", ("-m", "tests.audit.killed", FOLDER, "500", "long")),
    Long(
        "power-loss",
        "3",
        ("-m", "pytest", "tests/audit/test_durability.py", "-k", "test_power_loss"),
        (("POWER_LOSS_SEEDS", "60"),),
    ),
    Long("tampering", "5", ("-m", "tests.audit.tampering", "1000")),
    Long("writers", "8", ("-m", "tests.audit.writers", "10000")),
    Long(
        "verifiers",
        "10",
        ("-m", "pytest", "tests/audit/test_third_party.py", "-k", "three_verifiers"),
        (("TLOG_RANDOM_SIZES", "300"),),
    ),
    Long("fuzz", "11", ("-m", "tests.fuzz", "--inputs", "2000000", "--seed", "1")),
    Long("histories", "12", ("-m", "tests.audit.histories", "100000", "long")),
    Long("outage", "13, 14", ("-m", "tests.soak.outage", "--seconds", "20")),
    Long("certificates", "17", ("-m", "tests.soak.certificates", "--seconds", "600")),
    Long("foreign", "18", ("-m", "tests.audit.foreign", "250")),
    Long("load", "20", ("-m", "tests.soak.load", "--seconds", SECONDS)),
    Long("million", "10", ("-m", "tests.soak.million")),
    Long("mutations", "all", ("-m", "tests.mutations")),
)


def say(text):
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def figures(text):
    """Return what a program printed: all of it if it is JSON, or its last line that is, or that."""
    lines = [line for line in text.splitlines() if line.strip()]
    for found in (text, *reversed(lines)):
        if found.startswith("{"):
            with suppress(ValueError):
                return json.loads(found)
    return lines[-1] if lines else ""


def run(long, seconds):
    """Run one; return what it measured."""
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        put = {FOLDER: folder, SECONDS: str(seconds)}
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, *(put.get(word, word) for word in long.command)],
            cwd=ROOT, env=os.environ | dict(long.env), capture_output=True, text=True, check=False,
        )  # fmt: skip
    found = {
        "test": long.number,
        "ok": done.returncode == 0,
        "took_s": round(time.monotonic() - start, 1),
        "figures": figures(done.stdout),
    }
    if done.returncode:
        found["error"] = done.stderr[-2_000:]
    return found


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--list", action="store_true", help="say what there is, run nothing")
    parser.add_argument("--seconds", type=float, default=300.0, help="of steady load")
    parser.add_argument("--out", type=Path, default=None, help="JSON of all figures")
    asked = parser.parse_args()
    if unknown := set(asked.names) - {each.name for each in LONG}:
        parser.error(f"there is no {', '.join(sorted(unknown))}; see --list")
    if asked.list:
        for each in LONG:
            say(f"{each.number:>3}  {each.name:16} python {' '.join(each.command)}")
        return 0
    found = {"machine": machine()}
    for long in LONG:
        if not asked.names or long.name in asked.names:
            found[long.name] = run(long, asked.seconds)
            say(f"{long.name}: {json.dumps(found[long.name])}")
    if asked.out is not None:
        asked.out.write_text(json.dumps(found, indent=1))
    return 0 if all(each["ok"] for each in found.values() if isinstance(each, dict)) else 1


if __name__ == "__main__":
    sys.exit(main())
