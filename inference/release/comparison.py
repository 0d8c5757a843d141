"""How alike two answers to one prompt are. PURE.

Agreement is by characters: twice the longest common subsequence over both lengths, 1 for equal
answers, 0 for such that share nothing. It says nothing of meaning: two good answers in other words
agree little, so what counts is how it changes, and what two runs of one version reach (1 at
temperature 0).
"""

from __future__ import annotations

import re

from inference.release.windows import Comparison

__all__ = ["CHARACTERS_MAX", "agreement", "compare", "refuses"]

CHARACTERS_MAX = 4_096
"""Of each answer; what is longer is compared so far."""

_REFUSAL = re.compile(
    r"\b(?:i(?:'m| am) (?:sorry|unable|not able)|i (?:cannot|can't|can not|won't|will not)"
    r"|as an ai\b|i must decline|i (?:do not|don't) have (?:the )?(?:ability|access))"
    r"|抱歉|对不起|我(?:无法|不能)|作为(?:一个)?(?:AI|人工智能)",
    re.IGNORECASE,
)
_OPENING = 200
"""Characters in which a refusal says that it is one."""


def agreement(left: str, right: str) -> float:
    """Return how alike two texts are, 0 to 1. Cost: 2 ms for two of 4,096 characters.

    Source: Hyyrö, "Bit-parallel LCS-length computation revisited" (2004): a row of the table is one
    integer, a step a few operations on it.
    """
    left, right = left[:CHARACTERS_MAX], right[:CHARACTERS_MAX]
    if not left or not right:
        return float(left == right)
    places: dict[str, int] = {}
    for at, character in enumerate(left):
        places[character] = places.get(character, 0) | 1 << at
    whole = (1 << len(left)) - 1
    row = whole
    for character in right:
        met = row & places.get(character, 0)
        row = (row + met | row - met) & whole
    common = len(left) - row.bit_count()
    return 2 * common / (len(left) + len(right))


def refuses(answer: str) -> bool:
    """Whether an answer reads like a refusal: by words of English and Chinese, so a guess."""
    return _REFUSAL.search(answer.replace("\u2019", "'")[:_OPENING]) is not None


def compare(live: str, candidate: str, *, live_s: float, candidate_s: float) -> Comparison:
    """Compare two answers and how long they took."""
    return Comparison(
        agreement=agreement(live, candidate),
        length_ratio=len(candidate) / max(1, len(live)),
        refused_live=refuses(live),
        refused_candidate=refuses(candidate),
        slower=candidate_s / live_s if live_s > 0 else 1.0,
    )
