r"""Tokens that stand for personal data: what they look like, and how they are found again. PURE.

    Ask [PERSON_7K3F9Q2MBX] for the file.        what a model is given
    ask person-7k3f9q2mbx for it                 what it may make of that
    Ask Ada Lovelace for the file.               what those hear who may

    token = "[" type "_" id "]"     type  `PERSON`, `CREDIT_CARD`, …
                                    id    10 of `ID_ALPHABET`, or 16; never four digits in a row
    name  = type "_" id             what the token map knows a token by

The alphabet has no vowels, so no id is a word or somebody's name, and no I, L, O, 0 or 1, which
look alike. Since four digits never stand in a row, nobody can pass a number off as a token.

A model may change case, put other brackets round a token or none, space it out, escape or change
the `_`, write it in full width, in quotes or in markdown, or append an s: it is found all the same.
Nothing is guessed: an id that is not this very one is another's, or nobody's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = [
    "HOLD_MAX",
    "ID_ALPHABET",
    "ID_CHARS",
    "ID_CHARS_LONG",
    "KNOWN_TYPES",
    "Part",
    "Token",
    "TokenHold",
    "find_tokens",
    "has_digit_run",
    "is_name",
    "parts_of",
    "restored",
    "token_of",
    "type_of",
]

ID_ALPHABET = "23456789BCDFGHJKMNPQRSTVWXYZ"
ID_CHARS = 10
"""48 bits: among 10,000 values of a session two share an id once in six million sessions."""
ID_CHARS_LONG = 16
"""Of the value that came second where two did."""

KNOWN_TYPES = frozenset(
    (
        *("BANK_ACCOUNT", "CN_RESIDENT_ID", "CREDIT_CARD", "DATE_OF_BIRTH", "EMAIL", "IBAN"),
        *("INJECTION", "IP_ADDRESS", "LOCATION", "MEDICAL_RECORD", "NATIONAL_ID", "ORG"),
        *("PASSPORT", "PERSON", "PHONE", "PLATE", "SECRET", "URL", "US_SSN"),
    )
)
"""Types whose tokens are found however a model wrote them; of others, as they were given to it."""

HOLD_MAX = 128
"""Characters of a stream that wait at most, for what may yet become a token."""

_ID = f"[{ID_ALPHABET}]"
_ANY_ID = b"x" * ID_CHARS
_ID_AS_X = bytes(ord("x") if chr(byte).upper() in ID_ALPHABET else ord(".") for byte in range(256))
_ASCII_SEPARATORS = b" \t_\\-:#"
_FULL_WIDTH_ID = re.compile("[\uff12-\uff19\uff22-\uff3a\uff42-\uff5a]")
_DIGITS = re.compile("[2-9]{4}")
_NAME = re.compile(rf"[A-Z][A-Z0-9_]{{0,47}}_{_ID}{{{ID_CHARS}}}(?:{_ID}{{6}})?", re.ASCII)
_SEPARATORS = " \t\u00a0_\\\\\\-\u2010-\u2015:#\u00b7"
_OPEN, _CLOSE = "&lt;|[<\\[{〈《\u2039«【「]", "&gt;|[>\\]}〉》\u203a»】」]"
_ALNUM = "A-Za-z0-9"
_FULL_WIDTH = {code + 0xFEE0: code for code in range(0x21, 0x7F)}
_LOOK = 24
"""Characters behind a token that may bear on it: the rest of a long id, or closing brackets."""
_RUN_OF_SEPARATORS = re.compile(f"[{_SEPARATORS}]{{5}}")
_SEPARATOR = re.compile(f"[{_SEPARATORS}]")
_OPENED = re.compile(rf"(?:{_OPEN}){{0,2}} ?")
_OPENED_BEFORE = re.compile(rf"(?:{_OPEN}){{1,2}} ?\Z")
_OPENED_MAX = 9
_HALF_OPENED = re.compile(rf"(?:{_OPEN})?(?:&(?:l(?:t)?)?)?")
_STRICT_BEGUN = re.compile(r"\[[A-Z0-9_]{0,66}", re.ASCII)
_BEGIN = re.compile(rf"(?<![{_ALNUM}])[A-Za-z]|{_OPEN}|&", re.ASCII)


@dataclass(frozen=True, slots=True)
class Token:
    """Where a token stands in a text, brackets included, and its name."""

    start: int
    end: int
    name: str


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of text: a token, with its name, or what stands between tokens, without."""

    text: str
    name: str = ""


def token_of(name: str) -> str:
    """Return the token of a name, as a model is given it."""
    return f"[{name}]"


def type_of(name: str) -> str:
    """Return the type that a name carries."""
    return name.rpartition("_")[0]


def is_name(text: str) -> bool:
    """Whether this may be the name of a token: of the right shape, that is."""
    return _NAME.fullmatch(text) is not None and not has_digit_run(text.rpartition("_")[2])


def has_digit_run(id_: str) -> bool:
    """Whether four digits stand in a row, so that this is no id."""
    return _DIGITS.search(id_) is not None


def find_tokens(text: str, types: frozenset[str] = frozenset(), *, start: int = 0) -> list[Token]:
    """Find what may be tokens, in order and disjoint.

    Args:
        text: Any.
        types: Types to know besides `KNOWN_TYPES`.
        start: Where to begin; what stands before it is still seen as standing before.
    """
    if not _may_hold_id(text):
        return []
    plain = text.translate(_FULL_WIDTH)
    found = []
    for match in _pattern(types).finditer(plain, start):
        name = _name(match)
        if name:
            found.append(Token(match.start(), match.end(), name))
    return found


