"""Build the engine that a manifest asks for: check, read, pack.

with store.open("acme-chat") as opened:                     a chat model, or an embedding model
    engine = load_engine(settings, opened)
with opened_with_base(store, "acme-tone") as (opened, base):    an adapter and its base
    engine = load_engine(settings, opened, base=base)
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, overload

import structlog
import torch

from inference.checkpoint import architecture_of, load_checkpoint
from inference.engines.llama import Llama
from inference.engines.memory import kv_room
from inference.engines.runner import CpuRunner
from inference.engines.slots import bytes_per_token
from inference.engines.torch import TorchEngine
from inference.gguf_file import read_gguf
from inference.registry import ModelFileError, model_info
from inference.safetensors_file import read_json, read_tensors, refuse_pickle
from inference.store.store import ModelStore
from inference.tokenizer import load_tokenizer, template_of
from inference.tokenizer_file import load_file_tokenizer
from inference.weights import load_weights
from meshkit.contract import Document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from inference.engines.memory import KvRoom
    from inference.engines.runner import Runner
    from inference.engines.triton.engine import TritonEngine
    from inference.settings import InferenceSettings
    from inference.store.manifest import Manifest
    from inference.store.store import Opened
    from inference.tokenizer import Tokenizing
    from inference.weights import Weights
    from meshkit.contract import ModelInfo

__all__ = ["file_of", "load_engine", "opened_with_base"]

log = structlog.get_logger()

_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a chat model's files hold."""

    weights: Weights
    tokenizer: Tokenizing
    template: bytes


@overload
def load_engine(settings: InferenceSettings) -> TorchEngine | TritonEngine: ...
@overload
def load_engine(
    settings: InferenceSettings, opened: Opened, *, base: Opened | None = None
) -> TorchEngine | TritonEngine: ...
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
        with opened_with_base(ModelStore(settings.models_dir), settings.model) as (found, under):
            return load_engine(settings, found, base=under)
    began = time.perf_counter()
    torch.set_num_threads(settings.threads)
    with torch.inference_mode():
        engine = _chat(settings, opened, base)
    log.info("inference.loaded", model=engine.info.name, seconds=_since(began))
    return engine


def _on_triton(settings: InferenceSettings, opened: Opened | None) -> TritonEngine:
    # Here, since only those who have Triton need its client.
    from inference.engines.triton.load import load_triton  # noqa: PLC0415 -- as above

    return load_triton(settings, opened)


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


def file_of(opened: Opened, name: str) -> Path | None:
    """Find a model's file by the last part of its path."""
    paths = [file.path for file in opened.manifest.files]
    found = [path for path in paths if path.rpartition("/")[2] == name]
    return opened.path(found[0]) if len(found) == 1 else None


def _chat(settings: InferenceSettings, opened: Opened, base: Opened | None) -> TorchEngine:
    whole = base if base is not None else opened
    _must_be("adapter" if base is not None else "chat", opened.manifest)
    parts = _from_gguf(whole) if whole.manifest.format == "gguf" else _from_safetensors(whole)
    _must_reach(whole.manifest, parts.weights.architecture.context_tokens)
    on_gpu = settings.device == "cuda" or (settings.device == "auto" and torch.cuda.is_available())
    info = _info(settings, opened.manifest, on_gpu=on_gpu)
    load: Callable[[Weights, InferenceSettings, int], Runner] = _on_gpu if on_gpu else _on_cpu
    documents = (*info.documents, Document("model.template", parts.template))
    return TorchEngine(
        load(parts.weights, settings, info.context_tokens),
        parts.tokenizer,
        info=replace(info, documents=documents),
        default_system=opened.manifest.default_system,
        settings=settings,
    )


def _info(settings: InferenceSettings, manifest: Manifest, *, on_gpu: bool) -> ModelInfo:
    if on_gpu:  # another arithmetic, so another model as far as a record is concerned
        manifest = replace(manifest, precision=f"{settings.gpu_precision} on a GPU")
    return model_info(manifest, context_tokens=settings.context_tokens_max)


def _from_gguf(opened: Opened) -> _Parts:
    path = _only(opened)
    refuse_pickle(path)
    file = read_gguf(path)
    _must_be_architecture(opened.manifest, str(file.fields.get("general.architecture", "")))
    tokenizer = load_tokenizer(file, template_sha256=opened.manifest.template_sha256)
    weights = load_weights(file)
    if tokenizer.pieces > weights.architecture.vocabulary:
        msg = "the tokenizer has tokens that the model does not know"
        raise ModelFileError(msg)
    return _Parts(weights, tokenizer, template_of(file))


def _from_safetensors(opened: Opened) -> _Parts:
    config = read_json(_needed(opened, "config.json"))
    _must_be_architecture(opened.manifest, str(config.get("model_type", "")))
    arch = architecture_of(config)
    tokenizer, template = load_file_tokenizer(
        _needed(opened, "tokenizer.json"),
        _needed(opened, "tokenizer_config.json"),
        file_of(opened, "chat_template.jinja"),
        sha256=opened.manifest.template_sha256,
        vocabulary=arch.vocabulary,
    )
    tensors = read_tensors(opened.weights, index=file_of(opened, _INDEX))
    return _Parts(load_checkpoint(arch, tensors), tokenizer, template)


def _only(opened: Opened) -> Path:
    if len(opened.weights) != 1:
        msg = "the model is not one file of the format that its manifest says"
        raise ModelFileError(msg)
    return opened.weights[0]


def _needed(opened: Opened, name: str) -> Path:
    path = file_of(opened, name)
    if path is None:
        msg = "the model lacks its configuration or its tokenizer"
        raise ModelFileError(msg)
    return path


def _must_be(kind: str, manifest: Manifest) -> None:
    if manifest.kind != kind or manifest.format not in ("gguf", "safetensors"):
        msg = "the manifest is of another kind of model than is asked for"
        raise ModelFileError(msg)


def _must_be_architecture(manifest: Manifest, found: str) -> None:
    if manifest.architecture and manifest.architecture != found:
        msg = "the files are of another architecture than the manifest says"
        raise ModelFileError(msg)


def _must_reach(manifest: Manifest, context_tokens: int) -> None:
    if manifest.context_tokens > context_tokens:
        msg = "the manifest promises more context than the files do"
        raise ModelFileError(msg)


def _since(began: float) -> float:
    return round(time.perf_counter() - began, 1)


def _on_cpu(weights: Weights, settings: InferenceSettings, context_tokens: int) -> Runner:
    arch = weights.architecture
    room = _kv_room(settings, context_tokens, bytes_per_token(arch), lazy=True)
    return CpuRunner(
        Llama(weights, slots=room.slots, context_tokens=context_tokens),
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
