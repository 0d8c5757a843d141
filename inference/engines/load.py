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
    from inference.settings import InferenceSettings

__all__ = ["load_engine"]

log = structlog.get_logger()


def load_engine(settings: InferenceSettings) -> TorchEngine:
    """Load the model; the engine is not started. Cost: 4 to 7 s for SmolLM2-135M on two cores.

    Raises:
        ModelFileError: weights missing or not the pinned ones.
    """
    began = time.perf_counter()
    torch.set_num_threads(settings.threads)
    manifest = load_manifest(settings.model)
    info = model_info(manifest, context_tokens=settings.context_tokens_max)
    file = read_gguf(checked_file(manifest, settings.models_dir))
    tokenizer = load_tokenizer(file, template_sha256=manifest.template_sha256)
    template = Document("model.template", template_of(file))
    with torch.inference_mode():
        model = Llama(load_weights(file), slots=settings.slots, context_tokens=info.context_tokens)
    log.info("inference.loaded", model=info.name, seconds=round(time.perf_counter() - began, 1))
    return TorchEngine(
        CpuRunner(model),
        tokenizer,
        info=replace(info, documents=(*info.documents, template)),
        default_system=manifest.default_system,
        settings=settings,
    )
