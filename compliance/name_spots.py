"""A name that a rule found, how sure rules are, and what words name nobody. PURE."""

from __future__ import annotations

from typing import NamedTuple

from compliance.name_patterns import CODE_AFTER, CODE_BEFORE
from compliance.name_words import COMMON_WORDS

__all__ = ["LIKELY", "SURE", "WEAK", "Spot", "in_code", "is_common"]

SURE = 0.88
LIKELY = 0.8
WEAK = 0.6


class Spot(NamedTuple):
    """A span that a rule took for a name, in the window's offsets."""

    kind: str
    start: int
    end: int
    score: float


def is_common(word: str) -> bool:
    """Whether a word names nobody by itself; its case does not matter."""
    lower = word.lower()
    return lower in COMMON_WORDS or lower.removesuffix("'s").removesuffix("’s") in COMMON_WORDS


def in_code(window: str, start: int, end: int) -> bool:
    """Whether a word stands in an identifier, a call, a path or between backticks."""
    return (start > 0 and window[start - 1] in CODE_BEFORE) or (
        end < len(window) and window[end] in CODE_AFTER
    )
