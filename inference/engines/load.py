"""Build the engine that a manifest asks for: check, read, pack.

with store.open("acme-chat") as opened:
    engine = load_engine(settings, opened)
with opened_with_base(store, "acme-tone") as (opened, base):    if it may be an adapter
    engine = load_engine(settings, opened, base=base)
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING

import structlog
import torch

from inference.engines.cpu import cpu_model, kept_bytes, on_cpu
from inference.engines.memory import kv_room
from inference.engines.mla.model import Mla, latent_bytes_per_token
from inference.engines.mla.weights import MlaWeights
from inference.engines.runner import CpuRunner
from inference.engines.slots import bytes_per_token
from inference.engines.torch import TorchEngine
from inference.model_files import chat_parts
from inference.registry import ModelFileError, model_info
from inference.store.store import ModelStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from inference.engines.memory import KvRoom
    from inference.engines.runner import Runner
    from inference.engines.triton.engine import TritonEngine
    from inference.model_files import ChatParts
    from inference.settings import InferenceSettings
    from inference.store.manifest import Manifest
    from inference.store.store import Opened
    from inference.weights import Weights
    from meshkit.contract import ModelInfo

__all__ = ["load_engine", "opened_with_base"]

log = structlog.get_logger()


def load_engine(
    settings: InferenceSettings, opened: Opened | None = None, *, base: Opened | None = None
) -> TorchEngine | TritonEngine:
    """Load a model; the engine is not started. Cost: 4 to 7 s for SmolLM2-135M on two cores.

    Args:
        settings: device, slots, limits; also which model, where none is given.
        opened: a model whose files were checked; they may be closed once this returns.
        base: of an adapter, the model that it adapts.

    Raises:
        ModelFileError: the files are not there, or not what the manifest says.
        Refusal: KEYS_DOWN.
    """
    if settings.engine == "triton":
        return _on_triton(settings, opened)
    if opened is None:
        with opened_with_base(
            ModelStore(settings.models_dir, rules=settings.store_rules), settings.model
        ) as (found, under):
            return load_engine(settings, found, base=under)
    began = time.perf_counter()
    torch.set_num_threads(settings.threads)
    with torch.inference_mode():
        stepwise = opened.manifest.format in ("onnx", "plan")
        engine = _stepwise(settings, opened) if stepwise else _chat(settings, opened, base)
    log.info("inference.loaded", model=engine.info.name, seconds=_since(began))
    return engine


def _on_triton(settings: InferenceSettings, opened: Opened | None) -> TritonEngine:
    # Here, since only those who have Triton need its client.
    from inference.engines.triton.load import load_triton  # noqa: PLC0415 -- as above

    return load_triton(settings, opened)


def _stepwise(settings: InferenceSettings, opened: Opened) -> TorchEngine:
    # Here, since only those who have such a model need ONNX.
    from inference.tensorrt.load import load_step  # noqa: PLC0415 -- as above

    return load_step(settings, opened)


@contextmanager
def opened_with_base(
    store: ModelStore, name: str, version: str | None = None
) -> Iterator[tuple[Opened, Opened | None]]:
    """Open a model, and the base that it adapts, if it is an adapter.

    Raises:
        ModelFileError: as `ModelStore.open`; or no model in the store has the base's digest.
    """
    with store.open(name, version) as opened:
        if opened.manifest.kind != "adapter":
            yield opened, None
            return
        wanted = opened.manifest.base
        bases = [one for one in store.manifests() if one.digest.hex() == wanted]
        if not bases:
            msg = "no model here has the digest that the adapter names as its base"
            raise ModelFileError(msg)
        with store.open(bases[0].name, bases[0].version) as base:
            yield opened, base


def _chat(settings: InferenceSettings, opened: Opened, base: Opened | None) -> TorchEngine:
    parts = chat_parts(opened, base)
    on_gpu = settings.device == "cuda" or (settings.device == "auto" and torch.cuda.is_available())
    info = _info(settings, opened.manifest, parts, on_gpu=on_gpu)
    return TorchEngine(
        _runner(parts.weights, settings, info.context_tokens, on_gpu=on_gpu),
        parts.tokenizer,
        info=info,
        default_system=parts.default_system,
        settings=settings,
    )


def _runner(
    weights: Weights | MlaWeights,
    settings: InferenceSettings,
    context_tokens: int,
    *,
    on_gpu: bool,
) -> Runner:
    if not isinstance(weights, MlaWeights):
        load: Callable[[Weights, InferenceSettings, int], Runner] = _on_gpu if on_gpu else _on_cpu
        return load(weights, settings, context_tokens)
    if on_gpu:
        msg = "latent attention runs on a CPU alone"
        raise ModelFileError(msg)
    shape = weights.architecture
    room = _kv_room(settings, context_tokens, latent_bytes_per_token(shape), lazy=False)
    return CpuRunner(
        Mla(weights, slots=room.slots, context_tokens=context_tokens),
        chunk_tokens=settings.prefill_chunk_tokens,
        vocabulary=shape.vocabulary,
        slots_max=room.slots,
        tokens_max=room.tokens_max,
    )


def _info(
    settings: InferenceSettings, manifest: Manifest, parts: ChatParts, *, on_gpu: bool
) -> ModelInfo:
    """Describe a model. An adapter's manifest names its base, so its digest stands for both."""
    if on_gpu:  # another arithmetic, so another model as far as a record is concerned
        manifest = replace(manifest, precision=f"{settings.gpu_precision} on a GPU")
    elif not isinstance(parts.weights, MlaWeights):
        manifest = on_cpu(manifest, parts.weights)
    info = model_info(manifest, context_tokens=settings.context_tokens_max)
    return replace(
        info,
        context_tokens=min(settings.context_tokens_max, parts.context_tokens),
        template_digest=sha256(parts.template).digest(),
        documents=(*info.documents, *parts.documents),
    )


