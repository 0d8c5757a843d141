"""Names in Latin script: by rules first, by a small BERT where they leave words open.

The model is Rampart (MiniLM, 18.5M parameters, weights CC-BY-4.0). It is asked about short pieces
around the open words, each by itself: more context did not find more names (docs/compliance.md).
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer

from compliance.findings import Finding
from compliance.lean_bert import lean
from compliance.name_patterns import LETTERS, THING_BEHIND
from compliance.name_places import subtype_of
from compliance.name_rules import NAME_MIN, is_acronym, is_common, survey
from compliance.name_words import PRODUCTS
from compliance.names_base import Ask, FindsNow, pinned, session
from compliance.requantise import eight_bit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

    from compliance.name_rules import Survey

__all__ = ["LatinNames"]

RAMPART_SHA256 = {
    "model_q4.onnx": "9f27d24949b0581701071ea5ef522d77ccd3f50c525cc91eac4d265b0fc2afe5",
    "tokenizer.json": "ec87d41d85cbf02128ec0e5f577b805a326b06bb2947ef2752e67a98a42819f9",
}

LATIN_CONTEXT = 20
"""Characters that the model sees on both sides of what may be names."""

_LABELS = {
    **dict.fromkeys((1, 2, 3, 4), "PERSON"),
    # building number, street, unit, city, state, postal code
    **dict.fromkeys(range(23, 35), "LOCATION"),
}
_TOKEN_SCORE_MIN = {"PERSON": 0.4, "LOCATION": 0.2}
_LIKELY_SCORE_MIN = 0.03
"""Enough for a person where the word is a given name, or one of two capitalised words."""
_LIKELY_SCORE = 0.6
_ODD_CASE_MIN = 0.97
_ODD_CASE = re.compile(r"[A-Z]{2,5}|[A-Za-z]*[a-z][A-Z][A-Za-z]*")
"""One word, spelled like an acronym or a product: OTel, SHA, OpenBao, but McDonald too."""
_CODE_WORD = re.compile(r"(?=[^ ]*[A-Za-z])[^ ]*[0-9][^ ]*")
_SIZE = re.compile(r"[0-9]{3}/[0-9]{2} | x [0-9]|(?<![A-Za-z])[A-Z][0-9]{1,2} x")
"""Of a tyre, a bolt or a board, rather than a place."""
_NUMBERED = re.compile(
    r"(?i:floor|room|panel|step|level|page|gate|zone|table|figure|section|chapter|stage|phase|part)"
    r" [A-Z]?[0-9]{0,3}"
)
_JOINS = {
    "PERSON": re.compile(r"(?:[ \t]{0,2}|\. |\.|-|[ ]?['’])"),
    "LOCATION": re.compile(r"[ ,.\n\t#/-]{0,3}"),
}
_WORD_AFTER = re.compile(rf"[{LETTERS}0-9]*")
_WORD_BEFORE = re.compile(rf"[{LETTERS}0-9]*$")
_LISTED_BEFORE = re.compile(r"(?P<word>[A-Za-z0-9]+)(?:, | and |, and | or |/)$")
_LISTED_AFTER = re.compile(r"(?:, | and |, and | or |/)(?P<word>[A-Za-z0-9]+)")
_LAST_PLAIN = re.compile(r"[ ,.]+(?P<word>[a-zß-öø-ÿ]+)[ ,.]*$")
_TRIM = " \t\n,.;:'\"’()[]#-"
_TOKENS_MAX = 510
_SCORE_MAX = 0.89


class LatinNames(FindsNow):
    """PERSON, LOCATION and ORG by rules; PERSON and LOCATION by the model besides."""

    def __init__(self, folder: Path, *, threads: int = 1) -> None:
        files = pinned(folder, RAMPART_SHA256)
        self._tokenizer = Tokenizer.from_str(files["tokenizer.json"].decode())
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(_TOKENS_MAX + 2)
        # Popped, so that the file's bytes are gone while the session is opened.
        self._session = session(lean(eight_bit(files.pop("model_q4.onnx"))), threads)
        self._kinds = sorted(set(_LABELS.values()))
        self._columns = {
            kind: [i for i, of in _LABELS.items() if of == kind] for kind in self._kinds
        }

    def ask(self, window: str, core: int) -> Ask | None:
        """Look for an unusual capitalised word, a given name or a place."""
        seen = survey(window, core)
        if seen is None:
            return None
        return Ask(bool(seen.open), partial(self._find, window, core, seen))

    def _find(self, window: str, core: int, seen: Survey) -> list[Finding]:
        """What rules find, and what the model finds around the words that they leave open."""
        found = _by_rules(window, seen, core)
        for piece in _pieces(window, seen.open):
            for finding in self._run(window, core, piece, seen.likely):
                value = window[finding.start : finding.end]
                if finding.type == "PERSON" and not seen.shouting and is_acronym(value):
                    continue
                if _is_thing(window, finding.start, finding.end):
                    continue
                # What no open word gave rise to is an accident of the context.
                if any(a < finding.end and finding.start < b for a, b in seen.open):
                    found.append(finding)
        return _merged(found)

    def _run(
        self, window: str, core: int, piece: tuple[int, int], likely: list[tuple[int, int]]
    ) -> Iterator[Finding]:
        """Run the model over one piece of the window."""
        first, last = piece
        part = window[first:last]
        encoding = self._tokenizer.encode(part)
        scores = self._scores(encoding.ids)
        offsets = [(start + first, end + first) for start, end in encoding.offsets]
        for kind in self._kinds:
            for start, end, score in _spans(window, offsets, scores[kind], kind, likely):
                finding = _clean(window, kind, (max(start, core), end, score), likely)
                if finding is not None:
                    yield finding

    def _scores(self, ids: list[int]) -> dict[str, list[float]]:
        """Probability of each kind, by token: the sum over the kind's labels."""
        feed = {"input_ids": np.array([ids], dtype=np.int64)}
        logits: npt.NDArray[np.float32] = self._session.run(["logits"], feed)[0][0]
        powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
        shares = powers / powers.sum(axis=-1, keepdims=True)
        return {kind: shares[:, self._columns[kind]].sum(axis=-1).tolist() for kind in self._kinds}


