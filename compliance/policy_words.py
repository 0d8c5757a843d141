"""Dictionaries of a policy: thousands of terms, found in a time that does not depend on how many.

PURE.

A text is read as a row of tokens: a run of letters and digits, a single character of a script that
puts no spaces between words, or any other single character that is no white space. At most
`GAP_MAX` white-space characters may stand between two tokens of a term, so a term broken over a
line is found. From each token on, one look into a hash table is taken per length that a term with
this first token has, the longest first: at most `TOKENS_MAX` looks.

With `whole_words: false` every character but white space is a token, and `art` is in "part".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from compliance.findings import Finding
from compliance.normalise import fold
from compliance.policy_format import PolicyError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compliance.normalise import Folded
    from compliance.policy_format import Dictionary

__all__ = ["GAP_MAX", "TOKENS_MAX", "WordFinder"]

GAP_MAX = 3
TOKENS_MAX = 128

_ALONE = "぀-ヿ㐀-䶿一-鿿豈-﫿가-힯฀-๿"
"""Kana, Han, Hangul, Thai: no white space tells their words apart."""
_TOKEN = re.compile(rf"[{_ALONE}]|(?:(?![{_ALONE}_])\w)+|[^\w\s]|_")
_CHARACTER = re.compile(r"\S")

_Row = list[tuple[str, int, int]]


class WordFinder:
    """One dictionary, ready. A function of the window alone."""

    def __init__(self, entry: Dictionary) -> None:
        """Read the terms. Raises PolicyError: one has no token, or too many, once it is folded."""
        self._entry = entry
        self._token = _TOKEN if entry.whole_words else _CHARACTER
        self._terms: set[tuple[str, ...]] = set()
        lengths: dict[str, set[int]] = {}
        for term in entry.terms:
            tokens = tuple(token for token, _, _ in self._row(fold(term).text))
            if not 1 <= len(tokens) <= TOKENS_MAX:
                msg = f"{entry.name}: a term has no letters, or too many"
                raise PolicyError(msg)
            self._terms.add(tokens)
            lengths.setdefault(tokens[0], set()).add(len(tokens))
        self._lengths = {first: sorted(each, reverse=True) for first, each in lengths.items()}

    def find(self, folded: Folded, core: int) -> list[Finding]:
        """Findings of the window from `core` on, disjoint; cut at `core` if begun before."""
        row = self._row(folded.text)
        found, entry, i = [], self._entry, 0
        while i < len(row):
            count = self._longest(row, i)
            if count:
                start, end = folded.span(row[i][1], row[i + count - 1][2])
                if end > core:
                    name = f"policy:{entry.name}"
                    where = max(start, core)
                    found.append(Finding(entry.type, entry.kind, where, end, entry.score, name))
            i += count or 1
        return found

    def _longest(self, row: _Row, i: int) -> int:
        """How many tokens the longest term has that stands at `i`; 0 for none."""
        for length in self._lengths.get(row[i][0], ()):
            if tuple(token for token, _, _ in row[i : i + length]) in self._terms:
                gaps = (row[j + 1][1] - row[j][2] for j in range(i, i + length - 1))
                if all(gap <= GAP_MAX for gap in gaps):
                    return length
        return 0

    def _row(self, text: str) -> _Row:
        return list(self._tokens(text))

    def _tokens(self, text: str) -> Iterator[tuple[str, int, int]]:
        # Lower case is taken token by token: that of a whole text may be longer than the text.
        for match in self._token.finditer(text):
            token = match[0]
            yield (token if self._entry.case else token.lower()), match.start(), match.end()
