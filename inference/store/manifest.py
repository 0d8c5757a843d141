"""What is known of a model before a byte of it is read. PURE.

    canonical form = the fields and "schema": "sealgate/model/v3" as JSON, keys sorted, no white
                     space, UTF-8
    model digest   = SHA-256 of the canonical form

That digest is in every record of a call, the audit service keeps the text, and the signature is
over it. Every file is pinned by size and SHA-256, so the digest covers weights, tokenizer, template
and configuration.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from typing import Any, Literal, get_args

from inference.store.errors import Fault, ModelFileError

__all__ = ["SCHEMA", "Classification", "FileDigest", "Format", "Kind", "Manifest", "RiskClass"]
__all__ += ["is_name", "is_path", "is_version", "must_be_distinct"]

SCHEMA = "sealgate/model/v3"

Format = Literal["gguf", "safetensors", "plan", "onnx"]
Kind = Literal["chat", "embedding", "adapter"]
RiskClass = Literal["minimal", "limited", "high"]
"""As the EU's AI Act tells uses apart; what it prohibits has no class here."""
Classification = Literal["public", "internal", "restricted", "unclassified"]

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,30}[A-Za-z0-9])?")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,126}")
_HEX = re.compile(r"[0-9a-f]{64}")
_LANGUAGE = re.compile(r"[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8}){0,3}")
_DEPTH_MAX = 6
_FILES_MAX = 65_536
_BYTES_MAX = 1 << 46
_CONTEXT_MAX = 1 << 26
_TEXT_CHARS_MAX = 4_096
_CHOICES = {
    "format": get_args(Format),
    "kind": get_args(Kind),
    "risk_class": get_args(RiskClass),
    "classification": get_args(Classification),
}


@dataclass(frozen=True, slots=True)
class FileDigest:
    """A file of a model. path: relative, with `/`. sha256: lower-case hexadecimal."""

    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A model, pinned.

    name, version: what it is asked for by; together they are its place in the store.
    base: of an adapter, the hexadecimal digest of the manifest of the model it adapts; else empty.
    architecture: `general.architecture` of a GGUF, `model_type` of a `config.json`; else empty.
    template_sha256: of the chat template, UTF-8; empty where there is none.
    tokenizer_sha256: see `inference.store.formats`; empty where there is none.
    default_system: what the template says to the model when the caller brings no system message.
    """

    name: str
    version: str
    files: tuple[FileDigest, ...]
    format: Format
    precision: str
    kind: Kind = "chat"
    base: str = ""
    architecture: str = ""
    context_tokens: int
    licence: str
    source: str
    languages: tuple[str, ...] = ()
    intended_use: str
    risk_class: RiskClass = "minimal"
    classification: Classification = "unclassified"
    template_sha256: str = ""
    tokenizer_sha256: str = ""
    default_system: str = ""

    def canonical(self) -> bytes:
        """Return the bytes that the model's digest is of."""
        told = asdict(self) | {"schema": SCHEMA}
        return json.dumps(told, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()

    @property
    def digest(self) -> bytes:
        """The model's digest: 32 bytes."""
        return sha256(self.canonical()).digest()

    @property
    def size(self) -> int:
        """How much all of its files take, in bytes."""
        return sum(file.bytes for file in self.files)

    @property
    def weights(self) -> tuple[FileDigest, ...]:
        """The files that bear its format's name, in order: one, or the parts of one."""
        return tuple(file for file in self.files if file.path.endswith(f".{self.format}"))

    def file(self, path: str) -> FileDigest | None:
        """Find a file by its path."""
        return next((file for file in self.files if file.path == path), None)

    @classmethod
    def parse(cls, text: bytes) -> Manifest:
        """Read a manifest, of any spacing and order of keys.

        Raises:
            ModelFileError: it is not of this schema, a field is missing, unknown or out of range.
        """
        try:
            told = json.loads(text)
            return _parsed(told)
        except (KeyError, TypeError, ValueError, RecursionError):
            raise ModelFileError(Fault.MANIFEST) from None


def is_name(text: str) -> bool:
    """Whether a model may be called so: lower-case, and fit for a folder and a metric's label."""
    return _NAME.fullmatch(text) is not None and ".." not in text


def is_version(text: str) -> bool:
    """Whether a version may be called so."""
    return _VERSION.fullmatch(text) is not None and ".." not in text


def is_path(path: str) -> bool:
    """Whether a file may be called so: a few plain parts, none of which leads up or is hidden."""
    parts = path.split("/")
    return len(parts) <= _DEPTH_MAX and all(_PART.fullmatch(part) is not None for part in parts)


def must_be_distinct(paths: tuple[str, ...]) -> None:
    """Refuse names that some file system would take for one, or a file that is a folder, too.

    Raises:
        ModelFileError: DUPLICATE.
    """
    folded = {path.casefold() for path in paths}
    folders = {
        "/".join(parts[:depth])
        for parts in (path.split("/") for path in folded)
        for depth in range(1, len(parts))
    }
    if len(folded) != len(paths) or folded & folders:
        raise ModelFileError(Fault.DUPLICATE)


def _parsed(told: Any) -> Manifest:  # noqa: ANN401 -- JSON
    known = {field.name for field in fields(Manifest)}
    if not isinstance(told, dict) or told.pop("schema", None) != SCHEMA or not set(told) <= known:
        raise ValueError
    listed = tuple(_file(one) for one in _list(told.pop("files")))
    languages = tuple(_list(told.pop("languages", [])))
    manifest = Manifest(**told, files=listed, languages=languages)
    _must_be_sound(manifest)
    return manifest


def _list(value: Any) -> list[Any]:  # noqa: ANN401 -- JSON
    if not isinstance(value, list):
        raise TypeError
    return value


def _file(told: Any) -> FileDigest:  # noqa: ANN401 -- JSON
    if not isinstance(told, dict):
        raise TypeError
    return FileDigest(**told)


def _must_be_sound(manifest: Manifest) -> None:
    """Check every field's type and range. Raises ValueError, TypeError, ModelFileError."""
    texts = {
        field.name: getattr(manifest, field.name)
        for field in fields(Manifest)
        if field.name not in {"files", "languages", "context_tokens"}
    }
    sound = (
        all(isinstance(text, str) and len(text) <= _TEXT_CHARS_MAX for text in texts.values())
        and all(texts[name] in choices for name, choices in _CHOICES.items())
        and is_name(manifest.name)
        and is_version(manifest.version)
        and type(manifest.context_tokens) is int
        and 0 <= manifest.context_tokens <= _CONTEXT_MAX
        and all(_is_digest(texts[name]) for name in ("template_sha256", "tokenizer_sha256"))
        and all(isinstance(one, str) and _LANGUAGE.fullmatch(one) for one in manifest.languages)
        and 0 < len(manifest.files) <= _FILES_MAX
        and all(_is_sound(file) for file in manifest.files)
    )
    if not sound:
        raise ValueError
    # A lone surrogate has no UTF-8, so no canonical form either.
    manifest.canonical()
    must_be_distinct(tuple(file.path for file in manifest.files))


def _is_digest(text: str) -> bool:
    return not text or _HEX.fullmatch(text) is not None


def _is_sound(file: FileDigest) -> bool:
    return (
        isinstance(file.path, str)
        and is_path(file.path)
        and isinstance(file.sha256, str)
        and _HEX.fullmatch(file.sha256) is not None
        and type(file.bytes) is int
        and 0 <= file.bytes <= _BYTES_MAX
    )
