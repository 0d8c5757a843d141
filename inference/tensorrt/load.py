"""An engine for a model that a store keeps as an ONNX graph or as a plan.

    model.onnx | model.plan and plan.json      the step
    config.json, tokenizer.json, tokenizer_config.json      as beside safetensors

Scheduling, sampling and text are the torch engine's; only the forward pass is another's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from inference.checkpoint import architecture_of
from inference.engines.runner import CpuRunner
from inference.engines.torch import TorchEngine
from inference.registry import ModelFileError, model_info
from inference.safetensors_file import read_json
from inference.tensorrt.export import read_notes
from inference.tensorrt.faults import Fault, TensorRtError
from inference.tensorrt.files import checked_graph, notes_of
from inference.tensorrt.graph import Precision
from inference.tensorrt.model import StepModel
from inference.tensorrt.plan import PLAN_NOTES, must_load, read_plan_notes
from inference.tensorrt.rtx_session import TensorRtSession
from inference.tensorrt.session import OnnxSession
from inference.tokenizer_file import load_file_tokenizer
from meshkit.contract import Document

if TYPE_CHECKING:
    from pathlib import Path

    from inference.architecture import Architecture
    from inference.settings import InferenceSettings
    from inference.store.store import Opened
    from inference.tensorrt.export import Exported
    from inference.tensorrt.session import Session
    from inference.tokenizer import Tokenizing

__all__ = ["FORMATS", "load_step"]

FORMATS = ("onnx", "plan")


def load_step(settings: InferenceSettings, opened: Opened) -> TorchEngine:
    """Load the model; the engine is not started. Cost: 4 s for SmolLM2-135M in fp32.

    Raises:
        ModelFileError: the files do not fit one another, or cannot be run here.
    """
    if opened.manifest.kind != "chat" or opened.manifest.format not in FORMATS:
        raise ModelFileError(Fault.NOT_A_STEP.value)
    manifest = opened.manifest
    if settings.steps_run_in == "triton":
        # Another arithmetic, so another model as far as a record is concerned.
        manifest = replace(manifest, precision=f"{manifest.precision}, by a model in Triton")
    info = model_info(manifest, context_tokens=settings.context_tokens_max)
    arch = architecture_of(read_json(_needed(opened, "config.json")))
    runner = _runner(settings, opened, arch, info.context_tokens)
    tokenizer, template = _tokenizer(opened, arch.vocabulary)
    return TorchEngine(
        runner,
        tokenizer,
        info=replace(info, documents=(*info.documents, Document("model.template", template))),
        default_system=opened.manifest.default_system,
        settings=settings,
    )


def _runner(
    settings: InferenceSettings, opened: Opened, arch: Architecture, context_tokens: int
) -> CpuRunner:
    opener = _of_graph if opened.manifest.format == "onnx" else _of_plan
    try:
        session, step = opener(settings, opened)
    except TensorRtError as error:
        raise ModelFileError(error.fault.value) from None
    if arch != step.architecture or context_tokens > step.positions:
        raise ModelFileError(Fault.NOT_A_STEP.value)
    return CpuRunner(
        StepModel(session, arch, slots=settings.slots, context_tokens=context_tokens),
        chunk_tokens=settings.prefill_chunk_tokens,
        vocabulary=arch.vocabulary,
        slots_max=settings.slots,
        prefix_bytes=settings.prefix_memory_mib << 20,
        guess_tokens=settings.guess_tokens,
        guess_rows_max=settings.guess_rows_max,
    )


def _tokenizer(opened: Opened, vocabulary: int) -> tuple[Tokenizing, bytes]:
    """Read the tokenizer; return its template's bytes, too."""
    return load_file_tokenizer(
        _needed(opened, "tokenizer.json"),
        _needed(opened, "tokenizer_config.json"),
        opened.paths.get("chat_template.jinja"),
        sha256=opened.manifest.template_sha256,
        vocabulary=vocabulary,
    )


def _of_graph(settings: InferenceSettings, opened: Opened) -> tuple[Session, Exported]:
    path = _only(opened)
    step = read_notes(notes_of(checked_graph(path)))
    if step.precision is Precision.BF16:  # no products on a CPU, no form on Triton's wire
        raise TensorRtError(Fault.NOT_ON_CPU)
    if settings.steps_run_in == "triton":
        return _in_triton(settings, opened, step), step
    return OnnxSession(path, precision=step.precision, threads=settings.threads), step


def _in_triton(settings: InferenceSettings, opened: Opened, step: Exported) -> Session:
    # Here, since only those who have Triton need its client.
    from inference.tensorrt.triton_session import TritonSession  # noqa: PLC0415 -- as above

    name = settings.triton.model or opened.manifest.name
    try:
        return TritonSession(
            settings.triton, name, arch=step.architecture, precision=step.precision
        )
    except OSError:
        raise TensorRtError(Fault.NO_TRITON) from None


def _of_plan(settings: InferenceSettings, opened: Opened) -> tuple[Session, Exported]:
    plan, path = read_plan_notes(_needed(opened, PLAN_NOTES)), _only(opened)
    must_load(plan, path, settings.tensorrt_dir)
    if settings.slots > plan.slots or settings.prefill_chunk_tokens > plan.chunk_tokens:
        raise TensorRtError(Fault.TOO_SMALL)
    session = TensorRtSession(path, dtype=plan.step.precision.dtype, home=settings.tensorrt_dir)
    return session, plan.step


def _only(opened: Opened) -> Path:
    if len(opened.weights) != 1:
        raise TensorRtError(Fault.NOT_A_STEP)
    return opened.weights[0]


def _needed(opened: Opened, name: str) -> Path:
    path = opened.paths.get(name)
    if path is None:
        raise ModelFileError(Fault.INCOMPLETE.value)
    return path
