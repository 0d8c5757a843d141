r"""Which patterns a policy may bring: those whose time is bounded whatever text they meet. PURE.

A pattern of a policy is run by Python's `re`, which tries one way after another, so it must be
shown before it is let in that there are few ways. Refused outright:

- unbounded repeats (`*`, `+`, `{2,}`) and repeats of more than `REPEAT_MAX`;
- references to groups, conditions, atomic groups, possessive repeats, flags within the pattern;
- anchors and `\b`: a segment's edges are not a text's, and `\b` fails beside Chinese characters;
- looking ahead or behind, but at one character: `(?<![A-Z])`, `(?![0-9])`;
- groups with names, but one `(?P<v>...)` that is in every match and marks the value;
- what may be shorter than 2 or longer than 512 characters: no finding is longer.

Of what is left the number of ways through the pattern is bounded from above. A repeat whose set of
first characters is disjoint from what may follow it can stop at one place only: one way. Else it
has one for each count. Alternatives that differ in a character they begin with are one way, others
add up; a repeat of a group with w ways has w to the power of its most. The ways in a row multiply.
Nested repeats that are ambiguous, such as `(a{1,9}){1,9}`, so have billions, while
`(?:[a-z]{1,9}\.){1,4}` has one. Ways times the longest way must not pass `STEPS_MAX`: that many
single steps at most are taken from each character of a text, and a segment with its context has
at most 1,088 of those.

Last, hyperscan must take it, as the prefilter hands it over: it reads in linear time or refuses.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import hyperscan

from compliance.policy_format import PolicyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from compliance.policy_format import Pattern

__all__ = [
    "FLAGS",
    "POLICY_STEPS_MAX",
    "REPEAT_MAX",
    "STEPS_MAX",
    "WIDTH_MAX",
    "hold_patterns",
    "steps",
]

REPEAT_MAX = 128
WIDTH_MIN = 2
WIDTH_MAX = 512
STEPS_MAX = 10_000
"""Of one pattern, from one character."""
POLICY_STEPS_MAX = 100_000
"""Of all patterns of a policy together."""

FLAGS: int = hyperscan.HS_FLAG_PREFILTER | hyperscan.HS_FLAG_SINGLEMATCH | hyperscan.HS_FLAG_UTF8
"""Of hyperscan, for a policy's patterns."""
_MANY = 1 << 40
"""Ways are not counted beyond this: the power of a repeat may have thousands of digits."""
_Node: TypeAlias = Any
"""A part of the tree that `re` makes of a pattern: an operation and its argument, without types."""
_parser: Any = importlib.import_module("re._parser")
_ASCII = 128
_OTHER = _ASCII
"""Stands for every character beyond ASCII: sets of those count as overlapping."""
_END = -1
_ALL = frozenset(range(_ASCII + 1))
_SINGLE = frozenset({"LITERAL", "NOT_LITERAL", "IN", "ANY"})
_CATEGORIES = {
    "CATEGORY_DIGIT": r"\d",
    "CATEGORY_NOT_DIGIT": r"\D",
    "CATEGORY_SPACE": r"\s",
    "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_WORD": r"\w",
    "CATEGORY_NOT_WORD": r"\W",
}
_WHY = {
    "AT": r"anchors and \b are not let in",
    "GROUPREF": "references to groups are not let in",
    "GROUPREF_EXISTS": "conditions are not let in",
    "ATOMIC_GROUP": "atomic groups are not let in",
    "POSSESSIVE_REPEAT": "possessive repeats are not let in",
}


class _Refused(PolicyError):  # noqa: N818 -- an answer about a pattern
    """Why a pattern is not let in; quotes none of it."""


@dataclass(frozen=True, slots=True)
class _Part:
    """What is known of a part of a pattern."""

    first: frozenset[int]
    """What it may begin with, if it is not empty."""
    least: int
    most: int
    """Characters."""
    ways: int
    looks: bool = False
    """It takes no character: `first` is what must follow."""


_EMPTY = _Part(frozenset(), 0, 0, 1)