def _by_rules(window: str, seen: Survey, core: int) -> list[Finding]:
    return [
        Finding(
            kind, subtype_of(kind, window[start:end]), max(start, core), end, score, "names_rules"
        )
        for kind, start, end, score in seen.spots
    ]


def _merged(found: list[Finding]) -> list[Finding]:
    """Make one finding of places that overlap: rule and model may each know half an address."""
    kept = [finding for finding in found if finding.type != "LOCATION"]
    last: Finding | None = None
    for finding in sorted(found, key=lambda f: (f.start, f.end, f.score)):
        if finding.type != "LOCATION":
            continue
        if last is None or finding.start >= last.end:
            kept += () if last is None else (last,)
            last = finding
        else:
            best = max(last, finding, key=lambda f: f.score)
            last = replace(best, start=last.start, end=max(last.end, finding.end))
    return kept if last is None else [*kept, last]


def _pieces(window: str, places: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Stretches of whole words around `places`; those whose contexts meet are one."""
    stretch: tuple[int, int] | None = None
    for start, end in sorted(places):
        first, last = (
            _word_start(window, start - LATIN_CONTEXT),
            _word_end(window, end + LATIN_CONTEXT),
        )
        if stretch is not None and first <= stretch[1]:
            stretch = (stretch[0], max(last, stretch[1]))
            continue
        if stretch is not None:
            yield stretch
        stretch = (first, last)
    if stretch is not None:
        yield stretch


def _word_start(text: str, at: int) -> int:
    """The beginning of the word at `at`, or of the text."""
    return text.rfind(" ", 0, at) + 1 if at > 0 else 0


def _word_end(text: str, at: int) -> int:
    """The end of the word at `at`, or of the text."""
    end = text.find(" ", at)
    return len(text) if end < 0 else end


def _within(places: list[tuple[int, int]], start: int, end: int) -> bool:
    return any(a <= start and end <= b for a, b in places)


def _spans(
    text: str,
    offsets: list[tuple[int, int]],
    scores: list[float],
    kind: str,
    likely: list[tuple[int, int]],
) -> list[tuple[int, int, float]]:
    """Join neighbouring tokens of a kind to spans of whole words."""
    join, least = _JOINS[kind], _TOKEN_SCORE_MIN[kind]
    spans: list[tuple[int, int, float]] = []
    for (start, end), score in zip(offsets, scores, strict=True):
        if end <= start:
            continue
        if score < least:
            if kind != "PERSON" or score < _LIKELY_SCORE_MIN or not _within(likely, start, end):
                continue
            score = _LIKELY_SCORE  # noqa: PLW2901 -- what the words are is evidence too
        if spans and join.fullmatch(text, spans[-1][1], start):
            first, _, best = spans[-1]
            spans[-1] = (first, end, max(best, score))
        else:
            spans.append((start, end, score))
    return [_whole_words(text, span) for span in spans]


def _whole_words(text: str, span: tuple[int, int, float]) -> tuple[int, int, float]:
    start, end, score = span
    before = _WORD_BEFORE.search(text, max(0, start - 32), start)
    after = _WORD_AFTER.match(text, end, end + 32)
    return (
        before.start() if before else start,
        after.end() if after else end,
        score,
    )


def _clean(
    text: str, kind: str, span: tuple[int, int, float], likely: list[tuple[int, int]]
) -> Finding | None:
    """Trim a span; None if what is left is no name."""
    start, end, score = span
    if kind == "LOCATION":
        end = _without_plain_words(text, start, end)
    while start < end and text[start] in _TRIM:
        start += 1
    while end > start and text[end - 1] in _TRIM:
        end -= 1
    value = text[start:end]
    if kind == "PERSON":
        if value.endswith(("'s", "’s")):
            end -= 2
            value = value[:-2]
        if not _may_be_person(value, score, known=any(start <= a and b <= end for a, b in likely)):
            return None
    elif (
        not any(c.isupper() for c in value)
        or is_common(value)
        or _CODE_WORD.fullmatch(value)
        or _SIZE.search(value)
        or _NUMBERED.fullmatch(value)
        or (score < _ODD_CASE_MIN and _ODD_CASE.fullmatch(value))
    ):
        return None
    subtype = subtype_of(kind, text[start:end])
    return Finding(kind, subtype, start, end, round(min(score, _SCORE_MAX), 4), "names_latin")


def _is_thing(text: str, start: int, end: int) -> bool:
    """Whether it is one word beside software in a list, or stands before a kind of thing."""
    if THING_BEHIND.match(text, end):
        return True
    before = _LISTED_BEFORE.search(text, max(0, start - 32), start)
    after = _LISTED_AFTER.match(text, end)
    return " " not in text[start:end] and any(
        beside is not None and beside["word"].lower() in PRODUCTS for beside in (before, after)
    )


def _without_plain_words(text: str, start: int, end: int) -> int:
    """Where a place ends, without the common words in lower case that the model put behind it."""
    while (last := _LAST_PLAIN.search(text, start, end)) and is_common(last["word"]):
        end = last.start()
    return end


def _may_be_person(value: str, score: float, *, known: bool) -> bool:
    """Whether it can be a person's name. known: a likely word is in it."""
    if len(value) < NAME_MIN or any(c.isdigit() or c in "_@=/" for c in value):
        return False
    if all(is_common(word) for word in value.split()):
        return False
    odd = value.islower() or _ODD_CASE.fullmatch(value) is not None
    return known or not odd or score >= _ODD_CASE_MIN
