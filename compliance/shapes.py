r"""Which recognizers of numbers may match a run of digits: asked of the run's shape, once. PURE.

    "4111 1111 1111 1111"   ->  41dd dddd dddd dddd   ->  credit_card, in_aadhaar, jp_my_number

A shape keeps the first two digits and all that stands between and beside the digits; the other
digits are any. Texts have few shapes, so what a shape may be is worked out when it first occurs and
then looked up: some seventy patterns of digits cost neither a scan nor a compiled automaton. Each
pattern is widened for that: where it wants some digits, it takes "any digit" too, and an assertion
that tells digits apart is dropped. So a pattern that does not match the shape cannot match the run.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from compliance.recognizers.base import Recognizer

__all__ = ["SHAPES_MAX", "SHAPE_MAX", "Shapes", "widened"]

SHAPE_MAX = 48
"""Characters of a shape that is kept; longer runs are tables of figures, each of its own shape."""
SHAPES_MAX = 4096
"""Shapes kept; then all are dropped and kept anew. Some 400 bytes each."""
_AS_THEY_ARE = 2

_ANY = "\x01"
"""A digit, whichever."""
_OTHER = "\x02"
"""A character that no pattern asks for."""
_DIGITS = "0123456789"
_PART = re.compile(
    r"\\[1-9]|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{[0-9]+(?:,[0-9]*)?\}|\(\?P<[a-z]>|\(\?<?[=!:]|.",
    re.DOTALL,
)
_REPEATED = re.compile(r"\\[1-9]")
_ANYTHING = r"[^\n]{0,9}"
_ASSERTIONS = {"(?!", "(?<!", "(?=", "(?<="}


class Shapes:
    """The recognizers of numbers, by shape.

    numbers: those with `digits`. narrow: without it only lengths are asked for; the same findings,
        slower.
    """

    def __init__(self, numbers: Sequence[Recognizer], *, narrow: bool = True) -> None:
        self._shape_max = SHAPE_MAX if narrow else 0
        self._all = [(each, re.compile(widened(each.pattern), each.flags)) for each in numbers]
        asked = {c for each in numbers for c in _letters(each.pattern)}
        self._table = _Table(asked)
        self._known: dict[str, tuple[Recognizer, ...]] = {}

    def fitting(
        self, text: str, start: int, run: tuple[int, int], end: int
    ) -> Iterable[Recognizer]:
        """Return those that may match in `text[start:end]`, in which `run` is a run of digits."""
        first, last = run
        if end - start > self._shape_max:
            return [each for each, _ in self._by_length(text[first:last])]
        middle = first + _AS_THEY_ARE
        table = self._table
        before, behind = text[start:first].translate(table), text[middle:end].translate(table)
        shape = f"{before}{text[first:middle]}{behind}"
        known = self._known.get(shape)
        if known is None:
            if len(self._known) >= SHAPES_MAX:
                self._known.clear()
            may = self._by_length(text[first:last])
            self._known[shape] = known = tuple(each for each, p in may if p.search(shape))
        return known

    def _by_length(self, run: str) -> list[tuple[Recognizer, re.Pattern[str]]]:
        """A run without separators holds one number; with some, it may hold several."""
        count = sum(map(run.count, _DIGITS))
        longest = count if count == len(run) else 0
        return [
            pair
            for pair in self._all
            if pair[0].digits and pair[0].digits[0] <= count and longest <= pair[0].digits[1]
        ]


class _Table(dict[int, str]):
    """What a character is in a shape."""

    def __init__(self, asked: Iterable[str]) -> None:
        super().__init__({ord(digit): _ANY for digit in _DIGITS})
        self._asked = frozenset(asked)

    def __missing__(self, code: int) -> str:
        character = chr(code)
        plain = character.isascii() and character.isprintable() and not character.isalnum()
        kept = character if plain or character in self._asked else _OTHER
        if character.isascii():
            self[code] = kept
        return kept


def widened(pattern: str) -> str:
    """Return the pattern for shapes: it matches the shape of each text that `pattern` matches."""
    parts = _PART.findall(pattern)
    out: list[str] = []
    at = 0
    while at < len(parts):
        if parts[at] in _ASSERTIONS:
            end = _closing(parts, at)
            if parts[at] == "(?=" or ("!" in parts[at] and _even_handed(parts[at + 1 : end])):
                out += ["" if part == "" else _wide(part) for part in parts[at : end + 1]]
            at = end + 1
            continue
        out.append(_wide(parts[at]))
        at += 1
    return "".join(out)


def _closing(parts: Sequence[str], at: int) -> int:
    """Where the group that `parts[at]` opens is closed."""
    depth = 0
    for place in range(at, len(parts)):
        depth += parts[place].startswith("(") - (parts[place] == ")")
        if depth == 0:
            return place
    return len(parts) - 1


def _wide(part: str) -> str:
    if part in _DIGITS:
        return f"[{part}{_ANY}]"
    if _REPEATED.fullmatch(part):
        # What it repeats is not known: the digits of a shape are not those of the text.
        return _ANYTHING
    if part.startswith("["):
        negated = part.startswith("[^")
        if bool(_taken(part)) != negated:
            return f"{part[:-1]}{_ANY}]"
    if re.fullmatch(r"\\[dDsSwW]", part) and _taken(part):
        return f"[{part}{_ANY}]"
    return part


def _taken(part: str) -> str:
    """The digits that a class takes."""
    return "".join(re.findall(part, _DIGITS, re.ASCII))


def _even_handed(parts: Sequence[str]) -> bool:
    """Whether what is asserted is the same for all digits: else it is not told by a shape."""
    return all(
        not _REPEATED.fullmatch(part) and _taken(part) in {"", _DIGITS}
        for part in parts
        if part in _DIGITS or part.startswith("[") or re.fullmatch(r"\\[a-zA-Z1-9]", part)
    )


def _letters(pattern: str) -> Iterable[str]:
    """Letters, and what is not ASCII, that a pattern asks for or takes."""
    bare = re.sub(r"\(\?<?![^()]*\)", "", pattern)
    for part in _PART.findall(bare):
        if part.startswith("[") and not part.startswith("[^"):
            yield from (c for c in map(chr, range(128)) if c.isalpha() and re.match(part, c))
            yield from (c for c in part if not c.isascii())
        elif len(part) == 1 and (part.isalpha() or not part.isascii()):
            yield part
