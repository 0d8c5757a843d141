"""What precisions, pruning and distillation do to a real model: every figure of docs/precision.md.

    make text
    python -m bench.precision --model var/models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf \
        --text var/text/sotu --into var/precision --stages quantize,prune,distill,accuracy,speed

A stage needs what the ones before it left under --into, so they may run one by one. The figures go
to report.json, report.md and report.svg there; timed twice, plain and --compiled, a variant keeps
the better. With --tiny it shows that it runs, not how good anything is.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from inference.precision.corpus import read_corpus
from inference.precision.faults import PrecisionError
from inference.precision.making import (
    Making,
    Progress,
    device_of,
    distil,
    prune,
    quantised_variant,
)
from inference.precision.measure import speed_of
from inference.precision.picture import picture
from inference.precision.report import Row, markdown, report_json
from inference.precision.reporting import Measuring, measured
from inference.precision.schemes import Precision
from inference.precision.source import read_source
from inference.precision.training import Training

if TYPE_CHECKING:
    from inference.precision.corpus import Corpus
    from inference.precision.measure import Speed
    from inference.precision.network import Network

TOKENS = 512
TIMED = "bf16,int8-weight,int8-dynamic,int4,fp8-weight,fp8-dynamic,half-depth"
"""Zeros are multiplied like all else, so pruned variants are as fast as bf16."""
STAGES = ("quantize", "prune", "distill", "accuracy", "speed")


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    prune_steps: int = 200
    distil_steps: int = 600
    batch: int = 32
    held_out: int = 160
    decode_steps: int = 128
    tokens: int = TOKENS


TINY = Sizes(prune_steps=2, distil_steps=2, batch=1, held_out=2, decode_steps=4, tokens=64)


class Bench:
    """The model, the text, and where results go."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.into: Path = args.into
        self.sizes = sizes_of(args)
        self.device = device_of(args.device)
        self.model: Path = args.model
        self.text: list[Path] = args.text
        self.source = read_source(args.model)
        self.timed: list[str] = args.timed.split(",")
        self.compiled: bool = args.compiled
        self.heard_at, self.stretches = 0.0, 0

    def corpus(self, train: int) -> Corpus:
        """Read text: so many stretches to train on, and all that is held out."""
        return read_corpus(
            self.text,
            self.source.encoder(),
            tokens=self.sizes.tokens,
            train_stretches=train,
            held_out_stretches=self.sizes.held_out,
        )

    def making(self, name: str) -> Making:
        """Say where a variant goes."""
        return Making(target=self.into / name, base="", device=self.device, heard=self.heard)

    def heard(self, progress: Progress) -> None:
        """Print now and then how far a stage is."""
        if progress.done not in {0, progress.total} and time.monotonic() < self.heard_at + 10:
            return
        self.heard_at = time.monotonic()
        loss = "" if progress.loss is None else f" loss {progress.loss:.4f}"
        print(f"  {progress.stage} {progress.done}/{progress.total}{loss}", flush=True)

    def quantize(self) -> None:
        """Make a variant of every precision that this device can make."""
        for precision in Precision:
            if precision is Precision.FP32:
                continue
            if precision is Precision.FP8_DYNAMIC and self.device.type == "cpu":
                print("  fp8-dynamic needs a GPU: left out")
                continue
            quantised_variant(self.source, self.making(precision.value), precision=precision)

    def prune(self) -> None:
        """Leave out half of the weights, in three ways, and train without leaving out any."""
        text = self.corpus(self.sizes.prune_steps * self.sizes.batch).train
        training = Training(steps=self.sizes.prune_steps, batch=self.sizes.batch, rate=1e-4)
        untrained = replace(training, steps=0)
        source, making = self.source, self.making
        prune(source, text, making("pruned-50-untrained"), untrained, sparsity=0.5)
        made = prune(source, text, making("pruned-50"), training, sparsity=0.5)
        print(f"  zeros after recovery: {made.sparsity:.4%}")
        prune(source, text, making("pruned-2of4"), training, sparsity=0.5, pattern="2:4")
        # Training alone: what of the recovery is text rather than pruning.
        prune(source, text, making("tuned"), training, sparsity=0.0)
        tuned = read_source(self.into / "tuned")
        quantised_variant(tuned, making("tuned-int4"), precision=Precision.INT4)
        quantised_variant(tuned, making("tuned-int8-weight"), precision=Precision.INT8_WEIGHT)

    def distill(self) -> None:
        """Make a student of half the layers."""
        text = self.corpus(self.sizes.distil_steps * self.sizes.batch).train
        training = Training(steps=self.sizes.distil_steps, batch=self.sizes.batch, rate=5e-4)
        keep = self.source.architecture.layers // 2
        untrained = replace(training, steps=0)
        distil(self.source, text, self.making("half-depth-untrained"), untrained, keep=keep)
        distil(self.source, text, self.making("half-depth"), training, keep=keep)

    def variants(self) -> dict[str, Path]:
        """The original, then what there is: as the stages made it."""
        folders = [path for path in self.into.iterdir() if (path / "config.json").exists()]
        made = sorted(folders, key=lambda path: (path / "config.json").stat().st_mtime_ns)
        return {"original": self.model} | {path.name: path for path in made}

    def accuracy(self) -> None:
        """Compare all variants with the original."""
        measuring = self.measuring(0)
        self.stretches = len(measuring.text)
        original = self.original()
        rows = []
        for name, path in self.variants().items():
            variant = read_source(path)
            size = _bytes(path)
            rows.append(measured(name, variant, original, measuring, file_bytes=size))
            print(f"  {name}: {rows[-1].perplexity:.3f} {rows[-1].agreement:.2%}", flush=True)
            self.write(rows)

    def speed(self) -> None:
        """Time those that are computed in a way of their own."""
        text = self.measuring(0).text
        self.stretches = len(text)
        rows = self.rows()
        for name, path in self.variants().items():
            if name not in self.timed:
                continue
            network = read_source(path).network().to(self.device)
            began = time.monotonic()
            steps, compiled = self.sizes.decode_steps, self.compiled
            try:
                took = speed_of(network, text, batch=32, steps=steps, compiled=compiled)
            except (RuntimeError, PrecisionError) as error:  # the compiler's of a product, say
                print(f"  {name}: not timed: {error}", flush=True)
                continue
            finally:
                del network  # before the next one's memory is measured
                torch._dynamo.reset()  # noqa: SLF001 -- the next variant's kernels are others
            at = next(i for i, row in enumerate(rows) if row.name == name)
            rows[at] = better(rows[at], took)
            print(f"  {name}: {took} in {time.monotonic() - began:.0f} s", flush=True)
            self.write(rows)

    def original(self) -> Network:
        """Take the original, in fp32, to the device."""
        return self.source.network().to(self.device)

    def measuring(self, decode_steps: int) -> Measuring:
        """Say what is measured with."""
        batch = 8 if self.device.type == "cuda" else 1
        text = self.corpus(0).held_out
        return Measuring(text=text, device=self.device, batch=batch, decode_steps=decode_steps)

    def rows(self) -> list[Row]:
        """Read back what was measured so far."""
        told = json.loads((self.into / "report.json").read_text())["variants"]
        return [Row(**{k: v for k, v in row.items() if k != "perplexity_rise"}) for row in told]

    def write(self, rows: list[Row]) -> None:
        """Write the report three ways."""
        about = self.about()
        told = json.dumps(report_json(rows, about), indent=1)
        (self.into / "report.json").write_text(told + "\n")
        (self.into / "report.md").write_text(markdown(rows, about))
        (self.into / "report.svg").write_text(picture(rows, "SmolLM2-135M and its variants"))

    def about(self) -> dict[str, Any]:
        """Say where the figures come from."""
        name = torch.cuda.get_device_name() if self.device.type == "cuda" else "CPU"
        return {
            "device": name,
            "torch": torch.__version__,
            "torchao": version("torchao"),
            "stretches": self.stretches,
            "tokens each": self.sizes.tokens,
        }


