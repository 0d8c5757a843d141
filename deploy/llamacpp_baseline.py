#!/usr/bin/env python3
"""Make the environment in which llama.cpp runs as the baseline of our figures.

    python deploy/llamacpp_baseline.py --into var/llamacpp

llama-cpp-python (MIT) is built from its source archive, every version pinned, into `INTO/.venv`;
Sealgate's own environment never holds it. It is built for this CPU, with each of the instruction
sets below that the CPU has. Its own way to find them takes AMX too, and ends by an illegal
instruction where a virtual machine lists AMX without letting it be used.

`INTO/ready.json` says that all of it is in place, and from what; what is there from something else,
or only in part, is made anew. Needs a C++ compiler; 5 to 15 minutes on two cores. Standard library
only. Exits 1 if it could not be built.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("llamacpp-requirements.txt")
READY = "ready.json"
CPU = Path("/proc/cpuinfo")
OPTIONS = {
    "avx2": "GGML_AVX2",
    "fma": "GGML_FMA",
    "f16c": "GGML_F16C",
    "bmi2": "GGML_BMI2",
    "avx512f": "GGML_AVX512",
    "avx512vbmi": "GGML_AVX512_VBMI",
    "avx512_vnni": "GGML_AVX512_VNNI",
}
"""What a CPU says that it has: how llama.cpp is told to use it."""


def main(argv: list[str] | None = None) -> int:
    """Make what is missing; return the exit code."""
    parser = argparse.ArgumentParser(description="Build llama.cpp as a baseline, by itself.")
    parser.add_argument("--into", type=Path, default=Path("var/llamacpp"), metavar="FOLDER")
    parser.add_argument("--check", action="store_true", help="only say whether it is there")
    args = parser.parse_args(argv)
    if is_ready(args.into):
        say(f"{args.into}: already there")
        return 0
    if args.check:
        say(f"{args.into}: not there")
        return 1
    say("building llama.cpp into an environment of its own (5 to 15 minutes)")
    if not install(args.into):
        say("it could not be built; figures against llama.cpp will not be measured")
        return 1
    say(f"{args.into}: ready")
    return 0


def is_ready(folder: Path) -> bool:
    """Whether the environment was made whole, from the pins of today, for this CPU."""
    try:
        found = json.loads((folder / READY).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return bool(found == made_from()) and (folder / ".venv" / "bin" / "python").exists()


def made_from() -> dict[str, str]:
    """What the environment is made from."""
    return {
        "requirements_sha256": hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest(),
        "cmake_args": cmake_args(CPU.read_text("utf-8")),
    }


def cmake_args(cpu: str) -> str:
    """Return the options for a CPU, as /proc/cpuinfo describes it."""
    lines = (line.partition(":")[2].split() for line in cpu.splitlines() if "flags" in line)
    has = set(next(lines, ()))
    known = [f"-D{option}={'ON' if flag in has else 'OFF'}" for flag, option in OPTIONS.items()]
    return " ".join(["-DGGML_NATIVE=OFF", *known])


def install(folder: Path) -> bool:
    """Make the environment; return whether all of it is there."""
    (folder / READY).unlink(missing_ok=True)
    venv.create(folder / ".venv", clear=True, with_pip=True)
    python = folder / ".venv" / "bin" / "python"
    command = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-binary", "llama-cpp-python", "--requirement", str(REQUIREMENTS)]
    made = made_from()
    how = os.environ | {"CMAKE_ARGS": made["cmake_args"]}
    if subprocess.run(command, check=False, env=how).returncode != 0:  # noqa: S603 -- constants and paths of ours
        return False
    (folder / READY).write_text(json.dumps(made, indent=1) + "\n", "utf-8")
    return True


def say(text: str) -> None:
    """Tell progress on stderr."""
    sys.stderr.write(f"llamacpp_baseline: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
