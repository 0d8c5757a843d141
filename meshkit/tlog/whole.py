"""Verifies a whole log: every entry, every tile, the root and the signature. PURE but for `read`.

    1. The verifier key is well formed.
    2. The checkpoint is that log's, its signatures hold, and the policy's quorum is met.
    3. Every entry bundle holds as many entries as its name says, and each entry's hash is the one
       in the tile of level 0.
    4. Every tile above holds the hashes of the full tiles below it.
    5. The partial tiles at the right edge lead to the checkpoint's root.
    6. Every other tile and bundle found is an older, partial state of one that was verified, or
       lies beyond the checkpoint (written, but not published yet).

Where two files disagree, the one that the root speaks against is named: the hash in the tile above
decides, or the root itself at the right edge.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from meshkit.tlog.checkpoint import open_checkpoint, origin_of
from meshkit.tlog.log_keys import LogKeys
from meshkit.tlog.merkle import HASH_BYTES
from meshkit.tlog.note import NoteInvalid
from meshkit.tlog.policy import Policy
from meshkit.tlog.tiles import (
    ENTRIES,
    TILE_HEIGHT,
    TILE_WIDTH,
    BundleInvalid,
    Edge,
    bundle_path,
    decode_bundle,
    entry_hashes,
    parse_tile_path,
    tile_path,
    tile_root,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from meshkit.contract import Checkpoint

__all__ = ["LogChecked", "LogInvalid", "check_log"]


class LogInvalid(ValueError):  # noqa: N818 -- an answer about somebody's files
    """A log does not hold. Names the step of `check_log`, the file, and the first bad index."""

    def __init__(self, step: int, path: str, reason: str, index: int | None = None) -> None:
        where = path if index is None else f"{path}, index {index}"
        super().__init__(f"step {step}: {where}: {reason}")
        self.step = step
        self.path = path
        self.reason = reason
        self.index = index


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChecked:
    """What was verified."""

    origin: str
    size: int
    root: bytes
    files: int
    beyond: int
    """Files of a larger tree, written but not published: not verified."""


@dataclass(slots=True)
class _Log:
    read: Callable[[str], bytes | None]
    checkpoint: Checkpoint
    files: set[str] = field(default_factory=lambda: {"checkpoint"})

    def need(self, step: int, path: str) -> bytes:
        data = self.read(path)
        if data is None:
            raise LogInvalid(step, path, "file is missing")
        self.files.add(path)
        return data

    def row(self, step: int, level: int, number: int, width: int) -> list[bytes]:
        path = tile_path(level, number, width)
        data = self.need(step, path)
        if len(data) != width * HASH_BYTES:
            raise LogInvalid(step, path, "tile has another length")
        return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]


def _tiles(nodes: int) -> Iterable[tuple[int, int]]:
    """Yield (number, width) of the tiles of a level that has `nodes` hashes."""
    full, rest = divmod(nodes, TILE_WIDTH)
    yield from ((number, TILE_WIDTH) for number in range(full))
    if rest:
        yield full, rest


def check_log(
    read: Callable[[str], bytes | None], trust: str | Policy, paths: Iterable[str] = ()
) -> LogChecked:
    """Verify a log.

    Args:
        read: Returns the bytes of a path relative to the log's prefix; None if there is none.
        trust: The log's verifier key (several: a line each), or a policy, from a place the auditor
            trusts.
        paths: All paths below `tile/` that there are, for step 6; may be left out.

    Raises:
        LogInvalid: at the first step that fails.

    Cost: about 3 µs an entry, and one tile row for each level in memory.
    """
    try:
        key = trust if isinstance(trust, Policy) else LogKeys.parse(trust)  # 1
    except NoteInvalid as invalid:
        raise LogInvalid(1, "vkey", str(invalid)) from None
    log = _Log(read, _open(read, key))  # 2
    computed = _check_entries(log)  # 3
    level = 1
    while computed:
        computed = _check_level(log, level, computed)  # 4
        level += 1
    _check_root(log)  # 5
    beyond = sum(_check_other(log, path) for path in sorted(paths))  # 6
    checkpoint = log.checkpoint
    return LogChecked(
        origin=origin_of(checkpoint),
        size=checkpoint.size,
        root=checkpoint.root,
        files=len(log.files),
        beyond=beyond,
    )


def _open(read: Callable[[str], bytes | None], key: LogKeys | Policy) -> Checkpoint:
    note = read("checkpoint")
    if note is None:
        raise LogInvalid(2, "checkpoint", "file is missing")
    try:
        return open_checkpoint(note.decode(), key)
    except (NoteInvalid, UnicodeDecodeError) as invalid:
        reason = str(invalid) if isinstance(invalid, NoteInvalid) else "not UTF-8"
        raise LogInvalid(2, "checkpoint", reason) from None


def _check_entries(log: _Log) -> list[bytes]:
    """Step 3; return the roots of the full tiles of level 0."""
    roots = []
    for number, width in _tiles(log.checkpoint.size):
        path = bundle_path(number, width)
        try:
            hashes = entry_hashes(decode_bundle(log.need(3, path), width))
        except BundleInvalid as invalid:
            raise LogInvalid(3, path, str(invalid), number * TILE_WIDTH) from None
        row = log.row(3, 0, number, width)
        _compare(log, 0, number, row, hashes)
        if width == TILE_WIDTH:
            roots.append(tile_root(row))
    return roots


def _check_level(log: _Log, level: int, below: Sequence[bytes]) -> list[bytes]:
    """Step 4 for one level; return the roots of its full tiles."""
    roots = []
    for number, width in _tiles(len(below)):
        row = log.row(4, level, number, width)
        first = number * TILE_WIDTH
        _compare(log, level, number, row, below[first : first + width])
        if width == TILE_WIDTH:
            roots.append(tile_root(row))
    return roots


def _compare(
    log: _Log, level: int, number: int, row: Sequence[bytes], computed: Sequence[bytes]
) -> None:
    """Blame the tile or what is below it, whichever the root speaks against."""
    bad = next(
        (at for at, pair in enumerate(zip(row, computed, strict=True)) if len({*pair}) > 1), None
    )
    if bad is None:
        return
    width = len(row)
    index = (number * TILE_WIDTH + bad) << (level * TILE_HEIGHT)
    if _vouched(log, level, number, row):
        if level == 0:
            raise LogInvalid(3, bundle_path(number, width), "entry is not the one logged", index)
        below = tile_path(level - 1, number * TILE_WIDTH + bad)
        raise LogInvalid(4, below, "tile and its entries are not those logged", index)
    raise LogInvalid(3 + (level > 0), tile_path(level, number, width), "hash is wrong", index)


def _vouched(log: _Log, level: int, number: int, row: Sequence[bytes]) -> bool:
    """Tell whether what is above a tile speaks for it."""
    nodes = log.checkpoint.size >> (TILE_HEIGHT * (level + 1))
    if len(row) == TILE_WIDTH:
        parent, offset = divmod(number, TILE_WIDTH)
        above = log.row(4, level + 1, parent, min(TILE_WIDTH, nodes - parent * TILE_WIDTH))
        return above[offset] == tile_root(row)
    return _edge(log).root() == log.checkpoint.root


def _edge(log: _Log) -> Edge:
    return Edge.load(
        log.checkpoint.size, lambda level, number, width: log.row(5, level, number, width)
    )


def _check_root(log: _Log) -> None:
    """Step 5. All hashes fit the entries by now, so a wrong root means other entries."""
    if _edge(log).root() != log.checkpoint.root:
        raise LogInvalid(5, "checkpoint", "root is not that of the entries")


def _check_other(log: _Log, path: str) -> bool:
    """Step 6 for one path; True if it is beyond the checkpoint."""
    parsed = parse_tile_path(path)
    if parsed is None:
        raise LogInvalid(6, path, "no file of a log has this name")
    kind, number, width = parsed
    level = 0 if kind == ENTRIES else int(kind)
    nodes = log.checkpoint.size >> (TILE_HEIGHT * level)
    known = min(TILE_WIDTH, nodes - number * TILE_WIDTH)
    if width > known:
        return True
    if width < known:
        path_of = bundle_path if kind == ENTRIES else (lambda n, w: tile_path(level, n, w))
        data, whole = log.need(6, path), log.read(path_of(number, known)) or b""
        counted = _counts(data, width) if kind == ENTRIES else len(data) == width * HASH_BYTES
        if not counted or not whole.startswith(data):
            raise LogInvalid(6, path, "partial file is not a start of the newer one")
    return False


def _counts(data: bytes, width: int) -> bool:
    try:
        decode_bundle(data, width)
    except BundleInvalid:
        return False
    return True
