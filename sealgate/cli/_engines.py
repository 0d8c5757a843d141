"""`sealgate models export-onnx|build-engine|check-engine|compare`: other engines for a model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sealgate.cli import BAD_USAGE, DONE, REFUSED, UNAVAILABLE
from sealgate.cli._command import add_command, count, seconds

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from inference.precision.source import Source
    from inference.tensorrt.export import Exported
    from inference.tensorrt.faults import Fault

__all__ = ["add_parser"]

_EXPORT = """examples:
  sealgate models export-onnx smollm2-135m-instruct --into var/smollm2-onnx
  sealgate models export-onnx ./safetensors --into out --precision fp16 --check docs/audit.md
  sealgate models export-onnx model.gguf --into out --precision fp8 --texts docs/audit.md
  sealgate models add var/smollm2-onnx --name smollm2-onnx --licence Apache-2.0

MODEL is a name in the store, a GGUF file or a folder of safetensors. fp8 wants --texts, by which
it is scaled."""
_BUILD = """examples:
  make tensorrt
  sealgate models build-engine var/smollm2-fp16 --into var/smollm2-plan --for 8.9
  sealgate models build-engine var/smollm2-fp16 --into out --for 8.6 --triton repo --name smollm2

Builds with TensorRT-RTX, which needs no GPU to build and refuses Hopper (9.0). A plan belongs to
the version that built it. exit codes: 0 built, 1 refused, 2 usage, 3 not installed or killed."""
_CHECK = """examples:
  sealgate models check-engine var/smollm2-plan

exit codes: 0 it could be loaded here, 1 it does not hold, 3 no GPU here, or nothing installed."""
_COMPARE = """examples:
  sealgate models compare smollm2-135m-instruct smollm2-onnx --prompts bench/prompts.txt
  sealgate models compare A B --prompts prompts.txt --max-tokens 32 --json

One prompt a line; greedy answers, one model at a time, each in a process of its own. A trial on
this host: digests must hold, signatures are not asked for."""

_PRECISIONS = ("fp32", "fp16", "bf16", "fp8")
_CALIBRATION_STRETCHES = 8
_CHECK_STRETCHES = 8
_MIB = 1 << 20


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands for engines."""
    export = _command(commands, "export-onnx", "write a model as an ONNX graph", _EXPORT)
    export.add_argument("model", metavar="MODEL")
    export.add_argument("--into", type=Path, required=True, metavar="DIR")
    export.add_argument("--precision", choices=_PRECISIONS, default="fp32")
    export.add_argument("--positions", type=count, default=2_048, help="longest context [2048]")
    export.add_argument("--texts", type=Path, metavar="FILE", help="fp8: texts to scale by")
    export.add_argument("--check", type=Path, metavar="FILE", help="compare with PyTorch on a text")
    _store(export)
    export.set_defaults(work=_export)

    build = _command(commands, "build-engine", "build a TensorRT plan from a graph", _BUILD)
    build.add_argument("graph", type=Path, metavar="DIR", help="with model.onnx")
    build.add_argument("--into", type=Path, required=True, metavar="DIR")
    build.add_argument("--for", dest="capabilities", action="append", metavar="N.N", default=[])
    build.add_argument("--library", choices=("tensorrt-rtx", "tensorrt"), default="tensorrt-rtx")
    build.add_argument("--slots", type=count, default=8, help="rows of a decode step [8]")
    build.add_argument(
        "--chunk-tokens", type=count, default=256, help="of a prompt's stretch [256]"
    )
    build.add_argument("--context-tokens", type=count, default=2_048, help="[2048]")
    build.add_argument("--workspace-mib", type=count, default=1_024, help="of the GPU [1024]")
    build.add_argument("--memory-mib", type=count, default=16_384, help="of this machine [16384]")
    build.add_argument("--timeout-s", type=seconds, default=1_800, help="[1800]")
    build.add_argument("--triton", type=Path, metavar="REPOSITORY", help="and put it there")
    build.add_argument("--name", default="step", help="its name in Triton [step]")
    _home(build)
    build.set_defaults(work=_build)

    check = _command(commands, "check-engine", "see whether a plan could be loaded here", _CHECK)
    check.add_argument("folder", type=Path, metavar="DIR", help="with model.plan and plan.json")
    _home(check)
    check.set_defaults(work=_check)

    compare = _command(
        commands, "compare", "two models on the same prompts, side by side", _COMPARE
    )
    compare.add_argument("a", metavar="A")
    compare.add_argument("b", metavar="B")
    compare.add_argument("--prompts", type=Path, required=True, metavar="FILE")
    compare.add_argument("--max-tokens", type=count, default=48, help="[48]")
    compare.add_argument("--threads", type=count, default=2, help="[2]")
    _store(compare)
    compare.set_defaults(work=_compare)


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, line: str, epilog: str
) -> argparse.ArgumentParser:
    parser = add_command(commands, name, line, epilog)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)
    return parser


