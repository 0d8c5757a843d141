"""`sealgate models quantize|prune|distill|report`: variants of a model, and what each costs.

A variant of a model in the store goes into the store, under a manifest of its own that names the
model it was made from; with --into it becomes a folder instead. Either way it appears whole or not
at all.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sealgate.cli import BAD_USAGE, DONE, REFUSED, UNAVAILABLE
from sealgate.cli._command import add_command

if TYPE_CHECKING:
    import argparse

    import torch

    from inference.precision.faults import Fault
    from inference.precision.source import Source
    from inference.precision.training import Training

__all__ = ["add_parser"]

_QUANTIZE = """examples:
  sealgate models quantize smollm2-135m-instruct --precision int8-weight
  sealgate models quantize smollm2-135m-instruct --precision int4 --as smollm2-int4
  sealgate models quantize model.gguf --precision bf16 --into var/smollm2-bf16

MODEL is a name in the store, a GGUF file or a folder of safetensors, written with a slash.
docs/precision.md tells what each precision costs. Needs the extra `models`; fp8-dynamic also needs
a GPU that has it (Hopper)."""
_PRUNE = """examples:
  make text
  sealgate models prune smollm2-135m-instruct --sparsity 0.5 --text var/text/sotu
  sealgate models prune acme-chat --sparsity 0.5 --pattern 2:4 --text corpus/ --steps 500

Each tenth file of the text is held out and never trained on. Interrupted, the same command goes on
where it was."""
_DISTILL = """examples:
  make text
  sealgate models distill smollm2-135m-instruct --keep 15 --text var/text/sotu --steps 600

The student begins as that many of the teacher's layers. Interrupted, the same command goes on where
it was."""
_REPORT = """examples:
  sealgate models report smollm2-135m-instruct smollm2-int4 --text var/text/sotu --out report/

