#!/usr/bin/env python3
"""Write a Triton model repository with the Latin name model.

    python deploy/triton_names.py --models var/models --into DIR              # Python backend, CPU
    python deploy/triton_names.py --models var/models --into DIR --for gpu    # onnxruntime backend

    DIR/names_latin/config.pbtxt
    DIR/names_latin/1/model.py, names.onnx      cpu: the 8-bit weights that compliance runs itself,
                                                so the same numbers; needs onnxruntime and numpy
                                                in the environment of Triton's stub
    DIR/names_latin/1/model.onnx                gpu: the 4-bit weights as published; ONNX Runtime's
                                                8-bit products are the CPU's alone

In both the input `token_type_ids`, always zero here, is a constant inside the model. `--batching`
lets rows of several requests share a run; findings then depend on neighbours (docs/compliance.md).
The folder appears whole or not at all; one that is there is replaced. Exits 1 if it cannot be.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from compliance.names_base import WeightsError, pinned  # noqa: E402 -- the path comes first
from compliance.names_latin import RAMPART_SHA256  # noqa: E402 -- as above
from compliance.requantise import eight_bit, without_input  # noqa: E402 -- as above

NAME = "names_latin"
LABELS = 35
BATCH_MAX = 32
QUEUE_US = 2_000
"""How long a request may wait for others, with batching."""

CONFIG = """# Made by deploy/triton_names.py.
name: "{name}"
{engine}
max_batch_size: {batch_max}
input [
  {{ name: "input_ids", data_type: TYPE_INT64, dims: [{dims}] }},
  {{ name: "attention_mask", data_type: TYPE_INT64, dims: [{dims}] }}
]
output [
  {{ name: "logits", data_type: TYPE_FP32, dims: [{dims}, {labels}] }}
]
instance_group [ {{ kind: {kind}, count: {instances} }} ]
{more}"""
PARAMETER = 'parameters {{ key: "{key}", value: {{ string_value: "{value}" }} }}\n'


def main(argv: list[str] | None = None) -> int:
    """Write the repository; return the exit code."""
    parser = argparse.ArgumentParser(description="Make a Triton model repository for names.")
    parser.add_argument("--models", type=Path, default=Path("var/models"), metavar="FOLDER")
    parser.add_argument("--into", type=Path, required=True, metavar="DIR")
    parser.add_argument("--for", dest="place", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--instances", type=int, default=1, metavar="N")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of one run on a CPU")
    parser.add_argument("--batching", action="store_true")
    args = parser.parse_args(argv)
    try:
        write(args)
    except (OSError, WeightsError) as error:
        sys.stderr.write(f"triton_names: failed: {error}\n")
        return 1
    sys.stderr.write(f"triton_names: {args.into / NAME}: ready\n")
    return 0


def write(args: argparse.Namespace) -> None:
    """Write the model's folder under another name, then rename it.

    Raises:
        WeightsError: the weights are missing or not the pinned ones.
    """
    weights = pinned(args.models / "rampart", RAMPART_SHA256)["model_q4.onnx"]
    args.into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{NAME}-", dir=args.into) as scratch:
        fresh = Path(scratch) / "fresh"
        version = fresh / "1"
        version.mkdir(parents=True)
        (fresh / "config.pbtxt").write_text(config(args), "utf-8")
        if args.place == "cpu":
            shutil.copyfile(Path(__file__).with_name("triton_names_model.py"), version / "model.py")
            folded = without_input(eight_bit(weights), "token_type_ids")
            (version / "names.onnx").write_bytes(folded)
        else:
            folded = without_input(weights, "token_type_ids")
            (version / "model.onnx").write_bytes(folded)
        if (args.into / NAME).exists():
            (args.into / NAME).rename(Path(scratch) / "old")
        fresh.rename(args.into / NAME)


def config(args: argparse.Namespace) -> str:
    """Return the text of config.pbtxt."""
    cpu = args.place == "cpu"
    more = ""
    if args.batching:
        more += f"dynamic_batching {{ max_queue_delay_microseconds: {QUEUE_US} }}\n"
    if cpu:
        more += PARAMETER.format(key="batching", value=str(args.batching).lower())
        more += PARAMETER.format(key="threads", value=args.threads)
    return CONFIG.format(
        name=NAME,
        engine='backend: "python"' if cpu else 'platform: "onnxruntime_onnx"',
        # Without a batch dimension of its own Triton never joins two requests.
        batch_max=BATCH_MAX if args.batching else 0,
        dims="-1" if args.batching else "-1, -1",
        labels=LABELS,
        kind="KIND_CPU" if cpu else "KIND_GPU",
        instances=args.instances,
        more=more,
    )


if __name__ == "__main__":
    sys.exit(main())
