"""Which models there are, and proof that the bytes on disk are theirs.

A manifest names a weights file and pins its SHA-256. A file with another digest is not loaded, and
nothing of it is parsed: parsers of weight formats are no place to meet a stranger's bytes.

The model digest that every record carries is the SHA-256 of the manifest's canonical form: its
fields and `"schema": "sealgate/model/v2"` as JSON, keys sorted, no white space, UTF-8. The audit
service keeps that text, so that the digest can be opened. A GGUF file holds weights, tokenizer and
template, so the digest of the file, which is in it, covers all three.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from importlib import resources
from typing import TYPE_CHECKING

from meshkit.contract import Document, ModelInfo

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Manifest", "ModelFileError", "checked_file", "load_manifest", "model_info"]

_SCHEMA = "sealgate/model/v2"


class ModelFileError(Exception):
    """A model's file is missing or is not the one its manifest names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What is known of a model before a byte of it is read.

    file: Path under the models folder. *_sha256: lower-case hexadecimal.
    default_system: What the template says to the model when the caller brings no system message.
    """

    name: str
    file: str
    file_sha256: str
    template_sha256: str
    default_system: str
    format: str
    precision: str
    context_tokens: int
    licence: str
    languages: tuple[str, ...]
    intended_use: str
    source: str

    def canonical(self) -> bytes:
        """Return the bytes that the model's digest is of."""
        told = asdict(self) | {"schema": _SCHEMA}
        return json.dumps(told, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def load_manifest(name: str) -> Manifest:
    """Read a packaged manifest.

    Raises:
        ModelFileError: there is none of that name.
    """
    for entry in resources.files("inference.manifests").iterdir():
        if entry.name == f"{name}.json":
            fields = json.loads(entry.read_text(encoding="utf-8"))
            return Manifest(**{**fields, "languages": tuple(fields["languages"])})
    msg = "no manifest bears the configured model's name"
    raise ModelFileError(msg)


def checked_file(manifest: Manifest, models_dir: Path) -> Path:
    """Return the weights file once its digest holds. Cost: about 0.1 s for 100 MB.

    Raises:
        ModelFileError: it is missing, unreadable or another file.
    """
    path = models_dir / manifest.file
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        msg = f"weights of {manifest.name} cannot be read: {path}"
        raise ModelFileError(msg) from error
    if found != manifest.file_sha256:
        msg = f"weights of {manifest.name} have the wrong SHA-256: {path}"
        raise ModelFileError(msg)
    return path


def model_info(manifest: Manifest, *, context_tokens: int) -> ModelInfo:
    """Describe a model for callers and for the record.

    Args:
        manifest: the model's.
        context_tokens: what the engine was set up for; at most the manifest's.
    """
    document = Document("model.manifest", manifest.canonical())
    return ModelInfo(
        name=manifest.name,
        digest=document.digest,
        context_tokens=min(context_tokens, manifest.context_tokens),
        licence=manifest.licence,
        languages=manifest.languages,
        template_digest=bytes.fromhex(manifest.template_sha256),
        documents=(document,),
    )