def hold_patterns(patterns: Iterable[Pattern]) -> None:
    """Let a policy's patterns in.

    Raises:
        PolicyError: names the pattern that is not, and says why.
    """
    total = 0
    for pattern in patterns:
        try:
            _hold_alone(pattern.pattern)
            total += steps(pattern.expression, case=pattern.case)
            _hold_hyperscan(pattern.expression)
        except _Refused as refused:
            msg = f"pattern {pattern.name}: {refused}"
            raise PolicyError(msg) from None
    if total > POLICY_STEPS_MAX:
        msg = f"the patterns together may take more than {POLICY_STEPS_MAX} steps a character"
        raise PolicyError(msg)


def _hold_alone(pattern: str) -> None:
    """Refuse what only becomes a pattern between our boundaries, such as `a)|(?:b`."""
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError):
        _refuse("not a regular expression")


def steps(pattern: str, *, case: bool = True) -> int:
    """Bound the steps that a search for `pattern` takes from one character of any text.

    Raises:
        PolicyError: it is outside the subset, or above `STEPS_MAX`.
    """
    flags = re.ASCII if case else re.ASCII | re.IGNORECASE
    try:
        re.compile(pattern, flags)
        tree = _parser.parse(pattern, flags)
    except (re.error, RecursionError, OverflowError):
        _refuse("not a regular expression")
    names = set(tree.state.groupdict)
    if names - {"v"}:
        _refuse("only one group may have a name: v")
    if tree.state.flags & ~(re.UNICODE | flags):
        _refuse("flags within the pattern are not let in")
    reader = _Reader(case=case, value=tree.state.groupdict.get("v"))
    part = reader.row(tree, frozenset(), sure=True)
    if part.least < WIDTH_MIN or part.most > WIDTH_MAX:
        _refuse(f"matches must be {WIDTH_MIN} to {WIDTH_MAX} characters long")
    if reader.value_missing:
        _refuse("the group v is not in every match, or may be empty")
    if (bound := part.ways * (part.most + reader.choices)) > STEPS_MAX:
        _refuse("too many ways to match: split it, or make repeats end at a character of its own")
    return bound


def _refuse(why: str) -> NoReturn:
    raise _Refused(why)


def _hold_hyperscan(pattern: str) -> None:
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    plain = pattern.replace("(?P<v>", "(").encode()
    try:
        database.compile(expressions=[plain], ids=[0], elements=1, flags=[FLAGS])
    except hyperscan.error:
        _refuse("hyperscan does not take it")


