"""What a chat model's files hold, once a store has checked them: weights, tokenizer, template.

A manifest may lie: its files may be of another format or architecture, have another template, hold
less context, or tokens that the model does not know. Each such lie is a `ModelFileError`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from inference.checkpoint import architecture_of, load_checkpoint
from inference.engines.mla.shape import MlaShape, mla_shape
from inference.engines.mla.weights import MlaWeights, load_mla
from inference.gguf_file import read_gguf
from inference.lora import adapted, lora_config
from inference.safetensors_file import read_json, read_tensors, refuse_pickle
from inference.store.errors import Fault, ModelFileError
from inference.tokenizer import load_tokenizer, template_of
from inference.tokenizer_file import load_file_tokenizer
from inference.weights import load_weights
from meshkit.contract import Document

if TYPE_CHECKING:
    from pathlib import Path

    from inference.store.manifest import Manifest
    from inference.store.store import Opened
    from inference.tokenizer import Tokenizing
    from inference.weights import Weights

__all__ = ["ChatParts", "chat_parts", "file_of", "must_be_architecture", "needed", "only_weights"]

_INDEX = "model.safetensors.index.json"
_KIND = "the manifest is of another kind of model than is asked for"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatParts:
    """What a chat model's files hold.

    documents: the template, and of an adapter its base's manifest: what digests in records are of.
    """

    weights: Weights | MlaWeights
    tokenizer: Tokenizing
    template: bytes
    context_tokens: int
    default_system: str
    documents: tuple[Document, ...]


def chat_parts(opened: Opened, base: Opened | None = None) -> ChatParts:
    """Read a chat model; or an adapter, and the base that it adapts.

    Raises:
        ModelFileError: the files are not what the manifest says.
    """
    if base is not None:
        return _with_adapter(chat_parts(base), opened, base)
    manifest = opened.manifest
    if manifest.kind != "chat" or manifest.format not in ("gguf", "safetensors"):
        raise ModelFileError(_KIND)
    read = _from_gguf if manifest.format == "gguf" else _from_safetensors
    weights, tokenizer, template = read(opened)
    if manifest.context_tokens > weights.architecture.context_tokens:
        raise ModelFileError(Fault.CONTEXT)
    return ChatParts(
        weights=weights,
        tokenizer=tokenizer,
        template=template,
        context_tokens=manifest.context_tokens,
        default_system=manifest.default_system,
        documents=(Document("model.template", template),),
    )


def _with_adapter(parts: ChatParts, opened: Opened, base: Opened) -> ChatParts:
    """Apply an adapter to the very model that it was made for."""
    manifest = opened.manifest
    if manifest.kind != "adapter" or manifest.format != "safetensors":
        raise ModelFileError(_KIND)
    if manifest.base != base.manifest.digest.hex():
        msg = "the adapter's manifest does not name this base by its digest"
        raise ModelFileError(msg)
    if manifest.template_sha256 not in ("", base.manifest.template_sha256):
        msg = "an adapter has no chat template of its own"
        raise ModelFileError(msg)
    if manifest.context_tokens > parts.context_tokens:
        raise ModelFileError(Fault.CONTEXT)
    if isinstance(parts.weights, MlaWeights):
        msg = "adapters are not implemented for this architecture"
        raise ModelFileError(msg)
    config = lora_config(read_json(needed(opened, "adapter_config.json")))
    return replace(
        parts,
        weights=adapted(parts.weights, config, read_tensors([only_weights(opened)])),
        context_tokens=manifest.context_tokens or parts.context_tokens,
        default_system=manifest.default_system or parts.default_system,
        documents=(*parts.documents, Document("model.manifest", base.manifest.canonical())),
    )


def _from_gguf(opened: Opened) -> tuple[Weights, Tokenizing, bytes]:
    path = only_weights(opened)
    refuse_pickle(path)
    file = read_gguf(path)
    must_be_architecture(opened.manifest, file.fields.get("general.architecture"))
    tokenizer = load_tokenizer(file, template_sha256=opened.manifest.template_sha256)
    weights = load_weights(file)
    if tokenizer.pieces > weights.architecture.vocabulary:
        msg = "the tokenizer has tokens that the model does not know"
        raise ModelFileError(msg)
    return weights, tokenizer, template_of(file)


def _from_safetensors(opened: Opened) -> tuple[Weights | MlaWeights, Tokenizing, bytes]:
    config = read_json(needed(opened, "config.json"))
    must_be_architecture(opened.manifest, config.get("model_type"))
    latent = config.get("model_type") == "deepseek_v3"
    arch = mla_shape(config) if latent else architecture_of(config)
    tokenizer, template = load_file_tokenizer(
        needed(opened, "tokenizer.json"),
        needed(opened, "tokenizer_config.json"),
        file_of(opened, "chat_template.jinja"),
        sha256=opened.manifest.template_sha256,
        vocabulary=arch.vocabulary,
    )
    tensors = read_tensors(opened.weights, index=file_of(opened, _INDEX))
    if isinstance(arch, MlaShape):
        return load_mla(arch, tensors), tokenizer, template
    return load_checkpoint(arch, tensors), tokenizer, template


def file_of(opened: Opened, name: str) -> Path | None:
    """Find a model's file by the last part of its path."""
    paths = [file.path for file in opened.manifest.files]
    found = [path for path in paths if path.rpartition("/")[2] == name]
    return opened.path(found[0]) if len(found) == 1 else None


def needed(opened: Opened, name: str) -> Path:
    """Find a file that a model cannot do without. Raises ModelFileError: it is not there."""
    path = file_of(opened, name)
    if path is None:
        msg = "the model lacks its configuration or its tokenizer"
        raise ModelFileError(msg)
    return path


def only_weights(opened: Opened) -> Path:
    """Return the one file of weights. Raises ModelFileError: there is none, or several."""
    if len(opened.weights) != 1:
        raise ModelFileError(Fault.FORMAT)
    return opened.weights[0]


def must_be_architecture(manifest: Manifest, found: object) -> None:
    """Raise ModelFileError unless files are of the architecture that the manifest says, if any."""
    if manifest.architecture and manifest.architecture != found:
        raise ModelFileError(Fault.ARCHITECTURE)
