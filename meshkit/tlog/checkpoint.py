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

from base64 import b64encode
from dataclasses import dataclass

from meshkit.contract import Checkpoint
from meshkit.tlog.heads import checkpoint_text, read_checkpoint_text, read_decimal
from meshkit.tlog.log_keys import LogKeys
from meshkit.tlog.merkle import HASH_BYTES, is_included, leaf_hash
from meshkit.tlog.note import NoteInvalid, VerifierKey, decode_base64, open_note, split_note
from meshkit.tlog.policy import Policy, judge_checkpoint

__all__ = [
    "Proof",
    "ProofInvalid",
    "check_proof",
    "checkpoint_text",
    "format_proof",
    "open_checkpoint",
    "origin_of",
    "parse_checkpoint",
    "parse_proof",
]

PROOF_HASHES_MAX = 64
_HEADER = "c2sp.org/tlog-proof@v1"


def parse_checkpoint(note: str) -> Checkpoint:
    """Read a checkpoint without verifying anything.

    Raises:
        NoteInvalid: malformed.
    """
    _, size, root = read_checkpoint_text(split_note(note)[0])
    return Checkpoint(note=note, size=size, root=root)


def origin_of(checkpoint: Checkpoint) -> str:
    """Return the name of the log that a checkpoint is about: its first line."""
    return checkpoint.note.partition("\n")[0]


def open_checkpoint(note: str, trust: VerifierKey | LogKeys | Policy) -> Checkpoint:
    """Verify a checkpoint: signed by a trusted log whose name is its origin, and cosigned enough.

    Args:
        note: With as many signatures by other keys as there are; they are passed over.
        trust: The log's key, or several of them; or a policy, which also says which witnesses must
            have cosigned.

    Raises:
        NoteInvalid: malformed, another log's, not signed by a trusted key, a signature by a trusted
            key fails, or the policy's quorum is not met.
    """
    if isinstance(trust, Policy):
        judged = judge_checkpoint(note, trust)
        if not judged.quorum:
            reason = "quorum of witnesses is not met"
            raise NoteInvalid(reason)
        return judged.checkpoint
    keys = trust.keys if isinstance(trust, LogKeys) else (trust,)
    origin, size, root = read_checkpoint_text(open_note(note, *keys))
    if origin != trust.name:
        reason = "checkpoint is another log's"
        raise NoteInvalid(reason)
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
        index=read_decimal(lines[2].removeprefix("index ")),
        hashes=hashes,
        checkpoint=parse_checkpoint(note),
    )


def check_proof(text: str, trust: str | Policy) -> Proof:
    """Verify a proof file offline, under the log's verifier key (or several) or a policy.

    1. The file is a proof with a leaf in it.
    2. The verifier key is well formed; if there are several, a line each, they are one log's.
    3. The checkpoint is that log's, its signatures hold, and the policy's quorum is met.
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
        key = trust if isinstance(trust, Policy) else LogKeys.parse(trust)  # 2
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
