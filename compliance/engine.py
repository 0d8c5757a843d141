"""Finds personal data and secrets in one window of text by pattern, checksum and context. PURE.

    window  = context (at most a few dozen characters before) + core
    fold    -> one spelling                                     compliance.normalise
    prefilter -> the few patterns that may match, in one pass    compliance.prefilter
    shapes  -> runs of digits are found once; what each may be   compliance.shapes
    re      -> candidates
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
from compliance.shapes import Shapes
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
        self._each: Callable[[Sequence[bytes]], list[list[int]]] | None
        self._each = getattr(prefilter, "each", None)
        numbers = [each for each in self._recognizers if each.digits is not None]
        self._shapes = Shapes(numbers, narrow=prefilter is not None) if numbers else None
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
        return self._find(window, core, fold(window), None)

    def find_all(self, found: Sequence[tuple[str, int]]) -> list[list[Finding]]:
        """Return what `find` does, for each (window, core): together they cost less.

        Raises:
            Refusal: as `find`.
        """
        if self._each is None:
            return [self.find(window, core) for window, core in found]
        folded = [fold(window) for window, _ in found]
        hits = self._each([each.text.encode() for each in folded])
        return [
            self._find(*window, one, may)
            for window, one, may in zip(found, folded, hits, strict=True)
        ]

    def _find(
        self, window: str, core: int, folded: Folded, hits: list[int] | None
    ) -> list[Finding]:
        try:
            found = self._read(folded, core, NESTING, hits)
            # What is invisible is gone from the folded text.
            return found + hidden(window, core) if folded.origins is not None else found
        except (ValueError, LookupError, ArithmeticError, TypeError, AttributeError):
            # `from None`: a recognizer's message might quote the text.
            raise Refusal(Reason.COMPLIANCE_DOWN) from None

    def _read(
        self, folded: Folded, core: int, deep: int, hits: list[int] | None = None
    ) -> list[Finding]:
        """Find in one reading of the window, and `deep` more levels of readings of it."""
        if hits is None:
            hits = self._prefilter(folded.text.encode())
        nearby = _Nearby(folded.text)
        found = _in_runs(self._shapes, folded, nearby, core) if self._shapes else []
        if not hits:
            return found
        families: set[str] = set()
        size = len(self._recognizers)
        for hit in sorted(hits):
            if hit >= size:
                families.add(FAMILIES[hit - size])
                continue
            recognizer = self._recognizers[hit]
            if recognizer.digits is not None or not nearby.may_count(recognizer):
                continue
            matches = recognizer.compiled.finditer(folded.text)
            found += _findings(recognizer, matches, folded, nearby, core)
        if families and deep:
            for other, least, deeper in readings(folded, families):
                more = self._read(other, core, deep - 1 if deeper else 0)
                found += (finding for finding in more if finding.score >= least)
        return found


class _Nearby:
    """What stands beside a value, for all the recognizers that ask about the same one."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._span = (-1, -1)
        self._around = ""
        self._lower = ""
        self._veto_at = -1
        self._veto = False

    def around(self, start: int, end: int) -> str:
        """The text on both sides, in lower case."""
        if self._span != (start, end):
            self._span = start, end
            before = self._text[max(0, start - CONTEXT_BEFORE) : start]
            # The mark between keeps a word from being made of both sides.
            self._around = f"{before}\0{self._text[end : end + CONTEXT_AFTER]}".lower()
        return self._around

    def may_count(self, recognizer: Recognizer) -> bool:
        """Whether the words that the recognizer cannot do without are anywhere in the text."""
        if not recognizer.needs_words or recognizer.context_words is None:
            return True
        if not self._lower:
            self._lower = self._text.lower()
        return recognizer.context_words.mentioned(self._lower)

    def vetoed(self, start: int) -> bool:
        """Whether a word before says that it is something else."""
        if self._veto_at != start:
            self._veto_at = start
            before = self._text[max(0, start - VETO_BEFORE) : start]
            self._veto = VETO_WORDS.within(before.lower())
        return self._veto


def _in_runs(shapes: Shapes, folded: Folded, nearby: _Nearby, core: int) -> list[Finding]:
    """Find the runs of digits, then try on each the recognizers that its shape allows."""
    found: list[Finding] = []
    text = folded.text
    past = -1
    for run in RUN.finditer(text):
        first, last = run.span()
        past = past if past >= 0 else folded.offset(core)
        if last + _RUN_MARGIN_AFTER <= past:
            continue
        start = max(0, first - _RUN_MARGIN_BEFORE)
        end = min(len(text), last + _RUN_MARGIN_AFTER)
        for recognizer in shapes.fitting(text, start, (first, last), end):
            matches = recognizer.compiled.finditer(text, start, end)
            found += _findings(recognizer, matches, folded, nearby, core)
    return found


def _findings(
    recognizer: Recognizer,
    matches: Iterable[re.Match[str]],
    folded: Folded,
    nearby: _Nearby,
    core: int,
) -> list[Finding]:
    found = []
    plain = folded.origins is None
    for match in matches:
        group = recognizer.group
        if group and match[group] is None:
            group = "q"
        first, last = match.span(group)
        if first == last or last - first > SPAN_MAX:
            continue
        start, end = (first, last) if plain else folded.span(first, last)
        # Of a disguised value more stands in the text than in what it was read as.
        if end <= core or end - max(start, core) > SPAN_MAX:
            continue
        rule = folded.rule(*match.span()) if folded.pieces else ""
        if folded.pieces and not rule:
            continue
        if not (score := _score(recognizer, match[group], nearby, first, last)):
            continue
        kind, subtype = recognizer.type, recognizer.subtype
        name = f"{recognizer.name}+{rule}" if rule else recognizer.name
        found.append(Finding(kind, subtype, max(start, core), end, score, name))
    return found


def _score(recognizer: Recognizer, value: str, nearby: _Nearby, start: int, end: int) -> float:
    """Weigh checksum, context and veto words; 0 drops the candidate."""
    # `[INST]` looks like one of ours and is a template's mark.
    if value[0] == "[" and _PLACEHOLDER.fullmatch(value) and recognizer.type != "INJECTION":
        return 0.0
    words = recognizer.context_words
    named = words is not None and recognizer.needs_words and words.within(nearby.around(start, end))
    if recognizer.needs_words and not named:
        return 0.0
    accepted = recognizer.check is None or recognizer.check(value)
    alone, near = recognizer.score if accepted else recognizer.rejected
    if near == 0.0:
        return 0.0
    if named or (words is not None and words.within(nearby.around(start, end))):
        return near
    if alone and recognizer.veto and nearby.vetoed(start):
        return max(0.0, alone - VETO)
    return alone
