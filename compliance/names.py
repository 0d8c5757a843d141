"""Names of people, places and organisations, where it is worth asking a model.

    NameModel.wants(window, core)   cheap: can the segment hold a name at all?
    NameModel.find(window, core)    rules, and a model run where they leave words open; milliseconds

`LatinNames` (English and other languages in Latin script) and `ChineseNames` are behind it; `Names`
asks each where its script occurs. Each window is run by itself, never in a batch with others: a
model's rounding depends on what shares its batch, and what is found must depend on text alone.

Weights are loaded by path and only if their SHA-256 is the pinned one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from compliance.names_base import NameModel, WeightsError
from compliance.names_latin import LatinNames
from compliance.names_zh import ChineseNames

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from compliance.findings import Finding

__all__ = ["ChineseNames", "LatinNames", "NameModel", "Names", "WeightsError", "load_names"]


class Names:
    """Several name models as one."""

    def __init__(self, models: Sequence[NameModel]) -> None:
        self._models = tuple(models)

    def wants(self, window: str, core: int) -> bool:
        """Whether any model would be asked."""
        return any(model.wants(window, core) for model in self._models)

    def find(self, window: str, core: int) -> list[Finding]:
        """What those models find that want the window."""
        return [
            finding
            for model in self._models
            if model.wants(window, core)
            for finding in model.find(window, core)
        ]


def load_names(folder: Path, *, threads: int = 1, latin: NameModel | None = None) -> Names:
    """Load the models below `folder` (`rampart/`, `lac/`), as `deploy/fetch_models.py` left them.

    threads: of ONNX Runtime within one run. latin: in place of `LatinNames`.

    Raises:
        WeightsError: a file is missing or not the pinned one.
    """
    if latin is None:
        latin = LatinNames(folder / "rampart", threads=threads)
    return Names([latin, ChineseNames(folder / "lac", threads=threads)])
