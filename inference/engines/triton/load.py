"""Build the engine for a model that Triton runs: fence, connect, look at it.

engine = load_triton(settings, opened)      # settings.engine == "triton"
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import structlog

from inference.engines.triton.adapters.base import ShapeError
from inference.engines.triton.adapters.tensorrt_llm import TensorRtLlmAdapter
from inference.engines.triton.adapters.text import Chat
from inference.engines.triton.adapters.vllm import VllmAdapter
from inference.engines.triton.control import Control, ControlError
from inference.engines.triton.engine import TritonEngine
from inference.engines.triton.fence import must_be_fenced
from inference.engines.triton.opening import open_others, open_own
from inference.gguf_file import read_gguf
from inference.registry import ModelFileError
from inference.safetensors_file import read_json
from inference.store.errors import Fault
from inference.store.store import ModelStore
from inference.tokenizer import load_tokenizer
from inference.tokenizer_file import load_file_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from inference.engines.triton.adapters.base import Adapter
    from inference.engines.triton.engine import Opened as Served
    from inference.settings import InferenceSettings
    from inference.store.manifest import Manifest
    from inference.store.store import Opened

__all__ = ["chat_of", "load_triton"]

log = structlog.get_logger()

_CONTROL = 3  # gguf.TokenType.CONTROL


def load_triton(
    settings: InferenceSettings, opened: Opened | None = None, *, manifest: Manifest | None = None
) -> TritonEngine:
    """Open a model that Triton serves; the engine is not started. Blocks, within its settings.

    Args:
        settings: where Triton is, which adapter, which model and store if none is given.
        opened: the model. Its files are read for the tokenizer alone, and only where the adapter
            is one of others' backends: for our own, the manifest does, and no weights lie here.
        manifest: of the version that is wanted, if no files of it lie here.

    Raises:
        ModelFileError: Triton is not there, not fenced, or serves another model; or the store has
            no such model.
    """
    if opened is not None:
        return _engine(settings, opened.manifest, opened)
    if manifest is not None:
        return _engine(settings, manifest, None)
    store = ModelStore(settings.models_dir, rules=settings.store_rules)
    if settings.triton.adapter != "sealgate":
        with store.open(settings.model) as found:
            return _engine(settings, found.manifest, found)
    manifests = [one for one in store.manifests() if one.name == settings.model]
    if not manifests:
        raise ModelFileError(Fault.NOT_FOUND)
    return _engine(settings, manifests[-1], None)


def _engine(settings: InferenceSettings, manifest: Manifest, opened: Opened | None) -> TritonEngine:
    place, model = settings.triton, settings.triton.model or manifest.name
    must_be_fenced(place)
    open_model = _opener(settings, manifest, opened, model)
    control = Control(place)
    try:
        found = open_model(control)
    except (ControlError, ShapeError) as error:
        msg = f"{Fault.TRITON}: {error}"
        raise ModelFileError(msg, fault=Fault.TRITON) from error
    finally:
        control.close()
    log.info("triton.opened", model=found.info.name, kind=place.adapter)
    return TritonEngine(
        place, model, open_model, opened=found, overloaded_retry_ms=settings.overloaded_retry_ms
    )


def _opener(
    settings: InferenceSettings, manifest: Manifest, opened: Opened | None, model: str
) -> Callable[[Control], Served]:
    place = settings.triton
    if opened is None or place.adapter == "sealgate":
        return partial(open_own, model=model, manifest=manifest, load=place.load)
    chat = chat_of(opened)
    adapter: Adapter = (
        VllmAdapter(chat)
        if place.adapter == "vllm"
        else TensorRtLlmAdapter(chat, accumulates=place.accumulates)
    )
    return partial(
        open_others,
        model=model,
        manifest=manifest,
        adapter=adapter,
        context_tokens=settings.context_tokens_max,
        precision=f"as served by {place.adapter}",
        load=place.load,
    )


def chat_of(opened: Opened) -> Chat:
    """Read a model's tokenizer and template, for backends that take text.

    Raises:
        ModelFileError: they are not there, or not those of the manifest.
    """
    manifest = opened.manifest
    if manifest.format == "gguf":
        file = read_gguf(opened.weights[0])
        told = zip(
            file.fields["tokenizer.ggml.tokens"],
            file.fields["tokenizer.ggml.token_type"],
            strict=True,
        )
        return Chat(
            tokenizer=load_tokenizer(file, template_sha256=manifest.template_sha256),
            spellings={at: token for at, (token, kind) in enumerate(told) if kind == _CONTROL},
            default_system=manifest.default_system,
        )
    tokenizer = _file(opened, "tokenizer.json")
    template = next(iter(_files(opened, "chat_template.jinja")), None)
    read, _ = load_file_tokenizer(
        tokenizer,
        _file(opened, "tokenizer_config.json"),
        template,
        sha256=manifest.template_sha256,
        vocabulary=read_json(_file(opened, "config.json"))["vocab_size"],
    )
    spellings = {each["id"]: each["content"] for each in read_json(tokenizer)["added_tokens"]}
    return Chat(tokenizer=read, spellings=spellings, default_system=manifest.default_system)


def _files(opened: Opened, name: str) -> list[Path]:
    paths = [file.path for file in opened.manifest.files]
    return [opened.path(path) for path in paths if path.rpartition("/")[2] == name]


def _file(opened: Opened, name: str) -> Path:
    found = _files(opened, name)
    if len(found) != 1:
        msg = "the model lacks its configuration or its tokenizer"
        raise ModelFileError(msg)
    return found[0]