class _Reader:
    """Reads a parsed pattern; `value`: the number of the group v, if there is one."""

    def __init__(self, *, case: bool, value: int | None) -> None:
        self._case = case
        self._value = value
        self.value_missing = value is not None
        self.choices = 0
        """Alternatives and looks: each may cost a step that takes no character."""

    def row(self, nodes: Iterable[_Node], after: frozenset[int], *, sure: bool) -> _Part:
        """Read parts in a row; `after`: what may follow. `sure`: every match goes through it."""
        first: frozenset[int] = frozenset()
        least = most = 0
        ways, open_ = 1, True
        for node in reversed(list(nodes)):
            follow = first | after if open_ else first
            part = self._node(node, follow, sure=sure)
            ways = min(_MANY, ways * part.ways)
            least, most = least + part.least, most + part.most
            passes = part.least == 0 and not part.looks
            first = part.first | first if passes else part.first
            open_ = open_ and passes
        return _Part(first, least, most, ways, looks=least == 0 and not open_)

    def _node(self, node: _Node, after: frozenset[int], *, sure: bool) -> _Part:
        operation, argument = node
        kind = str(operation)
        if kind in _WHY:
            _refuse(_WHY[kind])
        readers: dict[str, Callable[..., _Part]] = {
            "SUBPATTERN": self._group,
            "BRANCH": self._branch,
            "MAX_REPEAT": self._repeat,
            "MIN_REPEAT": self._repeat,
            "ASSERT": self._look,
            "ASSERT_NOT": self._look,
        }
        if kind in readers:
            return readers[kind](node, after, sure=sure)
        return _Part(self._set(kind, argument), 1, 1, 1)

    def _group(self, node: _Node, after: frozenset[int], *, sure: bool) -> _Part:
        number, added, dropped, inner = node[1]
        if added or dropped:
            _refuse("flags within the pattern are not let in")
        part = self.row(inner, after, sure=sure)
        if number is not None and number == self._value and sure and part.least:
            self.value_missing = False
        return part

    def _branch(self, node: _Node, after: frozenset[int], *, sure: bool) -> _Part:
        del sure
        each_way = list(node[1][1])
        parts = [self.row(each, after, sure=False) for each in each_way]
        self.choices += len(parts)
        begins = [
            [p.first if p.least or p.looks else p.first | after | {_END}, *self._lead(each)[1:]]
            for p, each in zip(parts, each_way, strict=True)
        ]
        # At one place of a text those that match are, two by two, not apart: so no more of them
        # than there are beside any single one.
        ways = max(
            sum(part.ways for part, other in zip(parts, begins, strict=True) if _meet(one, other))
            for one in begins
        )
        return _Part(
            frozenset().union(*(p.first for p in parts)),
            min(p.least for p in parts),
            max(p.most for p in parts),
            min(_MANY, ways),
        )

    def _lead(self, nodes: Iterable[_Node]) -> list[frozenset[int]]:
        """The sets of the single characters that a row begins with."""
        lead: list[frozenset[int]] = []
        for operation, argument in nodes:
            if str(operation) not in _SINGLE:
                break
            lead.append(self._set(str(operation), argument))
        return lead

    def _repeat(self, node: _Node, after: frozenset[int], *, sure: bool) -> _Part:
        least, most, inner = node[1]
        most = int(most)
        if most > REPEAT_MAX:
            _refuse(f"repeats must end at {REPEAT_MAX} at most")
        sure = sure and least > 0
        once = self.row(inner, after, sure=sure)
        if once.least == 0:
            _refuse("what is repeated must not be empty")
        again = self.row(inner, after | once.first, sure=sure) if most > 1 else once
        self.choices += most
        counts = most - least + 1 if once.first & after else 1
        ways = min(_MANY, again.ways ** min(most, 64) * counts) if most else 1
        return _Part(once.first, least * once.least, most * once.most, ways)

    def _look(self, node: _Node, after: frozenset[int], *, sure: bool) -> _Part:
        kind, (direction, inner) = node
        del sure
        self.choices += 1
        nodes: Sequence[_Node] = list(inner)
        if len(nodes) != 1 or str(nodes[0][0]) not in _SINGLE:
            _refuse("only one character may be looked at, ahead or behind")
        if direction < 0:
            return _EMPTY
        seen = self._set(str(nodes[0][0]), nodes[0][1])
        if str(kind) == "ASSERT_NOT":
            seen = (_ALL - (seen - {_OTHER})) | {_END}
        del after
        return _Part(seen, 0, 0, 1, looks=True)

    # --- sets of characters -----------------------------------------------------------------

    def _set(self, kind: str, argument: _Node) -> frozenset[int]:
        if kind == "ANY":
            return _ALL - {ord("\n")}
        if kind == "LITERAL":
            return self._one(argument, argument)
        if kind == "NOT_LITERAL":
            return _without(self._one(argument, argument))
        if kind != "IN":
            _refuse("a construct that is not let in")
        negated = bool(argument) and str(argument[0][0]) == "NEGATE"
        found: frozenset[int] = frozenset()
        for item, value in argument[negated:]:
            if str(item) == "CATEGORY":
                found |= _of_category(str(value))
            else:
                found |= self._one(*(value if str(item) == "RANGE" else (value, value)))
        return _without(found) if negated else found

    def _one(self, low: int, high: int) -> frozenset[int]:
        """A range of characters, both ends included."""
        found = {code for code in range(_ASCII) if low <= code <= high}
        if not self._case:
            found |= {ord(chr(code).swapcase()) for code in found}
        return frozenset(found | ({_OTHER} if high >= _ASCII else set()))


def _meet(one: Sequence[frozenset[int]], other: Sequence[frozenset[int]]) -> bool:
    """Whether a text may begin as both do."""
    return all(a & b for a, b in zip(one, other, strict=False))


def _without(found: frozenset[int]) -> frozenset[int]:
    """All other characters; what is beyond ASCII always counts as among them."""
    return (_ALL - found) | {_OTHER}


def _of_category(name: str) -> frozenset[int]:
    pattern = re.compile(_CATEGORIES[name], re.ASCII)
    found = {code for code in range(_ASCII) if pattern.fullmatch(chr(code))}
    return frozenset(found | ({_OTHER} if "NOT" in name else set()))
