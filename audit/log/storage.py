"""The log on disk: tiles, entry bundles and the published checkpoint, as C2SP tlog-tiles has them.

    log/checkpoint                    the newest published checkpoint
    log/tile/<L>/<N>[.p/<W>]          hashes
    log/tile/entries/<N>[.p/<W>]      leaves

Files under tile/ never change. The caller keeps the crash-safe order (publisher.py); here are
the parts: `plan` computes a larger tree without writing, `apply` writes its files, `publish` its
checkpoint, and `load` reads what is there and checks the tree's right edge.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audit.log.disk import Disk, make_folders, put_new, replace
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
    leaf_hash,
    open_checkpoint,
    range_hash,
    tile_path,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from meshkit.tlog import LogKeys, VerifierKey

__all__ = ["LogStore", "Round"]

_CACHED_FILES_MAX = 256
"""Tiles and bundles kept in memory for proofs and look-ups: 8 kB and some 200 kB each."""


@dataclass(frozen=True, slots=True)
class Round:
    """A larger tree, not yet written: its edge, the files it needs and its last entries."""

    edge: Edge
    root: bytes
    files: tuple[tuple[str, bytes], ...]
    tail: tuple[bytes, ...]
    """The entries of the partial bundle at the end: fewer than 256."""
    filled: tuple[str, ...]
    """Full tiles and bundles of this round; their partial ones may go once it is published."""

    @property
    def size(self) -> int:
        """Leaves in the tree."""
        return self.edge.size


def _hashes(leaves: Sequence[bytes], rest: Callable[[], None]) -> list[bytes]:
    """Hash leaves, letting the event loop in between: else acks wait for a whole round."""
    hashes: list[bytes] = []
    for at in range(0, len(leaves), TILE_WIDTH):
        hashes += entry_hashes(leaves[at : at + TILE_WIDTH])
        rest()
    return hashes


def _let_in() -> None:
    """Let another thread run, if one waits."""
    time.sleep(0)


class LogStore:
    """One log's folder. Methods block."""

    def __init__(self, disk: Disk, folder: Path, keys: VerifierKey | LogKeys) -> None:
        self._disk = disk
        self._folder = folder
        self._keys = keys
        self._cache: OrderedDict[str, bytes] = OrderedDict()
        self._cache_lock = threading.Lock()
        self._edge = Edge()
        self._tail: tuple[bytes, ...] = ()
        self.published: Checkpoint | None = None

    # --- start ------------------------------------------------------------------------------

    def load(self) -> Checkpoint | None:
        """Read the published checkpoint and the right edge of its tree; None if there is none.

        Raises:
            Refusal: EVIDENCE_LOST, if signature, edge or last bundle do not fit.
        """
        make_folders(self._disk, self._folder)
        try:
            note = self._disk.read(self._folder / "checkpoint")
        except FileNotFoundError:
            return None
        try:
            checkpoint = open_checkpoint(note.decode(), self._keys)
            self._edge = Edge.load(checkpoint.size, self._row)
            self._tail = self._check_edge(checkpoint)
        except (NoteInvalid, UnicodeDecodeError, OSError, BundleInvalid) as unfit:
            raise Refusal(Reason.EVIDENCE_LOST) from unfit
        self.published = checkpoint
        return checkpoint

    def _row(self, level: int, number: int, width: int) -> list[bytes]:
        data = self.tile(level, number, width)
        return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]

    def _check_edge(self, checkpoint: Checkpoint) -> tuple[bytes, ...]:
        """Check root, last tile and last bundle against each other; return the partial bundle."""
        size = checkpoint.size
        if self._edge.root() != checkpoint.root:
            raise Refusal(Reason.EVIDENCE_LOST)
        if size == 0:
            return ()
        number = (size - 1) // TILE_WIDTH
        width = size - number * TILE_WIDTH
        entries = self._bundle(number, width)
        row = self._row(0, number, width)
        if entry_hashes(entries) != row:
            raise Refusal(Reason.EVIDENCE_LOST)
        if width < TILE_WIDTH:
            return tuple(entries)
        # A full last tile is in the root only through the tile above: see that it is the one.
        above = TileHashes(self, size).node(8, number)
        reader = TileHashes(self, size)
        if range_hash(reader, number * TILE_WIDTH, size) != above:
            raise Refusal(Reason.EVIDENCE_LOST)
        return ()

    # --- growth -----------------------------------------------------------------------------

    @property
    def planned(self) -> int:
        """Size of the newest tree taken over: where the next round starts."""
        return self._edge.size

    def plan(
        self,
        leaves: Sequence[bytes],
        known: Sequence[bytes] = (),
        rest: Callable[[], None] = _let_in,
    ) -> Round:
        """Compute the tree with `leaves` (entry bytes) behind the newest one. Writes nothing.

        `known` are the hashes of the first of them. `rest` is called between slices of the work.
        """
        edge, tiles = self._edge.grown([*known, *_hashes(leaves[len(known) :], rest)])
        entries = [*self._tail, *leaves]
        number = self._edge.size // TILE_WIDTH
        files = []
        for at in range(0, len(entries), TILE_WIDTH):
            bundle = entries[at : at + TILE_WIDTH]
            files.append((bundle_path(number, len(bundle)), encode_bundle(bundle)))
            number += 1
            rest()
        files += tiles
        tail = entries[len(entries) - edge.size % TILE_WIDTH :] if edge.size % TILE_WIDTH else []
        filled = tuple(path for path, _ in files if ".p/" not in path)
        return Round(edge, edge.root(), tuple(files), tuple(tail), filled)

    def apply(self, done: Round) -> None:
        """Write a round's files, durably. Its checkpoint must be signed and locked before.

        Raises:
            Refusal: EVIDENCE_LOST, if a file is there with other bytes.
            OSError: call again.
        """
        put_new(self._disk, [(self._folder / path, data) for path, data in done.files])

    def publish(self, done: Round, note: str) -> Checkpoint:
        """Make the round's checkpoint the published one, durably.

        Raises:
            OSError: call again.
        """
        replace(self._disk, self._folder / "checkpoint", note.encode())
        checkpoint = Checkpoint(note=note, size=done.size, root=done.root)
        self._edge, self._tail = done.edge, done.tail
        self.published = checkpoint
        return checkpoint

    def prune(self, done: Round) -> None:
        """Delete the partial tiles whose full ones a published round brought. Best effort."""
        for path in done.filled:
            partial = self._folder / f"{path}.p"
            names = self._disk.names(partial)
            with suppress(OSError):
                for name in names:
                    self._disk.unlink(partial / name)
                if names:
                    self._disk.remove_folder(partial)

    # --- reading ----------------------------------------------------------------------------

    def _read(self, path: str) -> bytes:
        with self._cache_lock:
            cached = self._cache.get(path)
            if cached is not None:
                self._cache.move_to_end(path)
                return cached
        data = self._disk.read(self._folder / path)
        with self._cache_lock:
            self._cache[path] = data
            if len(self._cache) > _CACHED_FILES_MAX:
                self._cache.popitem(last=False)
        return data

    def _read_any(self, path: str, width: int) -> tuple[bytes, int]:
        """Read a file of `width`, or the full one where the partial one was pruned meanwhile."""
        try:
            return self._read(path), width
        except FileNotFoundError:
            if width == TILE_WIDTH:
                raise
            return self._read(path.partition(".p/")[0]), TILE_WIDTH

    def tile(self, level: int, number: int, width: int) -> bytes:
        """Return a tile's hashes.

        Raises:
            Refusal: EVIDENCE_LOST, if the file is missing or of another length.
        """
        try:
            data, found = self._read_any(tile_path(level, number, width), width)
        except FileNotFoundError:
            raise Refusal(Reason.EVIDENCE_LOST) from None
        if len(data) != found * HASH_BYTES:
            raise Refusal(Reason.EVIDENCE_LOST)
        return data[: width * HASH_BYTES]

    def _bundle(self, number: int, width: int) -> list[bytes]:
        return decode_bundle(*self._read_any(bundle_path(number, width), width))[:width]

    def entries(self, start: int, end: int) -> list[bytes]:
        """Return the leaves `start` to `end` of the published tree, out of their bundles.

        Raises:
            Refusal: NOT_FOUND, beyond the tree; EVIDENCE_LOST, if a bundle is missing or damaged.
        """
        size = 0 if self.published is None else self.published.size
        if not 0 <= start <= end <= size:
            raise Refusal(Reason.NOT_FOUND)
        leaves: list[bytes] = []
        try:
            for number in range(start // TILE_WIDTH, -(-end // TILE_WIDTH)):
                first = number * TILE_WIDTH
                bundle = self._bundle(number, min(TILE_WIDTH, size - first))
                leaves += bundle[max(0, start - first) : end - first]
        except (FileNotFoundError, BundleInvalid):
            raise Refusal(Reason.EVIDENCE_LOST) from None
        return leaves

    def has_leaf(self, index: int, leaf: bytes) -> bool:
        """Tell whether the published tree holds this leaf at `index`, by its tile."""
        assert self.published is not None
        return TileHashes(self, self.published.size).node(0, index) == leaf_hash(leaf)
