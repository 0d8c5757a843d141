"""What the record needs of models: manifests and templates, and each step of their releases."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from inference.release.desk import Desk
    from inference.release.states import Note
    from meshkit.contract import ModelInfo
    from meshkit.journal import Journal

__all__ = ["models_noted", "refusals_noted"]


@contextmanager
def models_noted(
    journal: Journal, desk: Desk, *, embedding: Sequence[ModelInfo] = ()
) -> Iterator[None]:
    """Tell of every step, those before now included; at the end, that what is loaded is unloaded.

    What a loaded model's digests are of is archived before it is told that it is loaded.

    Args:
        journal: the service's.
        desk: of releases.
        embedding: models that turn texts into vectors; they are loaded from now until the end.
    """

    def tell(note: Note) -> None:
        engine = desk.engines.get((note.name, note.version))
        detail = dict(note.detail)
        if note.action == "model.load" and engine is not None:
            journal.keep(*engine.info.documents)
            detail |= _digests(engine.info)
        journal.note(note.action, outcome=note.outcome, detail=detail)

    desk.telling(tell)
    for model in embedding:
        journal.keep(*model.documents)
        journal.note("model.load", detail={"model": model.name, **_digests(model)})
    try:
        yield
    finally:
        for model in embedding:
            journal.note("model.unload", detail={"model": model.name, **_digests(model)})
        for (name, version), engine in desk.engines.items():
            told = {"model": name, "version": version, **_digests(engine.info)}
            journal.note("model.unload", detail=told)


@contextmanager
def refusals_noted(journal: Journal | None, desk: Desk) -> Iterator[None]:
    """Tell of what happened in a block that fails: else a start that is refused leaves no record.

    Args:
        journal: the service's; None: nobody is told.
        desk: of releases; of a block that ends well it tells by `models_noted`.
    """
    try:
        yield
    except BaseException:
        if journal is not None:
            with models_noted(journal, desk):
                pass
        raise


def _digests(model: ModelInfo) -> dict[str, str]:
    told = {"digest": model.digest.hex()}
    if model.template_digest:
        told["prompt_template"] = model.template_digest.hex()
    return told