def parts_of(text: str, tokens: Iterable[Token]) -> Iterator[Part]:
    """Cut a text at its tokens."""
    done = 0
    for token in tokens:
        if done < token.start:
            yield Part(text[done : token.start])
        yield Part(text[token.start : token.end], token.name)
        done = token.end
    if done < len(text):
        yield Part(text[done:])


def restored(parts: Iterable[Part], values: Mapping[str, str]) -> str:
    """Put values in the place of tokens; a token without one stays as it was written."""
    return "".join(values.get(part.name, part.text) if part.name else part.text for part in parts)


class TokenHold:
    """Cuts a stream of text into parts, so that no token ever stands in two of them.

    For any cutting into chunks the parts together are those of the whole text. What may yet become
    a token is held, `HOLD_MAX` characters at most, and none of other text.
    """

    def __init__(self, types: frozenset[str] = frozenset()) -> None:
        self._types = types
        self._before = ""
        self._held = ""

    def feed(self, chunk: str) -> list[Part]:
        """Take a chunk; return the parts that are now certain."""
        self._held += chunk
        tokens = self._tokens()
        size = len(self._held)
        cut = _first_begun(self._before, self._held, self._types)
        for token in tokens:
            if token.end + _LOOK > size or token.start < cut < token.end:
                cut = min(cut, self._opened(token))
        # A token cannot be longer: what was held for so long is text.
        return self._out(max(cut, size - HOLD_MAX), tokens)

    def close(self) -> list[Part]:
        """Say that the text has ended; return the rest."""
        return self._out(len(self._held), self._tokens())

    def _tokens(self) -> list[Token]:
        shift = len(self._before)
        found = find_tokens(self._before + self._held, self._types, start=shift)
        return [Token(each.start - shift, each.end - shift, each.name) for each in found]

    def _opened(self, token: Token) -> int:
        """Where the brackets before a token begin, which it gets if others come behind it."""
        around = max(0, token.start - _OPENED_MAX)
        found = _OPENED_BEFORE.search(self._held[around : token.start].translate(_FULL_WIDTH))
        return around + found.start() if found else token.start

    def _out(self, cut: int, tokens: list[Token]) -> list[Part]:
        if cut == 0:
            return []
        out, self._held = self._held[:cut], self._held[cut:]
        self._before = out[-1]
        return list(parts_of(out, (token for token in tokens if token.end <= cut)))


def _first_begun(before: str, held: str, types: frozenset[str]) -> int:
    """Where the first token begins that `held` may end within; its length, if none does."""
    plain = (before + held).translate(_FULL_WIDTH)
    shift = len(before)
    squashed = _squashed(types)
    for match in _BEGIN.finditer(plain, max(shift, len(plain) - HOLD_MAX)):
        if _may_grow(plain[match.start() :], squashed):
            return match.start() - shift
    return len(held)


def _may_grow(tail: str, squashed: tuple[str, ...]) -> bool:
    """Whether more text may make a token of this; errs to True."""
    if _STRICT_BEGUN.fullmatch(tail) or _HALF_OPENED.fullmatch(tail):
        return True
    opened = _OPENED.match(tail)
    inner = tail[opened.end() :] if opened else tail
    if _RUN_OF_SEPARATORS.search(inner):
        return False
    letters = _SEPARATOR.sub("", inner).upper()
    for type_ in squashed:
        if type_.startswith(letters):
            return True
        if letters.startswith(type_):
            rest = letters[len(type_) :]
            if len(rest) <= ID_CHARS_LONG and all(each in ID_ALPHABET for each in rest):
                return True
    return False


def _may_hold_id(text: str) -> bool:
    """Whether an id may stand in a text; errs to True. 3 ns a character: looking takes 120.

    Separators and what is not ASCII are taken out: no id that stood there goes, but for one in full
    width.
    """
    if not text.isascii() and _FULL_WIDTH_ID.search(text):
        return True
    return _ANY_ID in text.encode("ascii", "ignore").translate(_ID_AS_X, _ASCII_SEPARATORS)


def _name(match: re.Match[str]) -> str:
    """Return the name that a match spells; empty if its id is none."""
    strict = match["strict"]
    if strict is not None:
        name = strict
    else:
        type_ = match["type"] or match["type2"]
        id_ = match["id"] or match["id2"]
        words = [word for word in _SEPARATOR.split(type_.upper()) if word]
        name = "_".join((*words, _SEPARATOR.sub("", id_).upper()))
    return "" if has_digit_run(name.rpartition("_")[2]) else name


@lru_cache(maxsize=64)
def _squashed(types: frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted(type_.replace("_", "") for type_ in KNOWN_TYPES | types))


@lru_cache(maxsize=64)
def _pattern(types: frozenset[str]) -> re.Pattern[str]:
    """Compile: as it was given, then in other brackets, then bare."""
    between = f"[{_SEPARATORS}]"
    names = sorted(KNOWN_TYPES | types, key=lambda type_: (-len(type_), type_))
    type_ = "|".join(re.escape(name).replace("_", f"{between}{{1,2}}") for name in names)
    long = f"{_ID}{{{ID_CHARS_LONG}}}"
    short = f"{_ID}(?:{between}?{_ID}){{{ID_CHARS - 1}}}"
    behind = f"(?=s?(?![{_ALNUM}]))"
    body = rf"(?P<type>{type_}){between}{{1,3}}(?P<id>{long}{behind}|{short}{behind})"
    bare = body.replace("<type>", "<type2>").replace("<id>", "<id2>")
    return re.compile(
        rf"\[(?P<strict>[A-Z][A-Z0-9_]{{0,47}}_(?:{long}|{_ID}{{{ID_CHARS}}}))\]"
        rf"|(?i:(?:{_OPEN}){{1,2}} ?{body} ?(?:{_CLOSE}){{1,2}}|(?<![{_ALNUM}]){bare})",
        re.ASCII,
    )
