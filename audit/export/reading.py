"""Reads a log's entries in order, and hands out none that the signed checkpoint does not hold.

    1  the checkpoint is a trusted log's, its signatures hold, the policy's quorum is met  signature
    2  it is no smaller than the one seen last                                             shrunk
    3  its tree extends the one seen last, and the part that was exported                  fork
    4  the exported part with the entries read now makes a tree that it extends            entry

Files come from a folder or a web server; neither is trusted. The proofs of 3 and 4 are made of the
log's tiles and checked against the signed root, so a wrong tile or entry fails one of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from meshkit.tlog import (
    HASH_BYTES,
    TILE_WIDTH,
    BundleInvalid,
    Edge,
    NoteInvalid,
    TileHashes,
    bundle_path,
    consistency_proof,
    decode_bundle,
    entry_hashes,
    is_consistent,
    open_checkpoint,
    origin_of,
    tile_path,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshkit.contract import Checkpoint
    from meshkit.tlog import LogKeys, Policy

__all__ = ["LogReader", "LogRefused", "Part", "Seen", "Wrong"]


class Wrong(StrEnum):
    """What is wrong with a log: the words of the table above, and a file that is not there."""

    SIGNATURE = "signature"
    SHRUNK = "shrunk"
    FORK = "fork"
    ENTRY = "entry"
    MISSING = "missing"


class LogRefused(Exception):  # noqa: N818 -- an answer about somebody's files
    """The log is not what it was, or not what its checkpoint says."""

    def __init__(self, kind: Wrong, *, size: int = -1, index: int = -1) -> None:
        super().__init__(kind)
        self.kind = kind
        self.size = size
        self.index = index


@dataclass(frozen=True, slots=True)
class Seen:
    """A tree that was believed: its size and root. Size 0 has no root."""

    size: int = 0
    root: bytes = b""


@dataclass(frozen=True, slots=True)
class Part:
    """Entries in order, the first at `first`, and the edge of the tree that ends with them."""

    first: int
    entries: tuple[bytes, ...]
    edge: Edge


class LogReader:
    """One log's files, and whom to believe. `read` gives a file's bytes, None if there is none."""

    def __init__(self, read: Callable[[str], bytes | None], trust: LogKeys | Policy) -> None:
        self._read = read
        self._trust = trust
        self._tiles: dict[str, bytes] = {}

    def checkpoint(self, seen: Seen) -> Checkpoint:
        """Read the newest checkpoint: steps 1 to 3 for what was seen last.

        Raises:
            LogRefused: a step fails.
            OSError: a file cannot be read now.
        """
        note = self._read("checkpoint")
        if note is None:
            raise LogRefused(Wrong.MISSING)
        try:
            checkpoint = open_checkpoint(note.decode(), self._trust)  # 1
        except (NoteInvalid, UnicodeDecodeError):
            raise LogRefused(Wrong.SIGNATURE) from None
        if checkpoint.size < seen.size:
            raise LogRefused(Wrong.SHRUNK, size=checkpoint.size)  # 2
        self._tiles.clear()  # partial ones are another checkpoint's
        self._extends(seen, checkpoint, Wrong.FORK)  # 3
        return checkpoint

    def origin(self, checkpoint: Checkpoint) -> str:
        """Return the log's name."""
        return origin_of(checkpoint)

    def edge(self, done: Seen, checkpoint: Checkpoint) -> Edge:
        """Return the edge of the part that was exported: step 3 for it.

        Raises:
            LogRefused: the log does not begin with that part (any more).
            OSError: a file cannot be read now.
        """
        if done.size > checkpoint.size:
            raise LogRefused(Wrong.SHRUNK, size=checkpoint.size)
        self._extends(done, checkpoint, Wrong.FORK)
        edge = Edge.load(done.size, lambda *tile: self._row(checkpoint.size, *tile))
        if done.size and edge.root() != done.root:
            raise LogRefused(Wrong.FORK, size=done.size)
        return edge

    def part(self, edge: Edge, checkpoint: Checkpoint) -> Part:
        """Read the entries behind `edge`, to the end of their bundle: step 4.

        Raises:
            LogRefused: they are not what the checkpoint's tree holds.
            OSError: a file cannot be read now.
        """
        number, skip = divmod(edge.size, TILE_WIDTH)
        width = min(TILE_WIDTH, checkpoint.size - number * TILE_WIDTH)
        data, found = self._any(bundle_path, number, width)
        try:
            entries = decode_bundle(data, found)[skip:width]
        except BundleInvalid:
            raise LogRefused(Wrong.ENTRY, index=edge.size) from None
        grown, _ = edge.grown(entry_hashes(entries))
        self._extends(Seen(grown.size, grown.root()), checkpoint, Wrong.ENTRY)  # 4
        return Part(edge.size, tuple(entries), grown)

    def _extends(self, old: Seen, checkpoint: Checkpoint, kind: Wrong) -> None:
        if old.size == 0:
            return
        proof = consistency_proof(TileHashes(self._of(checkpoint), checkpoint.size), old.size,
                                  checkpoint.size)  # fmt: skip
        fits = is_consistent(
            old=old.size,
            old_root=old.root,
            new=checkpoint.size,
            new_root=checkpoint.root,
            proof=proof,
        )
        if not fits:
            raise LogRefused(kind, size=checkpoint.size, index=old.size - 1)

    def _of(self, checkpoint: Checkpoint) -> _Tiles:
        return _Tiles(self, checkpoint.size)

    def _row(self, size: int, level: int, number: int, width: int) -> list[bytes]:
        data = self.tile(size, level, number, width)
        return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]

    def tile(self, size: int, level: int, number: int, width: int) -> bytes:
        """Return the first `width` hashes of a tile of the tree of `size`.

        Raises:
            LogRefused: it is not there, or too short.
            OSError: it cannot be read now.
        """
        nodes = size >> (8 * level)
        whole = min(TILE_WIDTH, nodes - number * TILE_WIDTH)
        path = tile_path(level, number, whole)
        if path not in self._tiles:
            if len(self._tiles) >= TILE_WIDTH:
                self._tiles.clear()
            self._tiles[path], _ = self._any(
                lambda number, width: tile_path(level, number, width), number, whole
            )
        data = self._tiles[path][: width * HASH_BYTES]
        if len(data) != width * HASH_BYTES:
            raise LogRefused(Wrong.MISSING)
        return data

    def _any(
        self, path_of: Callable[[int, int], str], number: int, width: int
    ) -> tuple[bytes, int]:
        """Read a file of `width`, or the full one where the partial one was pruned meanwhile."""
        for each in (width, TILE_WIDTH):
            data = self._read(path_of(number, each))
            if data is not None:
                return data, each
        raise LogRefused(Wrong.MISSING, index=number * TILE_WIDTH)


@dataclass(frozen=True, slots=True)
class _Tiles:
    """The tiles of one tree, for proofs."""

    reader: LogReader
    size: int

    def tile(self, level: int, number: int, width: int) -> bytes:
        """See `TileReader.tile`."""
        return self.reader.tile(self.size, level, number, width)
