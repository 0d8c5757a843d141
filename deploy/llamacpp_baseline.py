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
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

from deploy.side_install import SideInstall, teller

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


def cmake_args(cpu: str) -> str:
    """Return the options for a CPU, as /proc/cpuinfo describes it."""
    lines = (line.partition(":")[2].split() for line in cpu.splitlines() if "flags" in line)
    has = set(next(lines, ()))
    known = [f"-D{option}={'ON' if flag in has else 'OFF'}" for flag, option in OPTIONS.items()]
    return " ".join(["-DGGML_NATIVE=OFF", *known])


BUILT_WITH = cmake_args(CPU.read_text("utf-8"))
BY_SOURCE = ("--no-binary", "llama-cpp-python")
SIDE = SideInstall("llamacpp-requirements.txt", BY_SOURCE, {"cmake_args": BUILT_WITH})
is_ready, say = SIDE.is_ready, teller("llamacpp_baseline")


def main(argv: list[str] | None = None) -> int:
    """Make what is missing; return the exit code."""
    parser = argparse.ArgumentParser(description="Build llama.cpp as a baseline, by itself.")
    parser.add_argument("--into", type=Path, default=Path("var/llamacpp"), metavar="FOLDER")
    parser.add_argument("--check", action="store_true", help="only say whether it is there")
    args = parser.parse_args(argv)
    if args.check and not is_ready(args.into):
        say(f"{args.into}: not there")
        return 1
    return SIDE.ensure(
        args.into,
        install,
        say,
        begins="building llama.cpp into an environment of its own (5 to 15 minutes)",
        failed="it could not be built; figures against llama.cpp will not be measured",
    )


def install(folder: Path) -> bool:
    """Make the environment; return whether all of it is there."""
    return SIDE.install(folder, CMAKE_ARGS=BUILT_WITH)


if __name__ == "__main__":
    sys.exit(main())
