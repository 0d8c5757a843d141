r"""Read what is written in another notation: what a filter misses, a model still reads. PURE.

    "QXNrIGFkYUBleGFtcGxlLm9yZw=="   Base64, standard and URL-safe, with padding or without
    "6164614065...", "61 64 61 40"   hex, with or without a separator or 0x
    "ada%40example.org"              percent
    "&#97;da&commat;example.org"     HTML entities
    "ada\u0040example.org", "\x40"   escapes of programming languages
    "ada=40example.org"              quoted-printable, soft line breaks included

Each function says what it would replace (`Piece`); the engine scans the decoded text as well and
takes from it only findings that a decoded piece is part of. They then cover the whole piece: of
Base64 and hex the whole run, of the others the sequence of escapes.

Only runs within one line, only bytes that are printable UTF-8. A run is decoded where it stands,
so a window with decoded text is never longer than the window. ROT13, reversed text, compressed or
encrypted data are not looked into.
"""

from __future__ import annotations

import base64
import binascii
import re
import sys
from html import unescape
from typing import TYPE_CHECKING

from compliance.normalise import Piece, fold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "BASE64_MIN",
    "ENCODED_HINTS",
    "ESCAPE_HINTS",
    "QUOTED_HINTS",
    "encoded",
    "escaped",
    "quoted",
]

BASE64_MIN = 14
"""Characters of a Base64 run worth a try: ten bytes, a phone number."""
HEX_MIN = 16
"""Digits of a run of hex worth a try: eight bytes."""
TEXT_MIN = 6
"""Characters that decoded text must have."""

_C = r"A-Za-z0-9+/_\-"
_BASE64 = re.compile(rf"(?<![{_C}])([{_C}]{{{BASE64_MIN},}})={{0,2}}(?![{_C}])")
_NOT_LOWER = re.compile(r"[A-Z0-9]")
_PARTS = re.compile(r"[A-Za-z0-9+]+")
_URL_SAFE = str.maketrans("-_", "+/")
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})+")
_HEX_SPREAD = re.compile(
    r"(?<![0-9A-Za-z])(?:0x)?[0-9A-Fa-f]{2}(?:[ ,:\-]{1,2}(?:0x)?[0-9A-Fa-f]{2}){7,}(?![0-9A-Za-z])"
)
_HEX_NOISE = re.compile(r"0x|[ ,:\-]")
_PERCENT = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_ENTITIES = re.compile(r"(?:&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]{2,10});)+")
_ESCAPES = re.compile(
    r"(?:\\u[0-9A-Fa-f]{4}|\\u\{[0-9A-Fa-f]{1,6}\}|\\x[0-9A-Fa-f]{2}|\\U[0-9A-Fa-f]{8}"
    r"|%u[0-9A-Fa-f]{4})+"
)
_ESCAPE = re.compile(r"[\\%][uUx]\{?([0-9A-Fa-f]+)\}?")
_QUOTED = re.compile(r"(?:=[0-9A-F]{2})+|=\r?\n")

ENCODED_HINTS: tuple[tuple[str, bool], ...] = (
    (rf"[{_C}]{{{BASE64_MIN}}}", True),
    (r"(?:[0-9A-Fa-f]{2}[ ,:\-]{1,2}(?:0x)?){4}", True),
)
ESCAPE_HINTS: tuple[tuple[str, bool], ...] = (
    (r"%[0-9A-Fa-f]{2}|&#?[A-Za-z0-9]{1,10};|[\\%][uUx]\{?[0-9A-Fa-f]", True),
)
QUOTED_HINTS: tuple[tuple[str, bool], ...] = ((r"=[0-9A-F]{2}", True),)
"""As `compliance.respell.HINTS`, for each of the three."""


def encoded(text: str) -> Iterator[Piece]:
    """Base64 and hex."""
    for found in _BASE64.finditer(text):
        run = found[1]
        if _NOT_LOWER.search(run, 1) is None:
            continue
        # A window may begin within a run: then any alignment is tried.
        starts = range(4) if found.start() == 0 else range(1)
        whole = next((p for at in starts if (p := _whole(run[at:], found.span()))), None)
        yield from (whole,) if whole else _in_parts(run, found.start())
    for found in _HEX_SPREAD.finditer(text):
        if decoded := _text_of(_HEX_NOISE.sub("", found[0]), bytes.fromhex):
            yield Piece(*found.span(), decoded, "hex")


def _whole(run: str, span: tuple[int, int]) -> Piece | None:
    if len(run) >= HEX_MIN and _HEX.fullmatch(run) and (text := _text_of(run, bytes.fromhex)):
        return Piece(*span, text, "hex")
    if text := _text_of(run, _base64):
        return Piece(*span, text, "base64")
    return None


def _in_parts(run: str, offset: int) -> Iterator[Piece]:
    """A run that is none may hold one: behind a path, between dashes."""
    for found in _PARTS.finditer(run):
        if BASE64_MIN <= len(found[0]) < len(run):
            start, end = found.span()
            if piece := _whole(found[0], (start + offset, end + offset)):
                yield piece


def _base64(run: str) -> bytes:
    bare = run.translate(_URL_SAFE)
    # What is left over of a run that was cut cannot be a whole character.
    bare = bare[: len(bare) - 1] if len(bare) % 4 == 1 else bare
    return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)


def _text_of(run: str, decode: Callable[[str], bytes]) -> str:
    """Decoded and folded text; empty if it is none."""
    try:
        text = decode(run).decode()
    except (binascii.Error, ValueError):
        return ""
    if len(text) < TEXT_MIN or not _is_text(text):
        return ""
    return fold(text).text


def _is_text(text: str) -> bool:
    return all(character.isprintable() or character in "\t\r\n" for character in text)


def escaped(text: str) -> Iterator[Piece]:
    """Percent escapes, HTML entities, and the escapes of programming languages."""
    for pattern, label, read in (
        (_PERCENT, "percent", _percent),
        (_ENTITIES, "entities", unescape),
        (_ESCAPES, "escapes", _escapes),
    ):
        for found in pattern.finditer(text):
            new = read(found[0])
            if new is not None and new != found[0]:
                yield Piece(*found.span(), fold(new).text, label)


def _percent(run: str) -> str | None:
    return _utf8(bytes.fromhex(run.replace("%", "")))


def _utf8(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _escapes(run: str) -> str | None:
    codes = [int(code, 16) for code in _ESCAPE.findall(run)]
    if any(code > sys.maxunicode for code in codes):
        return None
    # Pairs of surrogates, as in JSON, become one character.
    raw = "".join(map(chr, codes)).encode("utf-16-le", "surrogatepass")
    return raw.decode("utf-16-le", "replace")


def quoted(text: str) -> Iterator[Piece]:
    """Quoted-printable of RFC 2045, 6.7."""
    for found in _QUOTED.finditer(text):
        run = found[0]
        new = "" if run[1] in "\r\n" else _utf8(bytes.fromhex(run.replace("=", "")))
        if new is not None:
            yield Piece(*found.span(), fold(new).text, "quoted")
