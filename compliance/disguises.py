"""Other readings of a text in which something was hidden from patterns. PURE.

    chains, words …             numbers and addresses taken apart or spelled   compliance.respell
    escapes, quoted, encoded    other notations                                compliance.decode

`hints` go to the prefilter beside the recognizers' own patterns: of text in which none occurs there
is no other reading, and it costs nothing. A reading is scanned as the text itself is; what is found
in it counts only where it touches something that was replaced. Readings of readings are made
`NESTING` deep: percent within Base64, a spaced number within percent.

Cost: at most five readings of a window and five of each decoded one; none is longer than the
window. So time stays linear in the text, at worst some twenty times that of text without disguise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from compliance.decode import (
    ENCODED_HINTS,
    ESCAPE_HINTS,
    QUOTED_HINTS,
    encoded,
    escaped,
    quoted,
)
from compliance.normalise import rewrite
from compliance.recognizers.base import Expression, Stage
from compliance.respell import HINTS, respelled

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from compliance.normalise import Folded

__all__ = ["FAMILIES", "NESTING", "RESPELLED_SCORE_MIN", "Reading", "expressions", "readings"]

NESTING = 2
"""Levels of decoding that are undone."""

RESPELLED_SCORE_MIN = 0.7
"""A number that we put together needs a checksum, an unmistakable form or a word beside it."""

_DECODERS = {"escapes": escaped, "quoted": quoted, "encoded": encoded}
_HINTS: tuple[tuple[str, str, bool], ...] = (
    *HINTS,
    *(("escapes", *hint) for hint in ESCAPE_HINTS),
    *(("quoted", *hint) for hint in QUOTED_HINTS),
    *(("encoded", *hint) for hint in ENCODED_HINTS),
)
_RESPELL = frozenset(rule for rule, _, _ in HINTS)

_OF_DIGITS = frozenset({"chains", "spread", "even", "lettered", "leet"})
"""Rules whose hints have a digit: they are looked for only where there is one."""

FAMILIES: tuple[str, ...] = tuple(name for name, _, _ in _HINTS)
"""For each of `expressions`, in order, which rule or decoder it calls for."""


class Reading(NamedTuple):
    """Another text and the way back; what it takes to believe a finding; whether to look deeper."""

    folded: Folded
    score_min: float
    deeper: bool


def expressions() -> list[Expression]:
    """Hints of all families, as the prefilter takes them."""
    return [
        Expression(pattern, case, Stage.SHORT if name in _OF_DIGITS else Stage.ALL)
        for name, pattern, case in _HINTS
    ]


def readings(base: Folded, families: Collection[str]) -> Iterator[Reading]:
    """Readings of `base` by the families named that change anything."""
    for name, decode in _DECODERS.items():
        if name in families and (folded := rewrite(base, decode(base.text))) is not None:
            yield Reading(folded, 0.0, deeper=True)
    rules = _RESPELL.intersection(families)
    if not rules:
        return
    solid = rewrite(base, respelled(base.text, rules, solid=True))
    if solid is not None:
        yield Reading(solid, RESPELLED_SCORE_MIN, deeper=False)
    if "chains" in rules:
        grouped = rewrite(base, respelled(base.text, rules, solid=False))
        if grouped is not None and (solid is None or grouped.text != solid.text):
            yield Reading(grouped, RESPELLED_SCORE_MIN, deeper=False)
