"""Names of people, places and organisations, where it is worth asking a model.

    ask = NameModel.ask(window, core)    cheap: can the segment hold a name at all? None: it cannot
    ask.runs                             whether rules leave words open
    ask.find()                           rules, and a model run if so; milliseconds

`LatinNames` (English and other languages in Latin script) and `ChineseNames` are behind it; `Names`
asks each where its script occurs. Each window is run by itself, never in a batch with others: a
model's rounding depends on what shares its batch, and what is found must depend on text alone.

Weights are loaded by path and only if their SHA-256 is the pinned one.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from compliance.names_base import Ask, FindsNow, NameModel, WeightsError, give_back
from compliance.names_latin import LatinNames
from compliance.names_zh import ChineseNames

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from compliance.findings import Finding

__all__ = ["ChineseNames", "LatinNames", "NameModel", "Names", "WeightsError", "load_names"]


class Names(FindsNow):
    """Several name models as one."""

    def __init__(self, models: Sequence[NameModel]) -> None:
        self._models = tuple(models)

    def ask(self, window: str, core: int) -> Ask | None:
        """Read a window with each model; find what those find that may find something."""
        asks = [ask for model in self._models if (ask := model.ask(window, core)) is not None]
        if len(asks) > 1:
            return Ask(any(ask.runs for ask in asks), partial(_all_of, asks))
        return asks[0] if asks else None


def _all_of(asks: Sequence[Ask]) -> list[Finding]:
    return [finding for ask in asks for finding in ask.find()]


def load_names(folder: Path, *, threads: int = 1, latin: NameModel | None = None) -> Names:
    """Load the models below `folder` (`rampart/`, `lac/`), as `deploy/fetch_models.py` left them.

    threads: of ONNX Runtime within one run. latin: in place of `LatinNames`.

    Raises:
        WeightsError: a file is missing or not the pinned one.
    """
    if latin is None:
        latin = LatinNames(folder / "rampart", threads=threads)
    give_back()
    chinese = ChineseNames(folder / "lac", threads=threads)
    give_back()
    return Names([latin, chinese])
