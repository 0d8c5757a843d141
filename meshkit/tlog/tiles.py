"""Tiles and entry bundles of C2SP tlog-tiles, height 8. PURE.

    tile/<L>/<N>[.p/<W>]         up to 256 hashes of 32 bytes: nodes (8*L, 256*N ...)
    tile/entries/<N>[.p/<W>]     up to 256 entries, each a big-endian uint16 length and its bytes

N is written in groups of three digits, all but the last prefixed with `x`: 1234067 becomes
`x001/x234/067`. A tile of fewer than 256 hashes is partial and carries its width W (1 to 255) in
its name; empty tiles do not exist. Only a full tile feeds the level above.

Example: size 70,000 is 273 full tiles of level 0 and `tile/0/273.p/112`, one full tile of level 1
and `tile/1/001.p/17`, and `tile/2/000.p/1`.

Source: https://c2sp.org/tlog-tiles v0.1.0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from meshkit.tlog.merkle import HASH_BYTES, fold_right, leaf_hash, node_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = [
    "ENTRIES",
    "ENTRY_BYTES_MAX",
    "TILE_HEIGHT",
    "TILE_WIDTH",
    "BundleInvalid",
    "Edge",
    "TileHashes",
    "bundle_path",
    "decode_bundle",
    "encode_bundle",
    "entry_hashes",
    "parse_tile_path",
    "tile_path",
    "tile_root",
    "tiles_of",
]

TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
LEVEL_MAX = 63
ENTRY_BYTES_MAX = 65_535
ENTRIES = "entries"

_PATH = re.compile(
    r"tile/(entries|0|[1-9][0-9]?)/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?", re.ASCII
)


class BundleInvalid(ValueError):  # noqa: N818 -- an answer about a file's bytes
    """An entry bundle does not hold what its name says."""


def _number_path(number: int) -> str:
    groups = [f"{number % 1_000:03d}"]
    while number := number // 1_000:
        groups.insert(0, f"x{number % 1_000:03d}")
    return "/".join(groups)


def _path(kind: str, number: int, width: int) -> str:
    partial = "" if width == TILE_WIDTH else f".p/{width}"
    return f"tile/{kind}/{_number_path(number)}{partial}"


def tile_path(level: int, number: int, width: int = TILE_WIDTH) -> str:
    """Name a tile of hashes, relative to the log's prefix."""
    return _path(str(level), number, width)


def bundle_path(number: int, width: int = TILE_WIDTH) -> str:
    """Name a bundle of entries, relative to the log's prefix."""
    return _path(ENTRIES, number, width)


def parse_tile_path(path: str) -> tuple[str, int, int] | None:
    """Read a path back into (level or `entries`, number, width); None if it is not one."""
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    kind, number, width = match[1], int(match[2].replace("x", "").replace("/", "")), match[3]
    if kind != ENTRIES and int(kind) > LEVEL_MAX:
        return None
    whole = TILE_WIDTH if width is None else int(width)
    if whole > TILE_WIDTH:
        return None
    # The shortest spelling only, and no partial tile as wide as a full one.
    return (kind, number, whole) if _path(kind, number, whole) == path else None


def tiles_of(size: int) -> Iterator[tuple[int, int, int]]:
    """Yield (level, number, width) of every tile that a tree of `size` leaves has."""
    level, nodes = 0, size
    while nodes:
        full, rest = divmod(nodes, TILE_WIDTH)
        yield from ((level, number, TILE_WIDTH) for number in range(full))
        if rest:
            yield level, full, rest
        level, nodes = level + 1, full


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Put entries (each at most 65,535 bytes, at most 256 of them) into a bundle."""
    parts: list[bytes] = []
    for entry in entries:
        parts += (len(entry).to_bytes(2), entry)
    return b"".join(parts)


def decode_bundle(data: bytes, width: int) -> list[bytes]:
    """Take a bundle of `width` entries apart.

    Raises:
        BundleInvalid: it holds fewer or more bytes than its entries' lengths say.
    """
    entries, at = [], 0
    for _ in range(width):
        start = at + 2
        if start > len(data):
            break
        at = start + int.from_bytes(data[start - 2 : start])
        entries.append(data[start:at])
    if len(entries) != width or at != len(data):
        reason = "bundle is cut short or too long"
        raise BundleInvalid(reason)
    return entries


def tile_root(hashes: Sequence[bytes]) -> bytes:
    """Hash a full power of two of sibling nodes into their common ancestor."""
    row = hashes
    while len(row) > 1:
        row = [node_hash(row[at], row[at + 1]) for at in range(0, len(row), 2)]
    return row[0]


def _subtrees(hashes: Sequence[bytes]) -> Iterator[bytes]:
    """Yield a partial tile's complete subtrees, largest first."""
    at = 0
    while at < len(hashes):
        span = 1 << ((len(hashes) - at).bit_length() - 1)
        yield tile_root(hashes[at : at + span])
        at += span


