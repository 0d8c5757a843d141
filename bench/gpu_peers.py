"""vLLM on the shapes of `bench.gpu`, in the same terms, and our figures over its.

    python -m bench.gpu --shape 8b --shape smollm2 --json ours.json
    python -m bench.gpu_peers --shape 8b --shape smollm2 --ours ours.json --python VENV/bin/python

Needs a GPU and `pip install vllm==0.21.0`, which pins another PyTorch than ours: give it an
environment of its own, of Python 3.11 or later, and name that by --python. vLLM runs in bf16, so
ours must be bf16 too. Each shape is a process of its own, so its memory
is free again for whoever comes next. The best of three rounds counts on both sides. A step of
vLLM's is (an answer of 201 tokens - an answer of one) / 200; ours are timed one by one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bench.gpu import ANSWER_TOKENS, PROMPT_TOKENS, SHAPES, bandwidth
from inference.precision.source import config_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from inference.architecture import Architecture

CHILD = Path(__file__).with_name("vllm_child.py")
MARK = "sealgate-figure "
"""What the child's own lines begin with; `vllm_child.py` has the same."""
PRECISION = "bf16"
"""Of vLLM's figures, and so of ours beside them."""
BYTES = 2
"""Of a weight, a key or a value in bf16."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One line: what a number of slots gave there."""

    shape: str
    slots: int
    tokens_per_s: float
    step_ms: float
    roofline: float
    prefill_ms: float


def bytes_a_step(arch: Architecture, slots: int) -> float:
    """What a step must read: the matrices, the head, and keys and values at the mean context."""
    attention = arch.width * arch.head * (2 * arch.heads + 2 * arch.kv_heads)
    feed = 3 * arch.width * arch.hidden
    weights = arch.layers * (attention + feed) + arch.vocabulary * arch.width
    kept = 2 * arch.layers * arch.kv_heads * arch.head * (PROMPT_TOKENS + ANSWER_TOKENS / 2)
    return BYTES * (weights + slots * kept)


def peer(shape: str, told: dict[str, Any], read_bps: float) -> Peer:
    """Put a line of the child's into the terms of `bench.gpu`."""
    slots, step = told["slots"], (told["all_s"] - told["prefill_s"]) / ANSWER_TOKENS
    floor = bytes_a_step(SHAPES[shape], slots) / read_bps
    return Peer(shape, slots, slots / step, step * 1e3, floor / step, told["prefill_s"] * 1e3)


def ratios(ours: Sequence[dict[str, Any]], peers: Sequence[Peer]) -> list[str]:
    """A line for each shape and number of slots that both have: our rate over theirs.

    Raises:
        ValueError: one of ours is not of bf16, or does not say of what it is.
    """
    if any(rate.get("precision") != PRECISION for rate in ours):
        msg = "ours: not every figure says that it is of bf16, as vLLM's are"
        raise ValueError(msg)
    rates = {(rate["shape"], rate["slots"]): rate for rate in ours}
    return [
        f"{there.shape:10} slots {there.slots:4}  ours {here['tokens_per_s']:9,.0f}  "
        f"vLLM {there.tokens_per_s:9,.0f} tokens/s  "
        f"{here['tokens_per_s'] / there.tokens_per_s:5.2f} times; "
        f"roofline {here['roofline']:5.1%} and {there.roofline:5.1%}; "
        f"prompts alone {here['prompts_ms']:6.1f} and {there.prefill_ms:6.1f} ms"
        for there in peers
        if (here := rates.get((there.shape, there.slots)))
    ]


def measured(shape: str, slots: Sequence[int], python: str) -> Iterator[dict[str, Any]]:
    """Run the child; yield its lines as they come, and pass everything else on.

    Raises:
        subprocess.CalledProcessError: it failed; what it said was passed on.
    """
    asked = {
        "config": config_of(SHAPES[shape], ends=(1,)),
        "slots": sorted(slots),
        "prompt": PROMPT_TOKENS,
        "answer": ANSWER_TOKENS,
    }
    # -P (Python 3.11 and later): this folder's statistics.py is not what others mean by that name.
    command = [python, "-P", str(CHILD), json.dumps(asked)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line.startswith(MARK):
                    yield json.loads(line.removeprefix(MARK))
                else:
                    sys.stderr.write(line)
        except BaseException:  # Ctrl-C among them, or whoever reads has left
            process.kill()
            raise
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


def main() -> None:
    """Print a line a number of slots, then the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, action="append")
    parser.add_argument("--slots", default="1,8,32,128")
    parser.add_argument("--python", default=sys.executable, help="of the environment with vLLM")
    parser.add_argument("--ours", type=Path, help="what bench.gpu --json wrote on this card")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    ours = json.loads(args.ours.read_text()) if args.ours else []
    ratios(ours, [])  # refused now rather than after an hour of measuring
    read_bps = bandwidth()
    torch.cuda.empty_cache()
    print(f"{torch.cuda.get_device_name()}: reads {read_bps / 1e12:.2f} TB/s", flush=True)
    peers: list[Peer] = []
    for shape in args.shape or ("smollm2", "8b"):
        for told in measured(shape, list(map(int, args.slots.split(","))), args.python):
            if "version" in told:
                print(f"{shape:10} vLLM {told['version']}, ready in {told['ready_s']:.0f} s")
                continue
            row = peer(shape, told, read_bps)
            peers.append(row)
            print(
                f"{shape:10} slots {row.slots:4}  {row.tokens_per_s:9,.0f} tokens/s  "
                f"{row.step_ms:7.3f} ms a step  {row.roofline:5.1%} of the roofline  "
                f"all first tokens {row.prefill_ms:6.1f} ms",
                flush=True,
            )
            if args.json:
                args.json.write_text(json.dumps([asdict(one) for one in peers], indent=2))
    if ours:
        print(*ratios(ours, peers), sep="\n")


if __name__ == "__main__":
    main()