def better(row: Row, took: Speed) -> Row:
    """Take a speed over if it decodes faster than the last one, or reads faster if none decodes."""
    if (took.decode_per_s, took.prefill_per_s) <= (row.decode_per_s, row.prefill_per_s):
        return row
    return replace(
        row,
        prefill_per_s=took.prefill_per_s,
        decode_per_s=took.decode_per_s,
        timed=took.how,
        peak_bytes=took.peak_bytes,
    )


def sizes_of(args: argparse.Namespace) -> Sizes:
    """How much was asked for."""
    sizes = TINY if args.tiny else Sizes()
    if args.steps is not None:
        sizes = replace(sizes, prune_steps=args.steps, distil_steps=args.steps)
    if args.held_out is not None:
        sizes = replace(sizes, held_out=args.held_out)
    return sizes


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else (path / "model.safetensors").stat().st_size


def main() -> None:
    """Run the stages asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file or a folder")
    parser.add_argument("--text", type=Path, nargs="+", required=True)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--timed", default=TIMED, help="variants that the stage speed times")
    parser.add_argument("--compiled", action="store_true", help="compile before timing")
    parser.add_argument("--steps", type=int, help="to train; 1 where speed alone is wanted")
    parser.add_argument("--held-out", type=int, help="stretches to measure with, at most")
    parser.add_argument("--tiny", action="store_true", help="to see that it runs")
    args = parser.parse_args()
    args.into.mkdir(parents=True, exist_ok=True)
    bench = Bench(args)
    for stage in args.stages.split(","):
        began = time.monotonic()
        print(stage, flush=True)
        getattr(bench, {name: name for name in STAGES}[stage])()
        print(f"  {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
