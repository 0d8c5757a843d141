"""From an exported graph to a folder with a plan, and from there to one of Triton's repository."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import TYPE_CHECKING

from inference.tensorrt.assembly import GRAPH_FILE, WEIGHTS_FILE
from inference.tensorrt.builder import Limits, Shapes, build_plan
from inference.tensorrt.export import read_notes
from inference.tensorrt.faults import Fault, TensorRtError
from inference.tensorrt.files import checked_graph, notes_of
from inference.tensorrt.graph import Precision
from inference.tensorrt.plan import PLAN_FILE, PLAN_NOTES, Plan, read_plan_notes, version_in
from inference.triton_repository.config import Instances, ModelConfig, Tensor
from inference.triton_repository.folder import write_model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from inference.tensorrt.export import Exported

__all__ = ["LEAST", "make_plan", "triton_config", "trtexec_command", "write_to_triton"]

LEAST = {Precision.FP8: (8, 9), Precision.BF16: (8, 0)}
"""Compute capability that a precision wants; the others run on all that there are."""

_PART_BYTES = 1 << 20
_TYPES = {"float32": "TYPE_FP32", "float16": "TYPE_FP16", "bfloat16": "TYPE_BF16"}


def make_plan(
    graph_folder: Path,
    into: Path,
    *,
    home: Path,
    capabilities: Sequence[str],
    shapes: Shapes,
    limits: Limits | None = None,
    tell: Callable[[str, int], None] | None = None,
) -> Plan:
    """Build a plan from an exported graph and write it with its notes.

    Args:
        graph_folder: with model.onnx.
        into: made if it is not there; gets model.plan and plan.json.
        home: where TensorRT-RTX is installed.
        capabilities: of the GPUs that shall run it, such as "8.9".
        shapes: how large a step may be.
        limits: what the builder may use up.
        tell: see `build_plan`.

    Raises:
        TensorRtError: see `Fault`.
        OSError: the folder cannot be written.
    """
    step = read_notes(notes_of(checked_graph(graph_folder / GRAPH_FILE)))
    _must_fit(step, capabilities, shapes)
    into.mkdir(parents=True, exist_ok=True)
    (into / PLAN_NOTES).unlink(missing_ok=True)  # a plan without notes is none
    version = build_plan(
        home,
        graph_folder / GRAPH_FILE,
        into / PLAN_FILE,
        capabilities=capabilities,
        profiles=shapes.profiles(step.architecture),
        limits=limits or Limits(),
        tell=tell,
    )
    _must_name(into / PLAN_FILE, version)
    plan = Plan(
        step=step,
        version=version,
        capabilities=tuple(capabilities),
        **asdict(shapes),
        graph_sha256=_digest(graph_folder / GRAPH_FILE, graph_folder / WEIGHTS_FILE),
        sha256=_digest(into / PLAN_FILE),
        size_bytes=(into / PLAN_FILE).stat().st_size,
    )
    (into / PLAN_NOTES).write_bytes(plan.written())
    return plan


def _must_name(path: Path, version: str) -> None:
    """Refuse a plan whose header is not as `inference.tensorrt.plan` reads it."""
    with path.open("rb") as file:
        if version_in(file.read(64)) != version:
            raise TensorRtError(Fault.PLAN_DAMAGED)


def _must_fit(step: Exported, capabilities: Sequence[str], shapes: Shapes) -> None:
    least = LEAST.get(step.precision, (0, 0))
    if any(_numbers(name) < least for name in capabilities):
        raise TensorRtError(Fault.PRECISION)
    if shapes.context_tokens > step.positions:
        raise TensorRtError(Fault.POSITIONS)


def triton_config(name: str, plan: Plan) -> ModelConfig:
    """Describe a plan to Triton: the step's tensors, whose sizes Triton need not know.

    No batch dimension of Triton's: keys have theirs behind the layers.
    """
    arch = plan.step.architecture
    kind = _TYPES[str(plan.step.precision.dtype).removeprefix("torch.")]
    kept = (arch.layers, -1, arch.kv_heads, -1, arch.head)

    def tensor(name: str, data_type: str, *dims: int) -> Tensor:
        return Tensor(name=name, data_type=data_type, dims=dims)

    return ModelConfig(
        name=name,
        platform="tensorrt_plan",
        inputs=(
            tensor("tokens", "TYPE_INT64", -1, -1),
            tensor("past_tokens", "TYPE_INT64", -1),
            tensor("past_keys", kind, *kept),
            tensor("past_values", kind, *kept),
            tensor("wanted", "TYPE_INT64", -1),
        ),
        outputs=(
            tensor("logits", "TYPE_FP32", -1, -1, arch.vocabulary),
            tensor("new_keys", kind, *kept),
            tensor("new_values", kind, *kept),
        ),
        instances=Instances(kind="KIND_GPU"),
    )


def write_to_triton(repository: Path, name: str, folder: Path) -> Path:
    """Put a plan into a Triton repository; return its folder there.

    Triton's TensorRT backend loads plans of the full TensorRT in its container: one that
    `trtexec_command` builds there from the same graph takes the place of TensorRT-RTX's.

    Raises:
        TensorRtError: PLAN_UNKNOWN.
        RepositoryError: the name is none that Triton takes.
        OSError: the disk does not take it.
    """
    files = {PLAN_FILE: folder / PLAN_FILE, PLAN_NOTES: folder / PLAN_NOTES}
    return write_model(repository, triton_config(name, read_plan_notes(folder / PLAN_NOTES)), files)


def trtexec_command(graph: Path, shapes: Shapes) -> str:
    """Return how full TensorRT, in NVIDIA's container, builds the plan that its Triton loads.

    Raises:
        TensorRtError: see `checked_graph`.
    """
    step = read_notes(notes_of(checked_graph(graph)))
    words = ["trtexec", f"--onnx={graph.name}", f"--saveEngine={PLAN_FILE}", "--stronglyTyped"]
    for number, profile in enumerate(shapes.profiles(step.architecture)):
        words.append(f"--profile={number}")
        for at, option in enumerate(("minShapes", "optShapes", "maxShapes")):
            sizes = ("x".join(map(str, sizes[at])) for sizes in profile.values())
            pairs = zip(profile, sizes, strict=True)
            words.append(f"--{option}=" + ",".join(f"{name}:{size}" for name, size in pairs))
    return " \\\n  ".join(words)


def _numbers(capability: str) -> tuple[int, ...]:
    try:
        return tuple(map(int, capability.split(".")))
    except ValueError:
        raise TensorRtError(Fault.CAPABILITY) from None


def _digest(*paths: Path) -> str:
    """Digest files as one, in their order; those that are not there count for nothing."""
    digest = hashlib.sha256()
    for path in paths:
        if path.exists():
            with path.open("rb") as file:
                while part := file.read(_PART_BYTES):
                    digest.update(part)
    return digest.hexdigest()
