#!/usr/bin/env python3
"""NVIDIA TensorRT-RTX, which builds plans on a CPU, in an environment of its own.

    python deploy/tensorrt.py --into var/tensorrt           # install, once

Two wheels, pinned by SHA-256 in `tensorrt-requirements.txt`: 96 MB to download, 240 MB on disk.
They are NVIDIA's, under NVIDIA's licence, which is not a free one: read it in the wheels'
`.dist-info/licenses` before you use them. Sealgate downloads them where you ask for it and ships no
part of them.

Full TensorRT cannot be had so: its packages on PyPI hold no library. TensorRT-RTX needs no GPU to
build; to run its plans it wants an RTX GPU (compute capability 7.5, 8.0, 8.6, 8.9 or 12.x) and
refuses Hopper.

`INTO/ready.json` says that all of it is in place, and from which pins; what is there with other
pins, or only in part, is made anew. Needs glibc 2.28 and Python 3.11. Standard library only. Exits
1 without a network.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("tensorrt-requirements.txt")
READY = "ready.json"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def main(argv: list[str] | None = None) -> int:
    """Make what is missing; return the exit code."""
    parser = argparse.ArgumentParser(description="Install TensorRT-RTX by itself.")
    parser.add_argument("--into", type=Path, default=Path("var/tensorrt"), metavar="FOLDER")
    args = parser.parse_args(argv)
    if is_ready(args.into):
        say(f"{args.into}: already there")
        return 0
    say("installing TensorRT-RTX into an environment of its own (96 MB to download)")
    if not install(args.into):
        say("pip could not install it")
        return 1
    say(f"{args.into}: ready; NVIDIA's licence holds for it, see .dist-info/licenses in it")
    return 0


def is_ready(folder: Path) -> bool:
    """Whether the environment was made whole, from the pins of today."""
    try:
        found = json.loads((folder / READY).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return bool(found == pins()) and any(_packages(folder).glob("*/libtensorrt_rtx.so.1"))


def pins() -> dict[str, str]:
    """What the environment is made from."""
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    return {"requirements_sha256": digest, "python": PYTHON}


def install(folder: Path) -> bool:
    """Make the environment; return whether all of it is there."""
    (folder / READY).unlink(missing_ok=True)
    # Its pip is ours: without one inside it is 20 MB smaller.
    venv.create(folder / ".venv", clear=True, with_pip=False)
    python = folder / ".venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-qq", "--no-compile"]
    pip += ["--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]
    pip += ["--require-hashes", "--requirement", str(REQUIREMENTS)]
    done = subprocess.run(pip, check=False)  # noqa: S603 -- constants and paths of ours
    if done.returncode != 0:
        return False
    (folder / READY).write_text(json.dumps(pins(), indent=1) + "\n", "utf-8")
    return True


def _packages(folder: Path) -> Path:
    return folder.resolve() / ".venv" / "lib" / f"python{PYTHON}" / "site-packages"


def say(text: str) -> None:
    """Tell progress on stderr."""
    sys.stderr.write(f"tensorrt: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
