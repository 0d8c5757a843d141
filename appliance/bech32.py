"""Bech32, as age spells its keys.

Source: BIP 173, without its limit of 90 characters, which age does not have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Bech32Invalid", "decode", "encode"]

_ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CHECKSUM = 6


class Bech32Invalid(ValueError):  # noqa: N818 -- an answer about a stranger's text
    """This is no Bech32 text with that prefix."""


def _polymod(values: Iterable[int]) -> int:
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for at, part in enumerate(_GENERATOR):
            check ^= part if top >> at & 1 else 0
    return check


def _expanded(prefix: str) -> list[int]:
    codes = prefix.encode()
    return [code >> 5 for code in codes] + [0] + [code & 31 for code in codes]


def _regrouped(values: Iterable[int], size: int, into: int) -> tuple[list[int], int, int]:
    """Cut numbers of `size` bits into ones of `into` bits; return them, the rest and its bits."""
    held = bits = 0
    found = []
    for value in values:
        held, bits = held << size | value, bits + size
        while bits >= into:
            bits -= into
            found.append(held >> bits)
            held &= (1 << bits) - 1
    return found, held, bits


def encode(prefix: str, raw: bytes) -> str:
    """Write bytes behind a lower-case prefix."""
    words, rest, bits = _regrouped(raw, 8, 5)
    if bits:
        words.append(rest << (5 - bits))
    check = _polymod([*_expanded(prefix), *words, *bytes(_CHECKSUM)]) ^ 1
    words += [check >> 5 * (_CHECKSUM - 1 - at) & 31 for at in range(_CHECKSUM)]
    return f"{prefix}1" + "".join(_ALPHABET[word] for word in words)


def decode(prefix: str, text: str) -> bytes:
    """Read what `encode` wrote, in lower or upper case, not mixed. Raises Bech32Invalid."""
    lower = text.lower()
    head, _, tail = lower.rpartition("1")
    words = [_ALPHABET.find(letter) for letter in tail]
    spelt = text in (lower, text.upper()) and head == prefix and len(words) >= _CHECKSUM
    if not spelt or -1 in words or _polymod([*_expanded(prefix), *words]) != 1:
        raise Bech32Invalid
    return _bytes(words[:-_CHECKSUM])


def _bytes(words: Sequence[int]) -> bytes:
    raw, rest, bits = _regrouped(words, 5, 8)
    if rest or bits >= 5:  # noqa: PLR2004 -- a whole word of padding
        raise Bech32Invalid
    return bytes(raw)
