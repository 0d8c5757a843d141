r"""Undo what people do to a number or an address so that a filter will not see it. PURE.

    "4111-1111\n1111-1111"              -> "4111-1111-1111-1111"     a line break
    "**4111** 1111 <b>1111</b> 1111"    -> "4111 1111 1111 1111"     markup
    "4 1 1 1_1 1 1 1 …", "4111_1111…"   -> "41111111…"               odd separators, single digits
    "four one one one …"                -> "4111…"                   digits spelled out
    "一三八〇〇一三八〇〇〇"              -> "13800138000"             Chinese numerals
    "4l11 1O11 …"                       -> "4111 1011 …"             letters that look like digits
    "ada @ example . org", "ada at example dot org", "a d a @ e x a m p l e . o r g"
                                        -> "ada@example.org"         addresses

Each rule says what it would replace (`Piece`); the engine scans the rewritten text as well and
takes from it only findings that a replaced piece is part of. A number has two readings: with its
groups kept (`solid=False`), and as one run of digits.

Time is linear: every repeat is bounded, and no two parts of a repeat begin alike.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from compliance.normalise import Piece

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

__all__ = ["DIGITS_MAX", "DIGITS_MIN", "HINTS", "respelled"]

DIGITS_MIN = 8
DIGITS_MAX = 32
"""Digits of a number that is put together; the longest identifier has 30."""

_TAG = r"</?[A-Za-z][^<>\n]{0,60}>|<!--[^<>]{0,60}-->"
_CONTROL = r"\x00-\x08\x0e-\x1f\x7f"
_ODD = "*_`~|·•…\\\\" + _CONTROL
_JUNK = rf"(?:[ \t\-./(){_ODD}]|{_TAG})"
_JUNK_LINES = rf"(?:[ \t\-(){_ODD}>]|\r?\n|{_TAG})"
# To the end of the run: what is longer than `DIGITS_MAX` is a column of figures, and left alone.
# A resident id may end in X.
_CHAIN = re.compile(
    rf"(?<![0-9A-Za-z.])(?P<n>[0-9](?:{_JUNK}{{0,8}}[0-9]){{7,}})"
    rf"(?P<x>{_JUNK}{{0,3}}[Xx])?(?![0-9A-Za-z])"
)
_CHAIN_LINES = re.compile(
    rf"(?<![0-9A-Za-z.])(?P<n>[0-9](?:{_JUNK_LINES}{{0,8}}[0-9]){{7,}})"
    rf"(?P<x>{_JUNK_LINES}{{0,3}}[Xx])?(?![0-9A-Za-z])"
)
_BETWEEN = re.compile(rf"(?:{_TAG}|[^0-9<])+")
_MARKUP = re.compile(rf"{_TAG}|\*{{2,3}}|__|~~|`{{1,3}}|[\\{_CONTROL}]")
_STANDARD = re.compile(r"[ \-./()\t]*")
_SINGLE_JUNK_MAX = 3
_EVEN = re.compile(
    r"(?<![0-9A-Za-z])[0-9]{4}(?P<s>, ?|; ?|: ?| [|\-–/_+=~] )[0-9]{4}(?P=s)[0-9]{4}(?P=s)[0-9]{4}"
    r"(?![0-9A-Za-z])"
)
_SINGLES = re.compile(
    r"(?<![0-9A-Za-z@.])[0-9A-Za-z](?P<s>[^0-9A-Za-z@]{1,3})[0-9A-Za-z](?:(?P=s)[0-9A-Za-z]){6,33}"
    r"(?![0-9A-Za-z@])"
)
_FOUR_SINGLES = re.compile(r"(?:[0-9][^0-9A-Za-z@]{1,3}){3}[0-9]")
_PAIRS = re.compile(
    r"(?<![0-9A-Za-z])[0-9]{2}(?P<s>[ \-._·|]{1,3})[0-9]{2}(?:(?P=s)[0-9]{2}){3,8}"
    r"(?:(?P=s)[0-9])?(?![0-9A-Za-z])"
)
_LETTERED_BREAK = r"(?:[._/|·: \-]| ?\r?\n ?)"
_LETTERED = re.compile(
    rf"(?<![0-9A-Za-z])[A-Z]{{2}}[0-9]{{2}}(?:{_LETTERED_BREAK}[A-Z0-9]{{2,4}}){{3,9}}"
    r"(?![0-9A-Za-z])"
)

_ODD_SEPARATOR = re.compile(r"[._/|·:\n]")

_WORDS = {
    **dict(zip(("zero", "oh", "one", "two", "three", "four", "five"), "0012345", strict=True)),
    **dict(zip(("six", "seven", "eight", "nine"), "6789", strict=True)),
}
_TIMES = {"double": 2, "triple": 3, "treble": 3}
_WORD = "|".join((*_WORDS, *_TIMES))
_SPELLED = re.compile(
    # Digits end where they end: a run that could be split in many ways takes exponential time.
    rf"(?<![A-Za-z0-9])(?:{_WORD}|[0-9]{{1,4}}(?![0-9]))"
    rf"(?:[ ,.\-_/\n]{{0,3}}(?:{_WORD}|[0-9]{{1,4}}(?![0-9]))){{4,40}}(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_UNIT = re.compile(
    rf"(?P<times>{'|'.join(_TIMES)})|(?P<word>{'|'.join(_WORDS)})|[0-9]", re.IGNORECASE
)
_WORDS_MIN = 4

_HAN_DIGITS = dict(
    zip("〇零一二三四五六七八九壹贰叁肆伍陆柒捌玖貳參陸幺", "001234567891234567892361", strict=True)
)
_HAN = "".join(_HAN_DIGITS)
_HAN_RUN = re.compile(rf"[{_HAN}0-9](?:[ \-、.·]{{0,2}}[{_HAN}0-9]){{7,}}")
_HAN_MIN = 4

_LETTER_DIGITS = dict(zip("OoIil|SsBZ", "0011115582", strict=True))
_LETTER = "OoIil|SsBZ"
_LEET = re.compile(
    rf"(?<![0-9A-Za-z])(?=[{_LETTER}]{{0,3}}[0-9])[0-9{_LETTER}]{{2,19}}"
    rf"(?:[ \-][0-9{_LETTER}]{{2,19}}){{0,5}}(?![0-9A-Za-z])"
)
_LEET_DIGITS_MIN = 4
_ADJACENT = rf"[0-9][{_LETTER}][0-9{_LETTER}]|[{_LETTER}][0-9{_LETTER}]?[0-9]"
_ADJACENT_DIGITS = re.compile(_ADJACENT)

_AT = (
    r"(?: {0,2}[\[({<] ?(?:at|@|艾特) ?[\])}>] {0,2}|[_\-]at[_\-]| {1,3}at {1,3}| {0,2}艾特 {0,2}"
    r"| {0,2}@ {0,2})"
)
_DOT = (
    r"(?: {0,2}[\[({<] ?(?:dot|\.|点|punkt|point|punto) ?[\])}>] {0,2}|[_\-]dot[_\-]"
    r"| {1,3}(?:dot|punkt) {1,3}| {0,2}点 {0,2}|。|\.| {1,2}\. {0,2})"
)
_TLD = (
    r"(?:com|org|net|edu|gov|info|biz|dev|app|io|ai|co|me|us|uk|ca|au|nz|ie|in|de|fr|es|it|nl|be"
    r"|ch|at|se|no|dk|fi|pl|pt|cz|hu|ro|gr|ru|ua|tr|il|br|mx|ar|jp|kr|cn|tw|hk|sg|eu|example|test)"
)
_NAME = r"[A-Za-z0-9][A-Za-z0-9_%+\-]{0,40}"
_ADDRESS = re.compile(
    rf"(?<![A-Za-z0-9._%+\-])(?P<local>{_NAME}(?:{_DOT}{_NAME}){{0,3}})(?P<at>{_AT})"
    rf"(?P<host>[A-Za-z0-9][A-Za-z0-9\-]{{0,40}}(?:{_DOT}[A-Za-z0-9\-]{{1,40}}){{0,3}}{_DOT}{_TLD})"
    r"(?![A-Za-z0-9@\-])",
    re.IGNORECASE,
)
_DOTS = re.compile(_DOT, re.IGNORECASE)
_NO_NAME = frozenset(
    [
        *("a", "an", "the", "is", "are", "was", "were", "be", "been", "it", "us", "me", "we"),
        *("you", "him", "her", "them", "look", "looks", "looking", "found", "find", "meet"),
        *("shop", "buy", "works", "worked", "working", "available", "only", "live", "lives"),
        *("visit", "sold", "see", "and", "or", "online", "download", "hosted"),
    ]
)
"""Words that stand before "at" or "@" and are nobody's mailbox."""
_SPREAD = re.compile(
    r"(?<![A-Za-z0-9])[A-Za-z0-9](?: [A-Za-z0-9._\-]){1,40} @(?: [A-Za-z0-9\-.]){3,60}"
    r"(?![A-Za-z0-9])"
)
_PLAIN_DOT, _PLAIN_AT, _WORD_AT = ".", "@", "at"
_W = r"[A-Za-z0-9@._%+\-]"
_MARKS = rf"(?:\*{{2,3}}|__|~~|`{{1,3}}|[\\{_CONTROL}])"
_INSIDE = (
    re.compile(rf"(?<={_W})(?:{_TAG}|{_MARKS})+(?P<gap>)(?={_W})"),
    re.compile(rf"(?<={_W})(?P<gap> ?(?:{_TAG})+ ?)(?={_W})"),
)