@dataclass(frozen=True, slots=True)
class Edge:
    """The right edge of a tree: all that is needed to grow it and to know its root.

    `rows[level]` are the hashes of the partial tile of that tile level (fewer than 256).
    """

    size: int = 0
    rows: tuple[tuple[bytes, ...], ...] = ()

    def root(self) -> bytes:
        """Return the tree's root: 32 bytes. At most 255 hashes a level; below 1 ms."""
        return fold_right(part for row in reversed(self.rows) for part in _subtrees(row))

    def grown(self, leaves: Sequence[bytes]) -> tuple[Edge, list[tuple[str, bytes]]]:
        """Add leaf hashes; return the new edge and the tiles that are new or changed.

        Tiles come as (path, bytes): every tile that became full, and the partial ones that the
        new size needs. Costs about two hashes a leaf, amortised.
        """
        rows: list[tuple[bytes, ...]] = []
        files: list[tuple[str, bytes]] = []
        below, nodes, level = list(leaves), self.size, 0
        while below or level < len(self.rows):
            old = self.rows[level] if level < len(self.rows) else ()
            row, number, above = [*old, *below], nodes // TILE_WIDTH, list[bytes]()
            for at in range(0, len(row) - TILE_WIDTH + 1, TILE_WIDTH):
                full = row[at : at + TILE_WIDTH]
                files.append((tile_path(level, number), b"".join(full)))
                above.append(tile_root(full))
                number += 1
            rest = tuple(row[len(above) * TILE_WIDTH :])
            if rest and below:
                files.append((tile_path(level, number, len(rest)), b"".join(rest)))
            rows.append(rest)
            below, nodes, level = above, nodes >> TILE_HEIGHT, level + 1
        return Edge(self.size + len(leaves), tuple(rows)), files

    @classmethod
    def load(cls, size: int, read: Callable[[int, int, int], Sequence[bytes]]) -> Edge:
        """Rebuild the edge of a tree of `size` from its partial tiles.

        `read(level, number, width)` returns that tile's hashes.
        """
        rows: list[tuple[bytes, ...]] = []
        level, nodes = 0, size
        while nodes:
            number, width = divmod(nodes, TILE_WIDTH)
            rows.append(tuple(read(level, number, width)) if width else ())
            level, nodes = level + 1, number
        return cls(size, tuple(rows))


class TileReader(Protocol):
    """Reads tiles of a log."""

    def tile(self, level: int, number: int, width: int) -> bytes:
        """Return a tile's bytes: 32 * width of them."""
        ...


class TileHashes:
    """A `HashReader` over the tiles of a tree of `size` leaves."""

    def __init__(self, reader: TileReader, size: int) -> None:
        self._reader = reader
        self._size = size

    def node(self, level: int, index: int) -> bytes:
        """Hash a complete subtree out of one tile; at most 255 hashes."""
        tile_level, inner = divmod(level, TILE_HEIGHT)
        first = index << inner
        number, offset = divmod(first, TILE_WIDTH)
        nodes = self._size >> (tile_level * TILE_HEIGHT)
        width = min(TILE_WIDTH, nodes - number * TILE_WIDTH)
        data = self._reader.tile(tile_level, number, width)
        count = 1 << inner
        return tile_root(
            [data[at * HASH_BYTES : (at + 1) * HASH_BYTES] for at in range(offset, offset + count)]
        )


def entry_hashes(entries: Sequence[bytes]) -> list[bytes]:
    """Hash the entries of a bundle; they are the bytes of its tile of level 0."""
    return [leaf_hash(entry) for entry in entries]
