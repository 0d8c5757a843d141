r"""What a log and a witness say to each other, as C2SP tlog-witness has it. PURE.

    POST <prefix>/add-checkpoint

    old <size, decimal>\n
    <base64 of a hash>\n                  0 to 63 times: consistency proof from the old size
    \n
    <checkpoint>

    200  signature lines       cosignatures by the witness's keys
    400  malformed, or the old size is larger than the checkpoint's
    403  no signature by a key that the witness trusts for the origin, or one that fails
    404  unknown origin
    409  the old size is not the one last cosigned: that size in decimal, and a newline, as
         `text/x.tlog.size`
    422  the consistency proof does not hold, or the old root is another one

Source: https://c2sp.org/tlog-witness v1.0.0, with the status of another root at the same size
(422) and of a failing signature (403) as in its text of 2026-07.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshkit.tlog.heads import read_checkpoint_text, read_decimal
from meshkit.tlog.merkle import HASH_BYTES
from meshkit.tlog.note import NoteInvalid, decode_base64, format_note, split_note

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "CONSISTENCY_HASHES_MAX",
    "SIZE_CONTENT_TYPE",
    "AddCheckpoint",
    "format_add_checkpoint",
    "parse_add_checkpoint",
    "parse_signature_lines",
    "parse_size",
]

CONSISTENCY_HASHES_MAX = 63
SIZE_CONTENT_TYPE = "text/x.tlog.size"
_SIZE_CHARS_MAX = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class AddCheckpoint:
    """A request as it was sent: nothing of it has been verified."""

    old: int
    proof: tuple[bytes, ...]
    note: str
    text: str
    """The checkpoint's text: what its signatures are over."""
    signatures: tuple[tuple[str, bytes], ...]
    """Name, and key id || signature, of each."""
    origin: str
    size: int
    root: bytes


def format_add_checkpoint(old: int, proof: Sequence[bytes], note: str) -> bytes:
    """Write a request's body."""
    hashes = "".join(f"{b64encode(sibling).decode()}\n" for sibling in proof)
    return f"old {old}\n{hashes}\n{note}".encode()


def parse_add_checkpoint(body: bytes) -> AddCheckpoint:
    """Read a request's body without verifying anything.

    Raises:
        NoteInvalid: malformed; the answer is 400.
    """
    try:
        head, separator, note = body.decode().partition("\n\n")
    except UnicodeDecodeError:
        reason = "request is not UTF-8"
        raise NoteInvalid(reason) from None
    lines = head.split("\n")
    if not separator or not lines[0].startswith("old "):
        reason = "request is malformed"
        raise NoteInvalid(reason)
    proof = tuple(decode_base64(line) for line in lines[1:])
    if len(proof) > CONSISTENCY_HASHES_MAX or any(len(each) != HASH_BYTES for each in proof):
        reason = "consistency proof is malformed"
        raise NoteInvalid(reason)
    text, signatures = split_note(note)
    origin, size, root = read_checkpoint_text(text)
    return AddCheckpoint(
        old=read_decimal(lines[0].removeprefix("old ")),
        proof=proof,
        note=note,
        text=text,
        signatures=tuple(signatures),
        origin=origin,
        size=size,
        root=root,
    )


def parse_signature_lines(body: bytes, text: str) -> list[tuple[str, bytes]]:
    """Read the body of a 200 about the checkpoint `text`; nothing has been verified.

    Raises:
        NoteInvalid: not a sequence of signature lines.
    """
    try:
        lines = body.decode()
    except UnicodeDecodeError:
        reason = "answer is not UTF-8"
        raise NoteInvalid(reason) from None
    parsed, signatures = split_note(format_note(text, lines))
    if parsed != text:
        reason = "answer is no signature lines"
        raise NoteInvalid(reason)
    return signatures


def parse_size(body: bytes) -> int:
    """Read the body of a 409.

    Raises:
        NoteInvalid: it is no size.
    """
    if len(body) > _SIZE_CHARS_MAX or not body.endswith(b"\n") or not body.isascii():
        reason = "size is malformed"
        raise NoteInvalid(reason)
    return read_decimal(body.decode()[:-1])
