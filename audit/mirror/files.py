"""Which files a log of some size has, and their bytes out of whatever files there are now.

Files of a smaller tree can always be had from those of a larger one: full tiles never change, and
a partial tile is a start of the one that took its place. So mirror and backup may read a log that
grows meanwhile, and get one tree, whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshkit.contract import Checkpoint, Reason, Refusal
from meshkit.tlog import (
    HASH_BYTES,
    TILE_WIDTH,
    BundleInvalid,
    Edge,
    NoteInvalid,
    TileHashes,
    bundle_path,
    decode_bundle,
    encode_bundle,
    entry_hashes,
    open_checkpoint,
    range_hash,
    tile_path,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from meshkit.tlog import LogKeys, VerifierKey

__all__ = ["LogFile", "LogFiles", "files_of"]


@dataclass(frozen=True, slots=True)
class LogFile:
    """A tile (`level` 0 to 63) or a bundle of entries (`level` None)."""

    level: int | None
    number: int
    width: int

    @property
    def path(self) -> str:
        """Relative to the log's folder."""
        if self.level is None:
            return bundle_path(self.number, self.width)
        return tile_path(self.level, self.number, self.width)


def files_of(size: int, *, since: int = 0, partial: bool = True) -> Iterator[LogFile]:
    """Yield the files of a tree of `size` leaves that its full files at `since` leaves are not.

    Entries come first, then tiles, level by level. `partial=False` leaves out those at the edge.
    """
    yield from _row(None, size, since, partial=partial)
    level, nodes, before = 0, size, since
    while nodes:
        yield from _row(level, nodes, before, partial=partial)
        level, nodes, before = level + 1, nodes // TILE_WIDTH, before // TILE_WIDTH


def _row(level: int | None, nodes: int, before: int, *, partial: bool) -> Iterator[LogFile]:
    full, rest = divmod(nodes, TILE_WIDTH)
    for number in range(before // TILE_WIDTH, full):
        yield LogFile(level, number, TILE_WIDTH)
    if rest and partial:
        yield LogFile(level, full, rest)


class LogFiles:
    """Reads one log's folder, written by somebody else meanwhile. Methods block."""

    def __init__(self, folder: Path, keys: VerifierKey | LogKeys) -> None:
        self._folder = folder
        self._keys = keys

    def checkpoint(self) -> Checkpoint | None:
        """Return the published checkpoint; None if there is none yet.

        Raises:
            Refusal: EVIDENCE_LOST, if it is not this log's or its signature fails.
            OSError: the disk fails.
        """
        try:
            note = (self._folder / "checkpoint").read_bytes()
        except FileNotFoundError:
            return None
        try:
            return open_checkpoint(note.decode(), self._keys)
        except (NoteInvalid, UnicodeDecodeError):
            raise Refusal(Reason.EVIDENCE_LOST) from None

    def read(self, file: LogFile) -> bytes:
        """Return a file's bytes, if need be out of the full one that replaced it.

        Entries are checked against their tile: what does not fit is not handed on.

        Raises:
            Refusal: EVIDENCE_LOST, if it is missing, of another length, or does not fit.
            OSError: the disk fails.
        """
        try:
            data = self._bytes(file)
            if file.level is None:
                row = self._bytes(LogFile(0, file.number, file.width))
                fits = b"".join(entry_hashes(decode_bundle(data, file.width))) == row
            else:
                fits = len(data) == file.width * HASH_BYTES
        except (FileNotFoundError, BundleInvalid):
            raise Refusal(Reason.EVIDENCE_LOST) from None
        if not fits:
            raise Refusal(Reason.EVIDENCE_LOST)
        return data

    def _bytes(self, file: LogFile) -> bytes:
        try:
            return (self._folder / file.path).read_bytes()
        except FileNotFoundError:
            if file.width == TILE_WIDTH:
                raise
        whole = (self._folder / file.path.partition(".p/")[0]).read_bytes()
        if file.level is not None:
            return whole[: file.width * HASH_BYTES]
        return encode_bundle(decode_bundle(whole, TILE_WIDTH)[: file.width])

    def tile(self, level: int, number: int, width: int) -> bytes:
        """Return a tile's hashes: see `meshkit.tlog.TileReader`."""
        return self.read(LogFile(level, number, width))

    def root(self, size: int) -> bytes:
        """Return the root of the first `size` leaves, by the tiles at its edge.

        Raises: as `read`.
        """

        def row(level: int, number: int, width: int) -> list[bytes]:
            data = self.tile(level, number, width)
            return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]

        return Edge.load(size, row).root()

    def holds(self, older: Checkpoint, size: int) -> bool:
        """Tell whether the tree of `size` leaves begins with that of `older`. Raises as `read`."""
        if older.size > size:
            return False
        if older.size in (0, size):
            return self.root(older.size) == older.root
        return range_hash(TileHashes(self, size), 0, older.size) == older.root
