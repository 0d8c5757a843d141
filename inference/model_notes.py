"""What the record needs of models: manifests and templates, when each was loaded and gone."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from meshkit.contract import ModelInfo
    from meshkit.journal import Journal

__all__ = ["models_noted"]


@contextmanager
def models_noted(journal: Journal, models: Sequence[ModelInfo]) -> Iterator[None]:
    """Archive what models' digests are of, and tell that they are loaded, and then unloaded."""
    for model in models:
        journal.keep(*model.documents)
        journal.note("model.load", detail=_named(model))
    try:
        yield
    finally:
        for model in models:
            journal.note("model.unload", detail=_named(model))


def _named(model: ModelInfo) -> dict[str, str]:
    told = {"model": model.name, "digest": model.digest.hex()}
    if model.template_digest:
        told["prompt_template"] = model.template_digest.hex()
    return told
