"""Merkle tree of RFC 6962 / RFC 9162: hashes, proofs and their verification. PURE.

    leaf  = SHA-256(0x00 || entry)            node = SHA-256(0x01 || left || right)
    root of no leaves = SHA-256("")

    MTH(D[n]) = node(MTH(D[0:k]), MTH(D[k:n]))    k = largest power of two below n

A node is named (level, index): it covers leaves `index << level` up to `(index + 1) << level`. Only
such complete subtrees have names; they never change, which is why tiles may be cached for ever.
The proof makers below ask a `HashReader` for named nodes and hash the rest themselves, so one
implementation serves a list in memory and tiles on disk.

Source: RFC 9162, 2.1.
"""

from __future__ import annotations

from hashlib import sha256
from hmac import compare_digest
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "EMPTY_ROOT",
    "HASH_BYTES",
    "HashReader",
    "ListHashes",
    "consistency_proof",
    "fold_right",
    "inclusion_proof",
    "is_consistent",
    "is_included",
    "leaf_hash",
    "node_hash",
    "range_hash",
    "root_of",
]

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    """Hash an entry's bytes into its leaf: RFC 9162, 2.1.1. 32 bytes."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash two children (32 bytes each) into their parent: RFC 9162, 2.1.1. 32 bytes."""
    return sha256(b"\x01" + left + right).digest()


class HashReader(Protocol):
    """Knows the hashes of complete subtrees."""

    def node(self, level: int, index: int) -> bytes:
        """Return the 32-byte hash over leaves `index << level` to `(index + 1) << level`."""
        ...


class ListHashes:
    """A `HashReader` over leaf hashes in memory, for tests and small trees."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self._leaves = leaves

    def node(self, level: int, index: int) -> bytes:
        """Hash the subtree afresh; O(2**level)."""
        row = list(self._leaves[index << level : (index + 1) << level])
        while len(row) > 1:
            row = [node_hash(row[at], row[at + 1]) for at in range(0, len(row), 2)]
        return row[0]


def _split(size: int) -> int:
    """Return the largest power of two below `size` (2 or more)."""
    return 1 << ((size - 1).bit_length() - 1)


def fold_right(subtrees: Iterable[bytes]) -> bytes:
    """Join complete subtrees, largest first, into the hash over all of them.

    This is how MTH nests: the smallest two join first. `EMPTY_ROOT` for none.
    """
    joined: bytes | None = None
    for subtree in reversed(list(subtrees)):
        joined = subtree if joined is None else node_hash(subtree, joined)
    return EMPTY_ROOT if joined is None else joined


def range_hash(reader: HashReader, start: int, end: int) -> bytes:
    """Return MTH(D[start:end]) for a range a proof may name; O(log n) node reads.

    `start` is a multiple of the largest power of two within `end - start`, as in every proof.
    """
    parts = []
    at = start
    while at < end:
        level = (end - at).bit_length() - 1
        parts.append(reader.node(level, at >> level))
        at += 1 << level
    return fold_right(parts)


def root_of(reader: HashReader, size: int) -> bytes:
    """Return the root of the first `size` leaves."""
    return range_hash(reader, 0, size)


def inclusion_proof(reader: HashReader, index: int, size: int) -> tuple[bytes, ...]:
    """Prove that leaf `index` is in the tree of `size` leaves; hashes leaf side first.

    Raises:
        ValueError: `index` is not within `size`.

    Source: RFC 9162, 2.1.3.1.
    """
    if not 0 <= index < size:
        msg = f"index {index} is not within size {size}"
        raise ValueError(msg)
    start, end = 0, size
    proof: list[bytes] = []
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            proof.append(range_hash(reader, middle, end))
            end = middle
        else:
            proof.append(range_hash(reader, start, middle))
            start = middle
    return tuple(reversed(proof))


def consistency_proof(reader: HashReader, old: int, new: int) -> tuple[bytes, ...]:
    """Prove that the tree of `new` leaves extends that of `old`.

    Empty when the sizes are equal or `old` is 0 (everything extends the empty tree).

    Raises:
        ValueError: not 0 <= `old` <= `new`.

    Source: RFC 9162, 2.1.4.1.
    """
    if not 0 <= old <= new:
        msg = f"size {old} is not within size {new}"
        raise ValueError(msg)
    if old in (0, new):
        return ()
    start, end, proof = 0, new, list[bytes]()
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            proof.append(range_hash(reader, middle, end))
            end = middle
        else:
            proof.append(range_hash(reader, start, middle))
            start = middle
    if start != 0:
        proof.append(range_hash(reader, start, end))
    return tuple(reversed(proof))


def is_included(leaf: bytes, *, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Tell whether `leaf` stands at `index` in the tree of `size` leaves under `root`.

    Any bytes may be passed as `leaf`, `proof` and `root`: a proof is a stranger's claim, so a bad
    one is an answer (`False`), never an exception.

    Args:
        leaf: `leaf_hash` of the record, 32 bytes.
        index: 0-based position, in leaves.
        size: Leaves in the tree; the checkpoint that vouches for `root` states it.
        proof: Sibling hashes, leaf side first.
        root: The tree's hash, 32 bytes, from a checkpoint whose signature was checked.

    Raises:
        ValueError: `index` is not within `size`.

    Source: RFC 9162, 2.1.3.2. Its `fn` and `sn` are `node` and `last` here.
    """
    if not 0 <= index < size:
        msg = f"index {index} is not within size {size}"
        raise ValueError(msg)
    node, last, seen = index, size - 1, leaf
    for sibling in proof:
        if last == 0 or len(sibling) != HASH_BYTES:
            return False
        if node & 1 or node == last:
            seen = node_hash(sibling, seen)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            seen = node_hash(seen, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and compare_digest(seen, root)


def is_consistent(
    *, old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]
) -> bool:
    """Tell whether the tree of `new` leaves under `new_root` extends that of `old`.

    `old` 0 needs an empty proof and `EMPTY_ROOT` (as C2SP tlog-witness has it, not RFC 9162).

    Raises:
        ValueError: not 0 <= `old` <= `new`.

    Source: RFC 9162, 2.1.4.2.
    """
    if not 0 <= old <= new:
        msg = f"size {old} is not within size {new}"
        raise ValueError(msg)
    if old == 0:
        return not proof and compare_digest(old_root, EMPTY_ROOT)
    if old == new:
        return not proof and compare_digest(old_root, new_root)
    path = list(proof)
    if any(len(sibling) != HASH_BYTES for sibling in path):
        return False
    if old & (old - 1) == 0:  # a power of two: its root is itself a node, left out of the proof
        path.insert(0, old_root)
    return bool(path) and _replay(path, old, old_root, new, new_root)


def _replay(path: list[bytes], old: int, old_root: bytes, new: int, new_root: bytes) -> bool:
    """Rebuild both roots from one path: RFC 9162, 2.1.4.2, steps 4 to 7."""
    node, last = old - 1, new - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    seen_old = seen_new = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            seen_old = node_hash(sibling, seen_old)
            seen_new = node_hash(sibling, seen_new)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            seen_new = node_hash(seen_new, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and compare_digest(seen_old, old_root) and compare_digest(seen_new, new_root)
