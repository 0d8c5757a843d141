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
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

from deploy.side_install import PYTHON, WHEELS_BY_HASH, SideInstall, teller

SIDE = SideInstall(
    "tensorrt-requirements.txt",
    WHEELS_BY_HASH,
    {"python": PYTHON},
    holds="lib/*/site-packages/*/libtensorrt_rtx.so.1",
)


def main(argv: list[str] | None = None) -> int:
    """Make what is missing; return the exit code."""
    parser = argparse.ArgumentParser(description="Install TensorRT-RTX by itself.")
    parser.add_argument("--into", type=Path, default=Path("var/tensorrt"), metavar="FOLDER")
    args = parser.parse_args(argv)
    return SIDE.ensure(
        args.into,
        SIDE.install,
        teller("tensorrt"),
        begins="installing TensorRT-RTX into an environment of its own (96 MB to download)",
        failed="pip could not install it",
        done="ready; NVIDIA's licence holds for it, see .dist-info/licenses in it",
    )


if __name__ == "__main__":
    sys.exit(main())