def _store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store", type=Path, default=Path("var/models"), metavar="DIR", help="[var/models]"
    )


def _home(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tensorrt",
        type=Path,
        default=Path("var/tensorrt"),
        metavar="DIR",
        help="where `make tensorrt` put TensorRT-RTX [var/tensorrt]",
    )


def _run(args: argparse.Namespace) -> int:
    """Do it; tell what goes wrong on standard error, or as JSON."""
    try:
        return _worked(args)
    except ImportError:
        return _say(args, UNAVAILABLE, "library", "install the extra `models` of Sealgate first")
    except OSError as failure:
        return _say(args, BAD_USAGE, "unreadable", f"{failure.filename}: {failure.strerror}")


def _worked(args: argparse.Namespace) -> int:
    # Here and below, since the list of models shall not wait for PyTorch.
    import structlog  # noqa: PLC0415 -- as above

    from inference.precision.faults import PrecisionError  # noqa: PLC0415 -- as above
    from inference.registry import ModelFileError  # noqa: PLC0415 -- as above
    from inference.tensorrt.faults import TensorRtError  # noqa: PLC0415 -- as above
    from inference.triton_repository.folder import RepositoryError  # noqa: PLC0415 -- as above
    from meshkit.contract import Refusal  # noqa: PLC0415 -- as above

    if not structlog.is_configured():
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        told: dict[str, Any] = args.work(args)
    except TensorRtError as error:
        return _say(args, _code(error.fault), error.fault.name.lower(), error.fault.value)
    except (ModelFileError, PrecisionError, RepositoryError) as error:
        return _say(args, REFUSED, "model", str(error))
    except Refusal as refusal:  # a sealed or signed model wants OpenBao, which is not asked here
        return _say(args, UNAVAILABLE, refusal.reason.name.lower(), refusal.reason.value)
    if args.json:
        print(json.dumps(told, ensure_ascii=False))
    return DONE


def _code(fault: Fault) -> int:
    from inference.tensorrt.faults import Fault as Known  # noqa: PLC0415 -- as above

    if fault is Known.GRAPH_MISSING:
        return BAD_USAGE
    away = {Known.NOT_INSTALLED, Known.NO_FULL_TENSORRT, Known.NO_GPU, Known.KILLED}
    return UNAVAILABLE if fault in away | {Known.OUT_OF_TIME} else REFUSED


def _say(args: argparse.Namespace, code: int, name: str, sentence: str) -> int:
    if args.json:
        print(json.dumps({"error": name}))
    else:
        print(f"sealgate: {sentence}", file=sys.stderr)
    return code


def _tell(args: argparse.Namespace, line: str) -> None:
    if not args.json:
        print(line)


# --- the commands ---------------------------------------------------------------------------


def _export(args: argparse.Namespace) -> dict[str, Any]:
    from inference.precision.faults import Fault as Known  # noqa: PLC0415 -- as above
    from inference.precision.faults import PrecisionError  # noqa: PLC0415 -- as above
    from inference.store.rules import Rules  # noqa: PLC0415 -- as above
    from inference.store.store import ModelStore  # noqa: PLC0415 -- as above
    from inference.tensorrt.exporting import (  # noqa: PLC0415 -- as above
        digest_of,
        export_model,
        model_files,
        read_model,
        stretches,
    )
    from inference.tensorrt.graph import Precision  # noqa: PLC0415 -- as above

    store = ModelStore(args.store, rules=Rules(signed="off"))
    with model_files(args.model, store) as files:
        source, built_from = read_model(files), digest_of(files)
    texts = stretches(source, _text(args.texts), most=_CALIBRATION_STRETCHES) if args.texts else ()
    if args.texts and not texts:
        raise PrecisionError(Known.TOO_LITTLE_TEXT)
    exported = export_model(
        source,
        args.into,
        precision=Precision(args.precision),
        positions=args.positions,
        built_from=built_from,
        texts=texts,
    )
    size = (args.into / "model.onnx").stat().st_size
    _tell(args, f"{args.into}/model.onnx: {exported.precision}, {size / _MIB:.0f} MiB")
    told = {"built_from": built_from, "bytes": size, "precision": exported.precision}
    return told | ({"accuracy": _accuracy(args, source, exported)} if args.check else {})


