r"""Checkpoints and proof files of C2SP tlog-checkpoint and tlog-proof. PURE.

A checkpoint is a signed note whose text is

    <origin>\n<size, decimal>\n<base64 of the root>\n[extension lines, ignored]

A proof file says that one entry is in the tree of one checkpoint, and needs nothing else but the
verifier key to be checked:

    c2sp.org/tlog-proof@v1
    extra <base64 of the entry's bytes>
    index <decimal>
    <base64 of a sibling hash, leaf side first>
    ...
    <empty line>
    <checkpoint>

We always put the leaf's bytes in `extra`: without them a proof proves the presence of a hash.

Source: https://c2sp.org/tlog-checkpoint v1.0.0, https://c2sp.org/tlog-proof.
"""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass

from meshkit.contract import Checkpoint
from meshkit.tlog.merkle import HASH_BYTES, is_included, leaf_hash
from meshkit.tlog.note import NoteInvalid, VerifierKey, decode_base64, open_note, split_note

__all__ = [
    "Proof",
    "ProofInvalid",
    "check_proof",
    "checkpoint_text",
    "format_proof",
    "open_checkpoint",
    "parse_checkpoint",
    "parse_proof",
]

SIZE_MAX = 2**63 - 1
PROOF_HASHES_MAX = 64
_HEADER = "c2sp.org/tlog-proof@v1"
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


def _decimal(text: str) -> int:
    """Read a number spelt the one allowed way: no sign, no leading zero, below 2**63."""
    if not _DECIMAL.fullmatch(text) or int(text) > SIZE_MAX:
        reason = "number is malformed"
        raise NoteInvalid(reason)
    return int(text)


def checkpoint_text(origin: str, size: int, root: bytes) -> str:
    """Return the text that is signed: three lines."""
    return f"{origin}\n{size}\n{b64encode(root).decode()}\n"


def _parse_text(text: str, origin: str | None) -> tuple[int, bytes]:
    lines = text.split("\n")
    if len(lines) < 4 or not lines[0] or "" in lines[1:-1]:  # noqa: PLR2004 -- three and the end
        reason = "checkpoint is malformed"
        raise NoteInvalid(reason)
    if origin is not None and lines[0] != origin:
        reason = "checkpoint is another log's"
        raise NoteInvalid(reason)
    root = decode_base64(lines[2])
    if len(root) != HASH_BYTES:
        reason = "checkpoint root is not 32 bytes"
        raise NoteInvalid(reason)
    return _decimal(lines[1]), root


def parse_checkpoint(note: str) -> Checkpoint:
    """Read a checkpoint without verifying anything.

    Raises:
        NoteInvalid: malformed.
    """
    size, root = _parse_text(split_note(note)[0], None)
    return Checkpoint(note=note, size=size, root=root)


def open_checkpoint(note: str, key: VerifierKey) -> Checkpoint:
    """Verify a checkpoint: signed by `key`, and its origin is the key's name.

    Raises:
        NoteInvalid: malformed, another log's, not signed by `key`, or the signature fails.
    """
    size, root = _parse_text(open_note(note, key), key.name)
    return Checkpoint(note=note, size=size, root=root)


class ProofInvalid(ValueError):  # noqa: N818 -- an answer about a stranger's file
    """A proof file does not prove what it claims. `step` is the number in `check_proof`."""

    def __init__(self, step: int, reason: str) -> None:
        super().__init__(f"step {step}: {reason}")
        self.step = step
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """One entry's proof: its bytes, place, sibling hashes (leaf side first) and a checkpoint."""

    leaf: bytes
    index: int
    hashes: tuple[bytes, ...]
    checkpoint: Checkpoint


def format_proof(proof: Proof) -> str:
    """Write a proof file."""
    lines = [
        _HEADER,
        f"extra {b64encode(proof.leaf).decode()}",
        f"index {proof.index}",
        *(b64encode(sibling).decode() for sibling in proof.hashes),
        "",
        proof.checkpoint.note,
    ]
    return "\n".join(lines)


def parse_proof(text: str) -> Proof:
    """Read a proof file without verifying anything.

    Raises:
        NoteInvalid: malformed, or without the `extra` line.
    """
    head, separator, note = text.partition("\n\n")
    lines = head.split("\n")
    if not separator or len(lines) < 3 or lines[0] != _HEADER:  # noqa: PLR2004 -- header lines
        reason = "proof file is malformed"
        raise NoteInvalid(reason)
    if not lines[1].startswith("extra ") or not lines[2].startswith("index "):
        reason = "proof file lacks extra or index"
        raise NoteInvalid(reason)
    hashes = tuple(decode_base64(line) for line in lines[3:])
    if len(hashes) > PROOF_HASHES_MAX or any(len(sibling) != HASH_BYTES for sibling in hashes):
        reason = "proof hashes are malformed"
        raise NoteInvalid(reason)
    return Proof(
        leaf=decode_base64(lines[1].removeprefix("extra ")),
        index=_decimal(lines[2].removeprefix("index ")),
        hashes=hashes,
        checkpoint=parse_checkpoint(note),
    )


def check_proof(text: str, vkey: str) -> Proof:
    """Verify a proof file offline.

    1. The file is a proof with a leaf in it.
    2. The verifier key is well formed.
    3. The checkpoint is that key's log's, and its signature holds.
    4. The index lies within the checkpoint's size.
    5. The leaf's hash and the siblings lead to the checkpoint's root.

    Raises:
        ProofInvalid: with the number of the first step that fails.
    """
    try:
        proof = parse_proof(text)  # 1
    except NoteInvalid as invalid:
        raise ProofInvalid(1, str(invalid)) from None
    try:
        key = VerifierKey.parse(vkey)  # 2
    except NoteInvalid as invalid:
        raise ProofInvalid(2, str(invalid)) from None
    try:
        checkpoint = open_checkpoint(proof.checkpoint.note, key)  # 3
    except NoteInvalid as invalid:
        raise ProofInvalid(3, str(invalid)) from None
    if proof.index >= checkpoint.size:  # 4
        raise ProofInvalid(4, "index is beyond the checkpoint")
    if not is_included(  # 5
        leaf_hash(proof.leaf),
        index=proof.index,
        size=checkpoint.size,
        proof=proof.hashes,
        root=checkpoint.root,
    ):
        raise ProofInvalid(5, "leaf is not in the tree")
    return proof