_J = rf"[ \t\-./(){_ODD}>\r\n]{{0,9}}"
_ODD_BETWEEN = rf"[0-9]{_J}[{_ODD}>\n]{_J}[0-9]"

HINTS: tuple[tuple[str, str, bool], ...] = (
    # Of eight digits four stand before the odd separator or behind it.
    ("chains", rf"(?:[0-9]{_J}){{3}}{_ODD_BETWEEN}|{_ODD_BETWEEN}(?:{_J}[0-9]){{3}}", True),
    ("chains", r"[0-9][^0-9A-Za-z]{0,9}<[/!A-Za-z]", True),
    ("chains", r"(?:[0-9][^0-9A-Za-z@]{1,3}){3}[0-9]", True),
    ("spread", r"(?:[0-9][^0-9A-Za-z@]{1,3}){3}[0-9]", True),
    ("spread", r"(?:[0-9]{2}[ \-._·|]{1,3}){4}[0-9]", True),
    ("even", r"[0-9]{4}(?:[,;:] ?| [|\-–/_+=~] )[0-9]{4}(?:[,;:] ?| [|\-–/_+=~] )[0-9]{4}", True),
    ("lettered", rf"[A-Z]{{2}}[0-9]{{2}}(?:{_LETTERED_BREAK}[A-Z0-9]{{2,4}}){{2}}", True),
    ("words", rf"(?:^|[^a-z])(?:{_WORD})[ ,.\-_/\n]{{0,3}}(?:{_WORD}|[0-9])", False),
    ("han", rf"[{_HAN}][ \-、.·]{{0,2}}[{_HAN}0-9][ \-、.·]{{0,2}}[{_HAN}0-9]", True),
    ("leet", _ADJACENT, True),
    ("addresses", r"[A-Za-z0-9._%+\-] {1,2}@|@ {1,2}[A-Za-z0-9]", True),
    ("addresses", r"[\[({<] ?(?:at|dot|@|艾特|点|\.|punkt|point|punto) ?[\])}>]", False),
    (
        "addresses",
        r"[a-z0-9%+_\-](?:_|-| {1,3})(?:dot|punkt)(?:_|-| {1,3})[a-z0-9]|[_\-]at[_\-]",
        False,
    ),
    ("addresses", r"艾特|[A-Za-z0-9] {0,2}点 {0,2}[A-Za-z0-9]|[A-Za-z0-9]。[A-Za-z0-9]", True),
    ("addresses", r"[A-Za-z0-9_%+\-] {1,2}\. {0,2}[A-Za-z0-9\-]", True),
    ("markup", rf"{_W}{_MARKS}+(?:{_W}|<)|{_W} ?<[/!A-Za-z]", True),
)
"""(rule, pattern, whether case matters): without any of its patterns a rule finds nothing."""


