"""Breaks one line at a time, in a copy of the tree, and sees that the test which guards it fails.

    python -m tests.mutations [--five] [NAME …]

Without names all of tests/mutations/table.py; `--five`: those that proof rests on. Before anything
is broken all the tests named must pass in the copy. Exits 1 if one of them passes on broken code:
then the line is not under test, whatever the coverage says.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.mutations.table import FIVE, TABLE

ROOT = Path(__file__).parents[2]
LIMIT_S = 300
MODELS = Path("var", "models")
FAILED = 1
"""Exit code of pytest if tests ran and failed; others mean that none did."""


def say(text):
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def copied(top):
    """Copy what git knows of, and what it would add; the models, which are neither, by a link."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.splitlines()  # fmt: skip
    for name in listed:
        source, target = ROOT / name, top / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    (top / "var").mkdir()
    (top / MODELS).symlink_to(ROOT / MODELS)


def tested(top, tests):
    """Run tests of the copy; return pytest's exit code."""
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(
        command, cwd=top, env=os.environ | {"PYTHONPATH": str(top), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout[-3_000:]


def survives(top, mutation):
    """Break a line, run its test, mend the line; return why the mutation lives, or nothing."""
    path = top / mutation.file
    sound = path.read_text()
    if sound.count(mutation.old) != 1:
        return "its text is not there once"
    path.write_text(sound.replace(mutation.old, mutation.new))
    try:
        code, said = tested(top, [mutation.test])
    finally:
        path.write_text(sound)
    if code == FAILED:
        return ""
    return "its test passes" if code == 0 else f"its test does not run:\n{said}"


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--five", action="store_true")
    asked = parser.parse_args()
    chosen = [
        m for m in (FIVE if asked.five else TABLE) if not asked.names or m.name in asked.names
    ]
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        top = Path(folder)
        copied(top)
        code, said = tested(top, sorted({mutation.test for mutation in chosen}))
        if code != 0:
            say(f"the tests fail before anything is broken:\n{said}")
            return 1
        alive = 0
        for mutation in chosen:
            why = survives(top, mutation)
            alive += bool(why)
            say(f"{'ALIVE: ' + why if why else 'caught'}  {mutation.name}  by {mutation.test}")
    say(f"{len(chosen) - alive} of {len(chosen)} caught")
    return 1 if alive or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
