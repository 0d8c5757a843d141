"""Build the torch engine for the configured model: check, read, pack."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog
import torch

from inference.engines.llama import Llama
from inference.engines.runner import CpuRunner
from inference.engines.torch import TorchEngine
from inference.gguf_file import read_gguf
from inference.registry import checked_file, load_manifest, model_info
from inference.tokenizer import load_tokenizer, template_of
from inference.weights import load_weights
from meshkit.contract import Document

if TYPE_CHECKING:
    from inference.engines.runner import Runner
    from inference.settings import InferenceSettings
    from inference.weights import Weights

__all__ = ["load_engine"]

log = structlog.get_logger()


def load_engine(settings: InferenceSettings) -> TorchEngine:
    """Load the model; the engine is not started. Cost: 4 to 7 s for SmolLM2-135M on two cores.

    Raises:
        ModelFileError: weights missing or not the pinned ones.
    """
    began = time.perf_counter()
    torch.set_num_threads(settings.threads)
    on_gpu = settings.device == "cuda" or (settings.device == "auto" and torch.cuda.is_available())
    manifest = load_manifest(settings.model)
    if on_gpu:  # another arithmetic, so another model as far as a record is concerned
        manifest = replace(manifest, precision=f"{settings.gpu_precision} on a GPU")
    info = model_info(manifest, context_tokens=settings.context_tokens_max)
    file = read_gguf(checked_file(manifest, settings.models_dir))
    tokenizer = load_tokenizer(file, template_sha256=manifest.template_sha256)
    template = Document("model.template", template_of(file))
    with torch.inference_mode():
        load = _on_gpu if on_gpu else _on_cpu
        runner = load(load_weights(file), settings, info.context_tokens)
    log.info("inference.loaded", model=info.name, seconds=round(time.perf_counter() - began, 1))
    return TorchEngine(
        runner,
        tokenizer,
        info=replace(info, documents=(*info.documents, template)),
        default_system=manifest.default_system,
        settings=settings,
    )


def _on_cpu(weights: Weights, settings: InferenceSettings, context_tokens: int) -> Runner:
    model = Llama(weights, slots=settings.slots, context_tokens=context_tokens)
    return CpuRunner(model, chunk_tokens=settings.prefill_chunk_tokens)


def _on_gpu(weights: Weights, settings: InferenceSettings, context_tokens: int) -> Runner:
    # Here, since a PyTorch for CPUs brings no Triton.
    from inference.engines.cuda.device import from_codes  # noqa: PLC0415 -- as above
    from inference.engines.cuda.products import to_fp8  # noqa: PLC0415 -- as above
    from inference.engines.cuda.runner import CudaRunner  # noqa: PLC0415 -- as above

    there = from_codes(weights, device="cuda")
    runner = CudaRunner(
        to_fp8(there) if settings.gpu_precision == "fp8" else there,
        slots=settings.slots,
        context_tokens=context_tokens,
        chunk_tokens=settings.gpu_prefill_chunk_tokens,
    )
    runner.warm_up()
    return runner