def respelled(text: str, rules: Collection[str], *, solid: bool) -> list[Piece]:
    """Say what to replace in folded text so that disguised numbers and addresses stand there.

    rules: of `HINTS`; others are not tried. solid: numbers as one run of digits; else in their
        groups. Pieces may overlap: the first in the text stands.
    """
    pieces: list[Piece] = []
    if "chains" in rules:
        pieces += _chains(text, solid=solid)
    for name, find in _RULES.items():
        if name in rules:
            pieces += find(text)
    return pieces


def _chains(text: str, *, solid: bool) -> Iterator[Piece]:
    """Numbers over line breaks, inside markup, with odd or too many separators."""
    for pattern in (_CHAIN, _CHAIN_LINES):
        for found in pattern.finditer(text):
            junk = [(*m.span(), m[0]) for m in _BETWEEN.finditer(text, *found.span("n"))]
            count = len(found["n"]) - sum(end - start for start, end, _ in junk)
            if not DIGITS_MIN <= count <= DIGITS_MAX:
                continue
            if pattern is _CHAIN_LINES and "\n" not in found[0]:
                continue
            single = len(junk) == count - 1 and all(len(j[2]) <= _SINGLE_JUNK_MAX for j in junk)
            if found["x"] and len(found["x"]) > 1:
                junk.append((found.start("x"), found.end() - 1, found["x"][:-1]))
            if single or any(_STANDARD.fullmatch(between) is None for _, _, between in junk):
                usual = _usual_separator(junk)
                for start, end, between in junk:
                    new = "" if solid or single else _separator(between, usual)
                    if new != between:
                        yield Piece(start, end, new, "split")


def _markup(text: str) -> Iterator[Piece]:
    """Markup within a word or a number."""
    for pattern in _INSIDE:
        for found in pattern.finditer(text):
            yield Piece(*found.span(), " " if " " in found["gap"] else "", "markup")


