r"""Signed notes and verifier keys, as C2SP signed-note has them. PURE.

    note  = text, ending in a newline, then an empty line, then signature lines
    line  = "— " name " " base64(key id (4 bytes) || signature) "\n"           (U+2014, a space)
    vkey  = name "+" hex(key id) "+" base64(type (1 byte) || public key)
    key id = SHA-256(name || 0x0A || type || public key)[:4]                  type 0x01 = Ed25519

Example, from the Go project's tests:

    PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW

A verifier ignores signatures by keys it does not know, and rejects a note in which a key that it
does know has a signature that fails.

Source: https://c2sp.org/signed-note v1.0.0.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "NoteInvalid",
    "NoteKey",
    "VerifierKey",
    "check_signatures",
    "decode_base64",
    "format_line",
    "format_note",
    "open_note",
    "parse_vkey",
    "signature_line",
    "split_note",
]

ED25519 = 0x01
ED25519_KEY_BYTES = 32
KEY_ID_BYTES = 4
NOTE_BYTES_MAX = 1_000_000
SIGNATURES_MAX = 100
_DASH = "— "


class NoteInvalid(ValueError):  # noqa: N818 -- an answer about a stranger's bytes
    """A note, key or checkpoint is malformed or not signed as claimed. Holds no bytes of it."""


def decode_base64(text: str) -> bytes:
    """Decode standard base64, strictly: padding needed, one encoding only.

    Raises:
        NoteInvalid: anything else.
    """
    try:
        raw = b64decode(text, validate=True)
    except (Base64Error, ValueError):
        reason = "base64 is malformed"
        raise NoteInvalid(reason) from None
    if b64encode(raw).decode() != text:  # non-zero trailing bits: a second spelling of the same
        reason = "base64 is not canonical"
        raise NoteInvalid(reason)
    return raw


def _name_ok(name: str) -> bool:
    """Whether a key name may stand in a signature line: not empty, no space, no plus, UTF-8."""
    bad = any(c.isspace() or c < " " or "\ud800" <= c <= "\udfff" for c in name)
    return bool(name) and "+" not in name and not bad


def parse_vkey(vkey: str) -> tuple[str, str, bytes]:
    """Take a vkey line apart into name, key id (hex) and type || public key (2 bytes or more).

    Raises:
        NoteInvalid: malformed. The key id was not compared.
    """
    parts = vkey.strip().split("+", 2)
    if len(parts) != 3 or not _name_ok(parts[0]):  # noqa: PLR2004 -- name, id, key
        reason = "verifier key is malformed"
        raise NoteInvalid(reason)
    raw = decode_base64(parts[2])
    if len(raw) < 2:  # noqa: PLR2004 -- a type and at least one byte
        reason = "verifier key is malformed"
        raise NoteInvalid(reason)
    return parts[0], parts[1], raw


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """An Ed25519 verifier key: who (`name`, the log's origin) and with what (32 bytes)."""

    name: str
    public: bytes

    @property
    def key_id(self) -> bytes:
        """Four bytes that pick the key among the signatures of a note."""
        head = self.name.encode() + b"\n" + bytes([ED25519])
        return sha256(head + self.public).digest()[:KEY_ID_BYTES]

    def __str__(self) -> str:
        encoded = b64encode(bytes([ED25519]) + self.public).decode()
        return f"{self.name}+{self.key_id.hex()}+{encoded}"

    @classmethod
    def parse(cls, vkey: str) -> VerifierKey:
        """Read a vkey line; surrounding white space is dropped.

        Raises:
            NoteInvalid: malformed, of another type than Ed25519, or its key id is another's.
        """
        name, key_id, raw = parse_vkey(vkey)
        if len(raw) != 1 + ED25519_KEY_BYTES or raw[0] != ED25519:
            reason = "verifier key is not Ed25519"
            raise NoteInvalid(reason)
        key = cls(name, raw[1:])
        if key_id != key.key_id.hex():
            reason = "verifier key has another key's id"
            raise NoteInvalid(reason)
        return key

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Tell whether `signature` (64 bytes) over `message` is this key's; about 100 µs."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True

    def holds(self, blob: bytes, text: str) -> bool:
        """Tell whether what follows the key id in a line is this key's, over a note's text."""
        return self.verifies(blob, text.encode())


class NoteKey(Protocol):
    """A key of any type that may sign a note."""

    @property
    def name(self) -> str:
        """Who signs."""
        ...

    @property
    def key_id(self) -> bytes:
        """Picks the key among the signatures of a note."""
        ...

    def holds(self, blob: bytes, text: str) -> bool:
        """Tell whether what follows the key id in a line is this key's, over a note's text."""
        ...


def format_line(name: str, raw: bytes) -> str:
    """Format a signature line, newline included, from key id || whatever the type signs with."""
    return f"{_DASH}{name} {b64encode(raw).decode()}\n"


def signature_line(key: VerifierKey, signature: bytes) -> str:
    """Format one signature line, newline included."""
    return format_line(key.name, key.key_id + signature)


def format_note(text: str, *lines: str) -> str:
    """Put text (ending in a newline) and signature lines together."""
    return f"{text}\n{''.join(lines)}"


def split_note(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    """Take a note apart into its text and (name, key id || signature) of each line.

    Raises:
        NoteInvalid: not a signed note. Nothing has been verified when it is one.
    """
    if len(note.encode(errors="surrogatepass")) > NOTE_BYTES_MAX:
        reason = "note is too long"
        raise NoteInvalid(reason)
    if any((c < " " and c != "\n") or "\ud800" <= c <= "\udfff" for c in note):
        reason = "note holds a character that none may hold"
        raise NoteInvalid(reason)
    text, separator, tail = note.rpartition("\n\n")
    if not separator or not tail.endswith("\n"):
        reason = "note has no signature"
        raise NoteInvalid(reason)
    lines = tail[:-1].split("\n")
    if len(lines) > SIGNATURES_MAX:
        reason = "note has too many signatures"
        raise NoteInvalid(reason)
    return text + "\n", [_parse_line(line) for line in lines]


def _parse_line(line: str) -> tuple[str, bytes]:
    name, space, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not space or not _name_ok(name):
        reason = "signature line is malformed"
        raise NoteInvalid(reason)
    raw = decode_base64(encoded)
    if len(raw) <= KEY_ID_BYTES:
        reason = "signature line is too short"
        raise NoteInvalid(reason)
    return name, raw


KeyT = TypeVar("KeyT", bound=NoteKey)


def check_signatures(
    text: str, signatures: Iterable[tuple[str, bytes]], keys: Iterable[KeyT]
) -> list[tuple[KeyT, bytes]]:
    """Return (key, what follows its key id) for each signature that is one of `keys`' and holds.

    Signatures by other keys are passed over.

    Raises:
        NoteInvalid: a signature that names one of `keys` does not hold.
    """
    known = {(key.name, key.key_id): key for key in keys}
    found = []
    for name, raw in signatures:
        key = known.get((name, raw[:KEY_ID_BYTES]))
        if key is None:
            continue
        if not key.holds(raw[KEY_ID_BYTES:], text):
            reason = "signature does not hold"
            raise NoteInvalid(reason)
        found.append((key, raw[KEY_ID_BYTES:]))
    return found


def open_note(note: str, *keys: VerifierKey) -> str:
    """Verify a note under `keys`, any of which may have signed it, and return its text.

    Raises:
        NoteInvalid: malformed, signed by none of `keys`, or a signature by one of them fails.
    """
    text, signatures = split_note(note)
    if not check_signatures(text, signatures, keys):
        reason = "note is not signed by this key"
        raise NoteInvalid(reason)
    return text
