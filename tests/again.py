"""Runs what failed once more, by itself: `make test` does so if it was little.

    python -m tests.again STATUS

STATUS is pytest's exit code. A test that fails beside others, on a busy machine, and passes alone
is unsteady: it is named, to be mended, and stops nobody's work. More than `FAILED_MAX` failures, or
one that fails again, are failures.
"""

import json
import subprocess
import sys
from pathlib import Path

FAILED = 1
"""pytest's exit code if tests ran and some failed; it has just written down which."""
FAILED_MAX = 3
NOTES = Path(".pytest_cache", "v", "cache", "lastfailed")


def main():
    status = int(sys.argv[1])
    if status != FAILED:
        return status
    failed = sorted(json.loads(NOTES.read_text()))
    if len(failed) > FAILED_MAX:
        return status
    alone = ["--last-failed", "--last-failed-no-failures=none", "--numprocesses=0"]
    status = subprocess.run([sys.executable, "-m", "pytest", *alone], check=False).returncode
    if status == 0:
        sys.stdout.write("UNSTEADY, passed alone:\n" + "".join(f"  {name}\n" for name in failed))
    return status


if __name__ == "__main__":
    sys.exit(main())