def _since(began: float) -> float:
    return round(time.perf_counter() - began, 1)


def _on_cpu(weights: Weights, settings: InferenceSettings, context_tokens: int) -> Runner:
    arch = weights.architecture
    token_bytes = bytes_per_token(arch, kept_bytes(weights))
    room = _kv_room(settings, context_tokens, token_bytes, lazy=True)
    return CpuRunner(
        cpu_model(
            weights,
            slots=room.slots,
            context_tokens=context_tokens,
            threads=settings.threads,
        ),
        chunk_tokens=settings.prefill_chunk_tokens,
        vocabulary=arch.vocabulary,
        slots_max=room.slots,
        tokens_max=room.tokens_max,
        prefix_bytes=settings.prefix_memory_mib << 20,
        guess_tokens=settings.guess_tokens,
        guess_rows_max=settings.guess_rows_max,
    )


def _kv_room(
    settings: InferenceSettings, context_tokens: int, token_bytes: int, *, lazy: bool
) -> KvRoom:
    budget_mib = settings.kv_memory_mib
    return kv_room(
        slots=settings.slots,
        context_tokens=context_tokens,
        token_bytes=token_bytes,
        budget_bytes=None if budget_mib is None else budget_mib << 20,
        lazy=lazy,
    )


def _on_gpu(weights: Weights, settings: InferenceSettings, context_tokens: int) -> Runner:
    # Here, since a PyTorch for CPUs brings no Triton.
    from inference.engines.cuda.device import from_codes  # noqa: PLC0415 -- as above
    from inference.engines.cuda.products import to_fp8  # noqa: PLC0415 -- as above
    from inference.engines.cuda.runner import CudaRunner  # noqa: PLC0415 -- as above

    there = from_codes(weights, device="cuda")
    token_bytes = bytes_per_token(weights.architecture, there.embedding.element_size())
    room = _kv_room(settings, context_tokens, token_bytes, lazy=False)
    runner = CudaRunner(
        to_fp8(there) if settings.gpu_precision == "fp8" else there,
        slots=room.slots,
        context_tokens=context_tokens,
        chunk_tokens=settings.gpu_prefill_chunk_tokens,
    )
    runner.warm_up()
    return runner
