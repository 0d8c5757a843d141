r"""Cosignatures of C2SP tlog-cosignature: a witness saw this checkpoint and its history. PURE.

    line  = "— " name " " base64(key id (4 bytes) || time (8 bytes, big-endian) || signature) "\n"
    vkey  = name "+" hex(key id) "+" base64(type (1 byte) || public key)
    type  = 0x04 Ed25519 (32 bytes, signature 64)    0x06 ML-DSA-44 (1,312 bytes, signature 2,420)

What is signed. By Ed25519, with the checkpoint's text whole, extension lines included:

    cosignature/v1\ntime <POSIX seconds, decimal>\n<text of the checkpoint>

By ML-DSA-44 (FIPS 204, no context), with the cosigner's name, and without extension lines:

    "subtree/v1\n\0" || u8 length, cosigner's name || u64 time || u8 length, origin ||
    u64 start, 0 || u64 end, the size || root (32 bytes)

Example (tests/tlog/cosignatures.json has whole ones): origin `example.org/log`, size 3, time
1763788800 and cosigner `w.example` give 12 + 10 + 8 + 16 + 8 + 8 + 32 = 94 bytes for ML-DSA-44.

Source: https://c2sp.org/tlog-cosignature v1.1.0-rc.1.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

from meshkit.tlog.heads import read_checkpoint_text
from meshkit.tlog.note import KEY_ID_BYTES, NoteInvalid, format_line, parse_vkey

__all__ = [
    "ED25519_COSIGNATURE",
    "MLDSA44_COSIGNATURE",
    "TIME_MAX_S",
    "CosignerKey",
    "cosignature_line",
    "cosignature_message",
]

ED25519_COSIGNATURE: Final = 0x04
MLDSA44_COSIGNATURE: Final = 0x06
TIME_MAX_S = 2**63 - 1
_TIME_BYTES = 8
_LABEL = b"subtree/v1\n\0"
_VECTOR_BYTES_MAX = 255
_PUBLIC_BYTES = {ED25519_COSIGNATURE: 32, MLDSA44_COSIGNATURE: 1_312}
_SIGNATURE_BYTES = {ED25519_COSIGNATURE: 64, MLDSA44_COSIGNATURE: 2_420}


def _vector(text: str) -> bytes:
    """Write a TLS vector of 1 to 255 bytes (RFC 8446, 3.4)."""
    raw = text.encode()
    if not 1 <= len(raw) <= _VECTOR_BYTES_MAX:
        reason = "name or origin is longer than 255 bytes"
        raise NoteInvalid(reason)
    return bytes([len(raw)]) + raw


@dataclass(frozen=True, slots=True)
class CosignerKey:
    """A cosigner's verifier key: who, of which type (0x04 or 0x06), and with what."""

    name: str
    kind: int
    public: bytes

    @property
    def key_id(self) -> bytes:
        """Four bytes that pick the key among the signatures of a note."""
        head = self.name.encode() + b"\n" + bytes([self.kind])
        return sha256(head + self.public).digest()[:KEY_ID_BYTES]

    def __str__(self) -> str:
        encoded = b64encode(bytes([self.kind]) + self.public).decode()
        return f"{self.name}+{self.key_id.hex()}+{encoded}"

    @classmethod
    def parse(cls, vkey: str) -> CosignerKey:
        """Read a vkey line.

        Raises:
            NoteInvalid: malformed, of another type, or its key id is another's.
        """
        name, key_id, raw = parse_vkey(vkey)
        if len(raw) != 1 + _PUBLIC_BYTES.get(raw[0], -1):
            reason = "verifier key is not a cosigner's"
            raise NoteInvalid(reason)
        key = cls(name, raw[0], raw[1:])
        if key_id != key.key_id.hex():
            reason = "verifier key has another key's id"
            raise NoteInvalid(reason)
        _vector(name)
        return key

    def cosigned_at(self, blob: bytes, text: str) -> int | None:
        """Return when this key cosigned the checkpoint `text`; None if it did not.

        Args:
            blob: What follows the key id in the signature line: time and signature.
            text: The checkpoint's text, its last newline included.

        Returns:
            POSIX seconds. 160 µs for ML-DSA-44, 100 µs for Ed25519.
        """
        time_s = int.from_bytes(blob[:_TIME_BYTES])
        if len(blob) != _TIME_BYTES + _SIGNATURE_BYTES[self.kind] or time_s > TIME_MAX_S:
            return None
        try:
            self._verify(blob[_TIME_BYTES:], cosignature_message(self, text, time_s))
        except (InvalidSignature, ValueError):  # of which NoteInvalid is one
            return None
        return time_s

    def holds(self, blob: bytes, text: str) -> bool:
        """Tell whether the line's blob is this key's, over the checkpoint `text`."""
        return self.cosigned_at(blob, text) is not None

    def _verify(self, signature: bytes, message: bytes) -> None:
        if self.kind == ED25519_COSIGNATURE:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        else:
            MLDSA44PublicKey.from_public_bytes(self.public).verify(signature, message)


def cosignature_message(key: CosignerKey, text: str, time_s: int) -> bytes:
    """Return what `key` signs to cosign the checkpoint `text` at `time_s` (POSIX seconds).

    Raises:
        NoteInvalid: the text is no checkpoint's, or its origin or the name exceed 255 bytes.
    """
    origin, size, root = read_checkpoint_text(text)
    if key.kind == ED25519_COSIGNATURE:
        return f"cosignature/v1\ntime {time_s}\n{text}".encode()
    return b"".join(
        (
            _LABEL,
            _vector(key.name),
            time_s.to_bytes(8),
            _vector(origin),
            (0).to_bytes(8),
            size.to_bytes(8),
            root,
        )
    )


def cosignature_line(key: CosignerKey, time_s: int, signature: bytes) -> str:
    """Format a cosignature as a signature line, newline included."""
    return format_line(key.name, key.key_id + time_s.to_bytes(_TIME_BYTES) + signature)