def _text(path: Path) -> str:
    from inference.precision.faults import Fault as Known  # noqa: PLC0415 -- as above
    from inference.precision.faults import PrecisionError  # noqa: PLC0415 -- as above

    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise PrecisionError(Known.NOT_TEXT) from None


def _accuracy(args: argparse.Namespace, source: Source, exported: Exported) -> dict[str, Any]:
    from dataclasses import asdict  # noqa: PLC0415 -- as above

    from inference.tensorrt.accuracy import accuracy  # noqa: PLC0415 -- as above
    from inference.tensorrt.exporting import STRETCH_TOKENS, stretches  # noqa: PLC0415 -- as above
    from inference.tensorrt.model import StepModel  # noqa: PLC0415 -- as above
    from inference.tensorrt.session import OnnxSession  # noqa: PLC0415 -- as above

    texts = stretches(source, _text(args.check), most=_CHECK_STRETCHES)
    session = OnnxSession(args.into / "model.onnx", precision=exported.precision, threads=2)
    step = StepModel(session, source.architecture, slots=1, context_tokens=STRETCH_TOKENS)
    found = accuracy(source.network(), step, texts)
    _tell(
        args,
        f"{found.positions} positions of {args.check.name}: logits differ by "
        f"{found.difference_max:.2g} at most, likeliest token as PyTorch's {found.agreement:.2%}, "
        f"perplexity {found.perplexity:.2f} (PyTorch {found.torch_perplexity:.2f})",
    )
    return asdict(found)


def _build(args: argparse.Namespace) -> dict[str, Any]:
    from inference.tensorrt.builder import Limits, Shapes  # noqa: PLC0415 -- as above
    from inference.tensorrt.faults import Fault as Known  # noqa: PLC0415 -- as above
    from inference.tensorrt.faults import TensorRtError  # noqa: PLC0415 -- as above
    from inference.tensorrt.making import make_plan, trtexec_command, write_to_triton  # noqa: PLC0415 -- as above

    shapes = Shapes(
        slots=args.slots, chunk_tokens=args.chunk_tokens, context_tokens=args.context_tokens
    )
    if args.library == "tensorrt":
        _tell(args, trtexec_command(args.graph / "model.onnx", shapes))
        raise TensorRtError(Known.NO_FULL_TENSORRT)
    plan = make_plan(
        args.graph,
        args.into,
        home=args.tensorrt,
        capabilities=args.capabilities or ["8.9"],
        shapes=shapes,
        limits=Limits(
            workspace_bytes=args.workspace_mib * _MIB,
            memory_bytes=args.memory_mib * _MIB,
            time_s=args.timeout_s,
        ),
        tell=None if args.json else _progress(),
    )
    _tell(
        args,
        f"{args.into}/model.plan: {plan.size_bytes / _MIB:.0f} MiB for compute capability "
        f"{', '.join(plan.capabilities)}, by TensorRT-RTX {plan.version}; not run: that needs "
        "such a GPU",
    )
    if args.triton is not None:
        placed = write_to_triton(args.triton, args.name, args.into)
        _tell(
            args, f"{placed}: Triton's own TensorRT wants a plan of its own, see --library tensorrt"
        )
    return {
        "version": plan.version,
        "capabilities": list(plan.capabilities),
        "bytes": plan.size_bytes,
        "sha256": plan.sha256,
        "graph_sha256": plan.graph_sha256,
    }


def _progress() -> Callable[[str, int], None]:
    """A line on a terminal that is written anew; nothing elsewhere."""

    def tell(phase: str, steps: int) -> None:
        if sys.stderr.isatty():
            print(f"\r\033[K{phase[:60]}  {steps} steps", end="\r", file=sys.stderr, flush=True)

    return tell


def _check(args: argparse.Namespace) -> dict[str, Any]:
    from inference.tensorrt.plan import (  # noqa: PLC0415 -- as above
        PLAN_FILE,
        PLAN_NOTES,
        must_load,
        read_plan_notes,
    )

    plan = read_plan_notes(args.folder / PLAN_NOTES)
    must_load(plan, args.folder / PLAN_FILE, args.tensorrt)
    _tell(args, f"{args.folder}: could be loaded here")
    return {"version": plan.version, "capabilities": list(plan.capabilities)}


def _compare(args: argparse.Namespace) -> dict[str, Any]:
    from inference.tensorrt.comparing import compare  # noqa: PLC0415 -- as above

    prompts = [line for line in _text(args.prompts).splitlines() if line.strip()]
    made = compare(
        args.a,
        args.b,
        prompts,
        models_dir=args.store,
        max_tokens=args.max_tokens,
        threads=args.threads,
    )
    _tell(args, made.as_table())
    return made.as_json()