def _usual_separator(junk: list[tuple[int, int, str]]) -> str:
    """What this number's writer puts between groups."""
    return next((between for _, _, between in junk if between in {" ", "-"}), "-")


def _separator(between: str, usual: str) -> str:
    """What stands for `between` where groups are kept."""
    if _STANDARD.fullmatch(between):
        return between
    bare = _MARKUP.sub("", between)
    if _STANDARD.fullmatch(bare):
        return bare.strip("()\t")[:1]
    return usual


def _even(text: str) -> Iterator[Piece]:
    """Four groups of four with one separator, whatever it is."""
    for found in _EVEN.finditer(text):
        start, size = found.start() + 4, len(found["s"])
        for at in (start, start + 4 + size, start + 8 + 2 * size):
            yield Piece(at, at + size, "-", "split")


def _spread(text: str) -> Iterator[Piece]:
    """Characters or pairs of digits with one separator between them."""
    for found in (*_SINGLES.finditer(text), *_PAIRS.finditer(text)):
        if _FOUR_SINGLES.search(found[0]) or found.re is _PAIRS:
            yield from _without(text, re.escape(found["s"]), found.span(), "split")


def _lettered(text: str) -> Iterator[Piece]:
    """An IBAN with odd separators or line breaks."""
    for found in _LETTERED.finditer(text):
        if _ODD_SEPARATOR.search(found[0]):
            yield from _without(text, r"[^A-Z0-9]+", found.span(), "split")


def _without(text: str, what: str, span: tuple[int, int], label: str) -> Iterator[Piece]:
    for found in re.compile(what).finditer(text, *span):
        yield Piece(*found.span(), "", label)


def _spelled(text: str) -> Iterator[Piece]:
    """English words for digits, eight digits or more."""
    for found in _SPELLED.finditer(text):
        units = list(_UNIT.finditer(text, *found.span()))
        words = sum(unit["word"] is not None for unit in units)
        pieces: list[Piece] = []
        times, at = 1, found.start()
        for unit in units:
            if unit["times"] is not None:
                times = _TIMES[unit["times"].lower()]
                continue
            digit = _WORDS[unit["word"].lower()] if unit["word"] else unit[0]
            # Each digit stands for its word and for what stood before it.
            pieces.append(Piece(at, unit.end(), digit * times, "spelled"))
            times, at = 1, unit.end()
        if words >= _WORDS_MIN and sum(len(piece.text) for piece in pieces) >= DIGITS_MIN:
            yield from pieces


def _han(text: str) -> Iterator[Piece]:
    """Chinese numerals, eight digits or more."""
    for found in _HAN_RUN.finditer(text):
        value = found[0]
        if sum(character in _HAN_DIGITS for character in value) < _HAN_MIN:
            continue
        if sum((c.isascii() and c.isdigit()) or c in _HAN_DIGITS for c in value) > DIGITS_MAX:
            continue
        for at, character in enumerate(value, found.start()):
            if not "0" <= character <= "9":
                yield Piece(at, at + 1, _HAN_DIGITS.get(character, ""), "spelled")


def _leet(text: str) -> Iterator[Piece]:
    """Letters that look like digits, in a number with at least four real ones."""
    for found in _LEET.finditer(text):
        value = found[0]
        digits = sum("0" <= character <= "9" for character in value)
        if digits < _LEET_DIGITS_MIN or _ADJACENT_DIGITS.search(value) is None:
            continue
        for at, character in enumerate(value, found.start()):
            if character in _LETTER_DIGITS:
                yield Piece(at, at + 1, _LETTER_DIGITS[character], "leet")


def _addresses(text: str) -> Iterator[Piece]:
    """E-mail addresses with a spelled or spaced "at" or "dot", or with spaced letters."""
    for found in _SPREAD.finditer(text):
        yield from _without(text, " ", found.span(), "address")
    for found in _ADDRESS.finditer(text):
        at = found["at"]
        dots = [
            dot
            for part in ("local", "host")
            for dot in _DOTS.finditer(text, *found.span(part))
            if dot[0] != _PLAIN_DOT
        ]
        word = at.strip().lower() == _WORD_AT
        if not dots and (word or at == _PLAIN_AT):
            continue
        if at != at.strip() and found["local"].lower() in _NO_NAME:
            continue
        yield Piece(*found.span("at"), "@", "address")
        for dot in dots:
            yield Piece(*dot.span(), ".", "address")


_RULES: dict[str, Callable[[str], Iterator[Piece]]] = {
    "even": _even,
    "spread": _spread,
    "lettered": _lettered,
    "words": _spelled,
    "han": _han,
    "leet": _leet,
    "addresses": _addresses,
    "markup": _markup,
}