Writes report.md, report.json and report.svg: perplexity on held-out text, agreement with the first
MODEL, divergence, sizes, tokens a second."""

_PRECISIONS = (
    "bf16",
    "fp16",
    "fp32",
    "int8-dynamic",
    "int8-weight",
    "int4",
    "fp8-dynamic",
    "fp8-weight",
)
_ELSEWHERE = frozenset({"NEEDS_GPU", "NO_DEVICE", "NO_LIBRARY"})
"""What would be done on another machine, or with more installed."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands that make and measure variants."""
    quantize = _maker(commands, "quantize", "make a variant of another precision", _QUANTIZE)
    quantize.add_argument("--precision", required=True, choices=_PRECISIONS)
    quantize.add_argument("--group", type=int, default=32, help="inputs a scale, of int4 [32]")
    quantize.set_defaults(work=_quantize, kind=lambda args: args.precision)

    prune = _maker(commands, "prune", "leave out weights, and train to do without them", _PRUNE)
    prune.add_argument("--sparsity", type=float, required=True, metavar="SHARE", help="0 to 1")
    prune.add_argument("--pattern", choices=("row", "2:4"), default="row", help="[row]")
    _training(prune, rate=1e-4, steps=200)
    prune.set_defaults(work=_prune, kind=lambda args: f"pruned-{args.sparsity * 100:.0f}")

    distill = _maker(commands, "distill", "make a variant of fewer layers", _DISTILL)
    distill.add_argument("--keep", type=int, required=True, metavar="LAYERS")
    distill.add_argument("--temperature", type=float, default=2.0, help="[2]")
    distill.add_argument(
        "--share", type=float, default=0.7, help="of the teacher in the loss [0.7]"
    )
    _training(distill, rate=5e-4, steps=600)
    distill.set_defaults(work=_distill, kind=lambda args: f"{args.keep}-layers")

    report = _command(commands, "report", "measure variants against their original", _REPORT)
    report.add_argument("variants", nargs="*", metavar="VARIANT")
    report.add_argument("--out", type=Path, required=True, metavar="DIR")
    _text(report)
    report.add_argument("--stretches", type=int, default=40, help="of held-out text, at most [40]")
    report.add_argument("--no-speed", action="store_true", help="time nothing")
    report.set_defaults(work=_report)


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, line: str, epilog: str
) -> argparse.ArgumentParser:
    parser = add_command(commands, name, line, epilog)
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument(
        "--store", type=Path, metavar="DIR", help="the models folder [$SEALGATE_MODELS_DIR]"
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--json", action="store_true", help="print JSON, a line an event")
    parser.set_defaults(run=_run)
    return parser


def _maker(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, line: str, epilog: str
) -> argparse.ArgumentParser:
    parser = _command(commands, name, line, epilog)
    parser.add_argument("--as", dest="name", metavar="NAME", help="[the model's and what it is]")
    parser.add_argument("--into", type=Path, metavar="DIR", help="a folder, not the store")
    return parser


def _text(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--text", type=Path, nargs="+", required=True, metavar="PATH", help="files, folders of .txt"
    )
    parser.add_argument("--tokens", type=int, default=512, help="in a stretch of text [512]")
    parser.add_argument("--batch", type=int, default=8, help="stretches at once [8]")


def _training(parser: argparse.ArgumentParser, *, rate: float, steps: int) -> None:
    _text(parser)
    parser.add_argument("--steps", type=int, default=steps, help=f"[{steps}]")
    parser.add_argument("--rate", type=float, default=rate, help=f"of learning [{rate}]")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the text [0]")


def _run(args: argparse.Namespace) -> int:
    """Do it; tell what goes wrong on standard error, or as JSON."""
    try:
        return _worked(args)
    except ModuleNotFoundError:
        return _say(args, UNAVAILABLE, "NO_LIBRARY", "install the extra `models` of Sealgate first")
    except OSError as failure:
        return _say(args, BAD_USAGE, "UNREADABLE", f"{failure.filename}: {failure.strerror}")


def _worked(args: argparse.Namespace) -> int:
    # Here and below, since the list of models shall not wait for PyTorch.
    import structlog  # noqa: PLC0415 -- as above

    from inference.precision.faults import PrecisionError  # noqa: PLC0415 -- as above
    from inference.registry import ModelFileError  # noqa: PLC0415 -- as above

    if not structlog.is_configured():  # logs by default go where the answer goes
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        told: dict[str, Any] = args.work(args)
    except PrecisionError as error:
        return _say(args, _code(error.fault), error.fault.name, error.fault.value)
    except ModelFileError as error:
        return _say(args, REFUSED, "MODEL", str(error))
    if args.json:
        print(json.dumps(told, ensure_ascii=False))
    return DONE


def _code(fault: Fault) -> int:
    return UNAVAILABLE if fault.name in _ELSEWHERE else REFUSED


def _say(args: argparse.Namespace, code: int, name: str, sentence: str) -> int:
    if args.json:
        print(json.dumps({"error": name}))
    else:
        print(f"sealgate: {sentence}", file=sys.stderr)
    return code


# --- the commands ---------------------------------------------------------------------------


def _quantize(args: argparse.Namespace) -> dict[str, Any]:
    from inference.precision.making import quantised_variant  # noqa: PLC0415 -- as in `_worked`
    from inference.precision.schemes import Precision  # noqa: PLC0415 -- as above
    from sealgate.cli._variants import making  # noqa: PLC0415 -- as above

    precision = Precision.named(args.precision)
    with making(args, precision.told(args.group)) as made:
        quantised_variant(made.source, made.making, precision=precision, group=args.group)
    return made.told()


def _prune(args: argparse.Namespace) -> dict[str, Any]:
    from inference.precision.making import prune  # noqa: PLC0415 -- as in `_worked`
    from sealgate.cli._variants import making  # noqa: PLC0415 -- as above

    told = f"bf16, {args.sparsity:.1%} of each block's weights zero (pattern {args.pattern})"
    with making(args, told) as made:
        text, training = _train_text(args, made.source), _how(args)
        pruning = prune(
            made.source, text, made.making, training, sparsity=args.sparsity, pattern=args.pattern
        )
    return made.told() | {"sparsity": pruning.sparsity}


def _distill(args: argparse.Namespace) -> dict[str, Any]:
    from inference.precision.distilling import Distilling  # noqa: PLC0415 -- as in `_worked`
    from inference.precision.making import distil  # noqa: PLC0415 -- as above
    from sealgate.cli._variants import making  # noqa: PLC0415 -- as above

    how = Distilling(args.temperature, args.share)
    with making(args, f"bf16, {args.keep} layers, distilled") as made:
        text, training = _train_text(args, made.source), _how(args)
        distil(made.source, text, made.making, training, keep=args.keep, distilling=how)
    return made.told()


def _train_text(args: argparse.Namespace, source: Source) -> torch.Tensor:
    from inference.precision.corpus import read_corpus  # noqa: PLC0415 -- as in `_worked`

    stretches = max(args.steps * args.batch, 1)
    return read_corpus(
        args.text,
        source.encoder(),
        tokens=args.tokens,
        train_stretches=stretches,
        held_out_stretches=0,
    ).train


def _how(args: argparse.Namespace) -> Training:
    from inference.precision.training import Training  # noqa: PLC0415 -- as in `_worked`

    return Training(steps=args.steps, batch=args.batch, rate=args.rate, seed=args.seed)


def _report(args: argparse.Namespace) -> dict[str, Any]:
    from sealgate.cli._variants import report  # noqa: PLC0415 -- as in `_worked`

    return report(args)
