"""Finds personal data and secrets in one window of text by pattern, checksum and context. PURE.

    window  = context (at most a few dozen characters before) + core
    fold    -> one spelling                                     compliance.normalise
    prefilter -> the few patterns that may match, in one pass    compliance.prefilter
    re      -> candidates; those made of digits only within runs of digits, which are found once
    check, context words, veto words -> score
    clip    -> findings within the core, as offsets into the original window
    other readings of the same window, where something in it is disguised   compliance.disguises

What is found is a function of the window alone; that is what makes streams and whole texts agree
(`compliance.stream`). Time is linear in the window.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from compliance.disguises import FAMILIES, NESTING, readings
from compliance.disguises import expressions as disguises
from compliance.findings import Finding
from compliance.normalise import fold
from compliance.recognizers.base import (
    CONTEXT_AFTER,
    CONTEXT_BEFORE,
    RUN,
    VETO,
    VETO_BEFORE,
    VETO_WORDS,
    Expression,
    Recognizer,
)
from compliance.recognizers.injection import hidden
from meshkit.contract import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from compliance.normalise import Folded

__all__ = ["Engine", "expressions"]

SPAN_MAX = 512
"""No finding is longer, but for blocks with an opening mark, which `compliance.stream` handles."""

_RUN_MARGIN_BEFORE = 3
"""What may stand before the first digit and belong to it: `+`, `(`."""
_RUN_MARGIN_AFTER = 3
"""An X or a bracket that belongs to it, and the two characters that a boundary looks at."""
_PLACEHOLDER = re.compile(r"\[[A-Z_]{2,24}\]")


def expressions(recognizers: Sequence[Recognizer]) -> list[Expression]:
    """Give the prefilter what it needs: one expression of each recognizer.

    Behind them stand the hints of `compliance.disguises`.
    """
    return [*(recognizer.expression for recognizer in recognizers), *disguises()]


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
        everyone = list(range(len(self._recognizers) + len(FAMILIES)))
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
        try:
            found = self._read(folded, core, NESTING)
            # What is invisible is gone from the folded text.
            return found + hidden(window, core) if folded.origins is not None else found
        except (ValueError, LookupError, ArithmeticError, TypeError, AttributeError):
            # `from None`: a recognizer's message might quote the text.
            raise Refusal(Reason.COMPLIANCE_DOWN) from None

    def _read(self, folded: Folded, core: int, deep: int) -> list[Finding]:
        """Find in one reading of the window, and `deep` more levels of readings of it."""
        hits = self._prefilter(folded.text.encode())
        if not hits:
            return []
        found: list[Finding] = []
        numbers: list[Recognizer] = []
        families: set[str] = set()
        size = len(self._recognizers)
        for hit in sorted(hits):
            if hit >= size:
                families.add(FAMILIES[hit - size])
                continue
            recognizer = self._recognizers[hit]
            if recognizer.digits is not None:
                numbers.append(recognizer)
                continue
            matches = recognizer.compiled.finditer(folded.text)
            found += _findings(recognizer, matches, folded, core)
        if numbers:
            found += _in_runs(numbers, folded, core)
        if families and deep:
            for other, least, deeper in readings(folded, families):
                more = self._read(other, core, deep - 1 if deeper else 0)
                found += (finding for finding in more if finding.score >= least)
        return found


def _in_runs(numbers: Sequence[Recognizer], folded: Folded, core: int) -> list[Finding]:
    """Find the runs of digits once, then try on each the recognizers its length allows."""
    found: list[Finding] = []
    text = folded.text
    past = folded.offset(core)
    for run in RUN.finditer(text):
        if run.end() + _RUN_MARGIN_AFTER <= past:
            continue
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
        # Of a disguised value more stands in the text than in what it was read as.
        if end - max(start, core) > SPAN_MAX:
            continue
        rule = folded.rule(*match.span()) if folded.pieces else ""
        if folded.pieces and not rule:
            continue
        if end <= core or not (score := _score(recognizer, match[group], folded.text, first, last)):
            continue
        kind, subtype = recognizer.type, recognizer.subtype
        name = f"{recognizer.name}+{rule}" if rule else recognizer.name
        found.append(Finding(kind, subtype, max(start, core), end, score, name))
    return found


def _score(recognizer: Recognizer, value: str, text: str, start: int, end: int) -> float:
    """Weigh checksum, context and veto words; 0 drops the candidate."""
    # `[INST]` looks like one of ours and is a template's mark.
    if _PLACEHOLDER.fullmatch(value) and recognizer.type != "INJECTION":
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
