"""Which models come with this release, and proof that the bytes on disk are theirs.

A manifest (`inference.store.manifest`) names a model's files and pins the SHA-256 of each. A file
with another digest is not loaded, and nothing of it is parsed: parsers of weight formats are no
place to meet a stranger's bytes. Models that were added lie in a store: `inference.store`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from inference.store import below
from inference.store.errors import Fault, ModelFileError
from inference.store.manifest import Manifest
from inference.store.store import must_match, packaged_manifests
from meshkit.contract import Document, ModelInfo

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Manifest", "ModelFileError", "checked_file", "load_manifest", "model_info"]


def load_manifest(name: str) -> Manifest:
    """Read a packaged manifest.

    Raises:
        ModelFileError: there is none of that name.
    """
    for manifest in packaged_manifests():
        if manifest.name == name:
            return manifest
    raise ModelFileError(Fault.NOT_FOUND)


def checked_file(manifest: Manifest, models_dir: Path) -> Path:
    """Return a packaged model's weights once their digest holds. Cost: about 0.1 s for 100 MB.

    Raises:
        ModelFileError: it is missing, unreadable or another file.
    """
    file = manifest.weights[0]
    with below.folder(models_dir) as top, below.file_at(top, file.path) as handle:
        must_match(handle, file)
    return models_dir / file.path


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
