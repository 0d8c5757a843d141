"""The verifier key, as every command takes it. Needs no gRPC."""

from __future__ import annotations

from pathlib import Path

from meshkit.tlog import VerifierKey

__all__ = ["vkey_of"]

_PLUS_SIGNS = 2
"""In a key: name+id+base64, which may hold more of them."""


def vkey_of(given: str) -> str:
    """Take a key, or that in the file of that name.

    Raises:
        OSError: there is no such file.
        UnicodeDecodeError: the file is no text.
        NoteInvalid: that is no key. Said before anybody is asked, or any log doubted.
    """
    if given.count("+") < _PLUS_SIGNS or Path(given).exists():
        given = Path(given).read_text(encoding="utf-8").strip()
    VerifierKey.parse(given)
    return given
