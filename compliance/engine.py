"""Finds personal data and secrets in one window of text by pattern, checksum and context. PURE.

    window  = context (at most a few dozen characters before) + core
    fold    -> one spelling                                     compliance.normalise
    prefilter -> the few patterns that may match, in one pass    compliance.prefilter
    re      -> candidates; those made of digits only within runs of digits, which are found once
    check, context words, veto words -> score
    clip    -> findings within the core, as offsets into the original window

What is found is a function of the window alone; that is what makes streams and whole texts agree
(`compliance.stream`). Time is linear in the window.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from compliance.findings import Finding
from compliance.normalise import fold
from compliance.recognizers.base import (
    CONTEXT_AFTER,
    CONTEXT_BEFORE,
    VETO,
    VETO_BEFORE,
    VETO_WORDS,
    Recognizer,
)
from meshkit.contract import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from compliance.normalise import Folded

__all__ = ["RUN_DIGITS_MIN", "Engine", "expressions"]

SPAN_MAX = 512
"""No finding is longer, but for blocks with an opening mark, which `compliance.stream` handles."""

RUN_DIGITS_MIN = 8
"""Digits that make a run worth classifying: a short phone number has eight."""

_RUN = re.compile(r"[0-9](?:[ \-./()]{0,2}[0-9]){7,}", re.ASCII)
_RUN_MARGIN_BEFORE = 3
"""What may stand before the first digit and belong to it: `+`, `(`."""
_RUN_MARGIN_AFTER = 3
"""An X or a bracket that belongs to it, and the two characters that a boundary looks at."""
_PLACEHOLDER = re.compile(r"\[[A-Z_]{2,24}\]")


def expressions(recognizers: Sequence[Recognizer]) -> list[tuple[str, bool]]:
    """Give the prefilter what it needs: of each recognizer the pattern and whether case matters."""
    return [(recognizer.expression, recognizer.case) for recognizer in recognizers]


class Engine:
    """All recognizers, ready.

    recognizers: those in force. prefilter: maps a window's UTF-8 bytes to indexes into
        `expressions(recognizers)` that may match; None tries them all (same findings, slower).
    """

    def __init__(
        self,
        recognizers: Sequence[Recognizer],
        prefilter: Callable[[bytes], list[int]] | None = None,
    ) -> None:
        self._recognizers = tuple(recognizers)
        everyone = list(range(len(self._recognizers)))
        self._prefilter = prefilter or (lambda _text: everyone)
        for recognizer in recognizers:
            # Compile now rather than within the first call.
            _ = (recognizer.compiled, recognizer.group, recognizer.context_words)

    def find(self, window: str, core: int) -> list[Finding]:
        """Return what may be found in `window[core:]`, unresolved: findings may overlap.

        Offsets are code points of `window`. A finding that began before `core` is cut there: that
        part is gone already.

        Raises:
            Refusal: COMPLIANCE_DOWN, if a recognizer fails; nothing of the text is in it.
        """
        folded = fold(window)
        hits = self._prefilter(folded.text.encode())
        if not hits:
            return []
        numbers: list[Recognizer] = []
        found: list[Finding] = []
        try:
            for hit in sorted(hits):
                recognizer = self._recognizers[hit]
                if recognizer.digits is not None:
                    numbers.append(recognizer)
                    continue
                matches = recognizer.compiled.finditer(folded.text)
                found += _findings(recognizer, matches, folded, core)
            if numbers:
                found += _in_runs(numbers, folded, core)
        except (ValueError, LookupError, ArithmeticError, TypeError, AttributeError):
            # `from None`: a recognizer's message might quote the text.
            raise Refusal(Reason.COMPLIANCE_DOWN) from None
        return found


def _in_runs(numbers: Sequence[Recognizer], folded: Folded, core: int) -> list[Finding]:
    """Find the runs of digits once, then try on each the recognizers its length allows."""
    found: list[Finding] = []
    text = folded.text
    for run in _RUN.finditer(text):
        value = run[0]
        count = sum(map(value.count, "0123456789"))
        # A run without separators holds one number; with some, it may hold several.
        longest = count if count == len(value) else 0
        start = max(0, run.start() - _RUN_MARGIN_BEFORE)
        end = min(len(text), run.end() + _RUN_MARGIN_AFTER)
        for recognizer in numbers:
            assert recognizer.digits is not None
            least, most = recognizer.digits
            if least <= count and longest <= most:
                matches = recognizer.compiled.finditer(text, start, end)
                found += _findings(recognizer, matches, folded, core)
    return found


def _findings(
    recognizer: Recognizer, matches: Iterable[re.Match[str]], folded: Folded, core: int
) -> list[Finding]:
    found = []
    for match in matches:
        group = recognizer.group
        if group and match[group] is None:
            group = "q"
        first, last = match.span(group)
        if first == last or last - first > SPAN_MAX:
            continue
        start, end = folded.span(first, last)
        if end <= core or not (score := _score(recognizer, match[group], folded.text, first, last)):
            continue
        kind, subtype, name = recognizer.type, recognizer.subtype, recognizer.name
        found.append(Finding(kind, subtype, max(start, core), end, score, name))
    return found


def _score(recognizer: Recognizer, value: str, text: str, start: int, end: int) -> float:
    """Weigh checksum, context and veto words; 0 drops the candidate."""
    if _PLACEHOLDER.fullmatch(value):
        return 0.0
    accepted = recognizer.check is None or recognizer.check(value)
    alone, near = recognizer.score if accepted else recognizer.rejected
    if near == 0.0:
        return 0.0
    words = recognizer.context_words
    if words is not None:
        before = text[max(0, start - CONTEXT_BEFORE) : start]
        # The mark between keeps a word from being made of both sides.
        if words.within(f"{before}\0{text[end : end + CONTEXT_AFTER]}".lower()):
            return near
    if recognizer.veto and VETO_WORDS.within(text[max(0, start - VETO_BEFORE) : start].lower()):
        return max(0.0, alone - VETO)
    return alone
