r"""The write-ahead log: where an event becomes durable and gets its index.

A folder of segments `<number>.wal`. A segment is a header and groups; a group is what one fsync
made durable, all of it or nothing:

    header = "SGWALS1\n" | first index u64 | chain 32 | SHA-256 of these, first 8 bytes
    group  = "\xffSGWAL1\n" | first index u64 | count u32 | body length u32 | chain' 32 | body
    body   = count x (leaf length u32 | leaf | sealed payload length u32 | sealed payload)
    chain' = SHA-256(chain | first index | count | body length | body)

The chain ties each group to all before it, so that neither a stale page nor a segment of another
history passes for a continuation. Nothing is ever written behind bytes that failed to be written:
after a failure, and at every start, a new segment begins, and its header names the index and chain
it goes on from. Groups of the old segment beyond that point were never acknowledged and are void.

A segment is laid out in zeros ahead of its use, where there is room: groups then overwrite, and an
fsync that has no size and no block to note in the file system's journal takes a seventh of the time
(0.4 ms instead of 2.9, ext4 on a virtual disk). Behind the last group are zeros, or nothing.

A torn group at the end of the last segment was never acknowledged either (its fsync had not
returned), and is void. A broken group *before* a sound one had been acknowledged: the log refuses
to start rather than lose it.
"""

from __future__ import annotations

import struct
import threading
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from audit.log.disk import Disk, make_folders
from meshkit.contract import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["Entry", "Group", "Wal", "sound_bytes"]

_SEGMENT_MAGIC = b"SGWALS1\n"
_GROUP_MAGIC = b"\xffSGWAL1\n"
_CHAIN_BYTES = 32
_SEGMENT = struct.Struct(">8sQ32s8s")
_GROUP = struct.Struct(">8sQII32s")
_FACTS = struct.Struct(">QII")
_LENGTH = struct.Struct(">I")
_SPARE = "spare"
_ZEROS = bytes(256 * 1024)
_ROOM = 8
"""Room there must be for so many segments, or none is laid out ahead: groups need it more."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A leaf's bytes and its sealed payload (empty if it has none)."""

    leaf: bytes
    sealed: bytes = b""


@dataclass(frozen=True, slots=True)
class Group:
    """Where a durable group is: entries `first` to `first + count`."""

    first: int
    count: int
    segment: Path
    offset: int
    length: int

    @property
    def end(self) -> int:
        """The index behind the last entry."""
        return self.first + self.count


@dataclass(slots=True)
class _Segment:
    path: Path
    first: int
    chain: bytes


def _evidence_lost() -> Refusal:
    return Refusal(Reason.EVIDENCE_LOST)


def _encode_body(entries: Sequence[Entry]) -> bytes:
    parts: list[bytes] = []
    pack = _LENGTH.pack
    for entry in entries:
        parts += (pack(len(entry.leaf)), entry.leaf, pack(len(entry.sealed)), entry.sealed)
    return b"".join(parts)


def _decode_body(body: bytes, count: int) -> Iterator[Entry]:
    at = 0
    for _ in range(count):
        fields = []
        for _field in range(2):
            (length,) = _LENGTH.unpack_from(body, at)
            at += _LENGTH.size
            fields.append(body[at : at + length])
            at += length
        yield Entry(fields[0], fields[1])


def _chained(chain: bytes, facts: bytes, body: bytes) -> bytes:
    hasher = sha256(chain)
    hasher.update(facts)
    hasher.update(body)
    return hasher.digest()


def _segment_header(first: int, chain: bytes) -> bytes:
    start = _SEGMENT_MAGIC + first.to_bytes(8) + chain
    return start + sha256(start).digest()[:8]


class Wal:
    """One writer's write-ahead log. Methods block; `append` runs in a thread of its own.

    After `open`, `groups` are the durable groups not yet dropped, and `end` is the next index.
    """

    def __init__(self, disk: Disk, folder: Path, *, segment_bytes_max: int) -> None:
        self._disk = disk
        self._folder = folder
        self._segment_bytes_max = segment_bytes_max
        self._lock = threading.Lock()
        self._segments: list[_Segment] = []
        self._next_number = 0
        self._handle: int | None = None
        self._spare: Path | None = None
        self._written = 0
        self._chain = bytes(_CHAIN_BYTES)
        self.groups: list[Group] = []
        self.end = 0

    # --- recovery ---------------------------------------------------------------------------

    def recover(self) -> bool:
        """Read what is there; False if there is no write-ahead log at all.

        Raises:
            Refusal: EVIDENCE_LOST, if an acknowledged group is damaged or missing.
        """
        make_folders(self._disk, self._folder)
        self.prepare()
        names = [name for name in self._disk.names(self._folder) if name.endswith(".wal")]
        self._next_number = int(names[-1].removesuffix(".wal")) + 1 if names else 0
        read = [self._read_header(self._folder / name) for name in names]
        sound = [segment for segment in read if segment is not None]
        for number, segment in enumerate(sound):
            following = sound[number + 1] if number + 1 < len(sound) else None
            self._take_segment(segment, self._disk.read(segment.path), following)
        return bool(sound)

    def _read_header(self, path: Path) -> _Segment | None:
        """Read a header; None if it never became durable, so that nothing followed it."""
        data = self._disk.read(path, 0, _SEGMENT.size + 1)
        if len(data) >= _SEGMENT.size:
            _, first, chain, _ = _SEGMENT.unpack_from(data)
            if data[: _SEGMENT.size] == _segment_header(first, chain):
                return _Segment(path, first, chain)
        if len(data) > _SEGMENT.size:
            raise _evidence_lost()
        return None

    def _take_segment(self, segment: _Segment, data: bytes, following: _Segment | None) -> None:
        """Take the groups of one segment up to where the following one goes on."""
        if not self._segments:
            self.end, self._chain = segment.first, segment.chain
        elif (self.end, self._chain) != (segment.first, segment.chain):
            raise _evidence_lost()
        at = _SEGMENT.size
        while following is None or (self.end, self._chain) != (following.first, following.chain):
            taken = self._take_group(segment, data, at)
            if taken is None:
                if following is not None or self._holds_later_group(data, at):
                    raise _evidence_lost()
                break
            at = taken
        self._segments.append(segment)

    def _take_group(self, segment: _Segment, data: bytes, at: int) -> int | None:
        """Take the group at `at` if it is whole; return where the next one starts."""
        if len(data) - at < _GROUP.size:
            return None
        first: int
        length: int
        magic, first, count, length, chain = _GROUP.unpack_from(data, at)
        start = at + _GROUP.size
        body = data[start : start + length]
        if magic != _GROUP_MAGIC or first != self.end or len(body) != length:
            return None
        if chain != _chained(self._chain, _FACTS.pack(first, count, length), body):
            return None
        self.groups.append(Group(first, count, segment.path, start, length))
        self.end, self._chain = first + count, chain
        return start + length

    def _holds_later_group(self, data: bytes, at: int) -> bool:
        """Whether a group that was written after the one at `at` follows it.

        A group is written only once the one before is durable, so then that one was acknowledged.
        """
        while (at := data.find(_GROUP_MAGIC, at + 1)) >= 0:
            if len(data) - at >= _GROUP.size and _GROUP.unpack_from(data, at)[1] > self.end:
                return True
        return False

    # --- writing ----------------------------------------------------------------------------

    def begin(self, first: int) -> None:
        """Start an empty log at `first`; only where `recover` found none."""
        with self._lock:
            self.end = first
            self._start_segment()

    def prepare(self) -> None:
        """Lay the next segment out in zeros, unless that is done; without room, do without.

        For one thread at a time; appending goes on meanwhile, and its fsyncs come between ours.
        """
        path, size = self._folder / _SPARE, self._segment_bytes_max
        if self._spare is not None:
            return
        with suppress(OSError):
            self._disk.unlink(path)  # one of an earlier run: whether all of it is zeros is unknown
        if self._disk.free(self._folder) < _ROOM * size:
            return
        try:
            self._lay_out(path, size)
        except OSError:
            with suppress(OSError):
                self._disk.unlink(path)
            return
        self._spare = path

    def _lay_out(self, path: Path, size: int) -> None:
        handle = self._disk.create(path)
        try:
            for at in range(0, size, len(_ZEROS)):
                self._disk.write(handle, _ZEROS[: size - at])
                self._disk.sync(handle)
        finally:
            self._disk.close(handle)

    def append(self, entries: Sequence[Entry]) -> Group:
        """Make entries durable as one group; their indexes start at `end`.

        Raises:
            OSError: nothing was acknowledged; `end` stands, and the next call begins afresh.
        """
        with self._lock:
            if self._handle is None or self._written > self._segment_bytes_max:
                self._start_segment()
            body = _encode_body(entries)
            facts = _FACTS.pack(self.end, len(entries), len(body))
            chain = _chained(self._chain, facts, body)
            handle, at = self._handle, self._written
            assert handle is not None  # _start_segment opened it or raised
            try:
                self._disk.write(handle, _GROUP_MAGIC + facts + chain + body, at)
                self._disk.sync(handle)
            except OSError:
                self._abandon(handle, at)
                raise
            group = Group(
                self.end, len(entries), self._segments[-1].path, at + _GROUP.size, len(body)
            )
            self._written = at + _GROUP.size + len(body)
            self.groups.append(group)  # first: who looks without the lock finds all before `end`
            self.end, self._chain = group.end, chain
            return group

    def _start_segment(self) -> None:
        """Begin a segment that says where it goes on from; durable before it is used."""
        path = self._folder / f"{self._next_number:012d}.wal"
        self._next_number += 1
        # The one before ends here, come what may: a name that was made though we were told it
        # failed would say after a crash that nothing was written behind this point.
        self._close_handle()
        spare = self._spare
        try:
            handle = self._made(path, spare)
        finally:
            # Not before: as long as the spare is ours, `prepare` must let its file alone.
            if spare is not None:
                self._spare = None
        self._handle, self._written = handle, _SEGMENT.size
        self._segments.append(_Segment(path, self.end, self._chain))

    def _made(self, path: Path, spare: Path | None) -> int:
        """Make the file of a segment, out of the spare one if there is one; return its handle."""
        handle = self._disk.create(path) if spare is None else self._disk.reopen(spare)
        try:
            self._disk.write(handle, _segment_header(self.end, self._chain), 0)
            self._disk.sync(handle)
            if spare is not None:
                self._disk.rename(spare, path)
            self._disk.sync_folder(self._folder)
        except OSError:
            self._disk.close(handle)
            self._take_back(path)
            raise
        return handle

    def _take_back(self, path: Path) -> None:
        """Remove a name: else each try on a full disk would leave one more behind."""
        try:
            self._disk.unlink(path)
        except FileNotFoundError:
            return
        except OSError:
            # It goes in its turn, with those before it: alone it would look like lost evidence.
            self._segments.append(_Segment(path, self.end, self._chain))

    def _abandon(self, handle: int, good: int) -> None:
        """Never write behind a failure. The cut only gives space back; void bytes may stay."""
        with suppress(OSError):
            self._disk.truncate(handle, good)
        self._close_handle()

    def _close_handle(self) -> None:
        if self._handle is not None:
            with suppress(OSError):
                self._disk.close(self._handle)
        self._handle = None

    def rotate(self) -> None:
        """Begin a new segment if the current one holds groups, so that it can be dropped."""
        with self._lock:
            if self._handle is not None and self._written > _SEGMENT.size:
                self._start_segment()

    def close(self) -> None:
        """Close the current segment."""
        with self._lock:
            self._close_handle()

    # --- reading and dropping ---------------------------------------------------------------

    def read(self, group: Group) -> list[Entry]:
        """Return a durable group's entries."""
        body = self._disk.read(group.segment, group.offset, group.length)
        if len(body) != group.length:
            raise _evidence_lost()
        return list(_decode_body(body, group.count))

    def entry(self, index: int) -> Entry:
        """Return one durable entry.

        Raises:
            Refusal: NOT_FOUND, if it is not here (any more).
        """
        for group in self.groups:
            if group.first <= index < group.end:
                return self.read(group)[index - group.first]
        raise Refusal(Reason.NOT_FOUND)

    def drop_before(self, index: int) -> None:
        """Delete the segments all of whose entries lie before `index`."""
        with self._lock:
            self.groups = [group for group in self.groups if group.end > index]
            held = {group.segment for group in self.groups}
            while len(self._segments) > 1 and self._segments[0].path not in held:
                # One by one and in order: a gap would look like lost evidence.
                self._disk.unlink(self._segments[0].path)
                self._disk.sync_folder(self._folder)
                del self._segments[0]


def sound_bytes(data: bytes) -> int:
    """Return how many bytes of a segment are its header and whole groups, one behind the other.

    For who reads a segment that is being written: what follows may be a group half there.
    """
    if len(data) < _SEGMENT.size:
        return 0
    _, end, chain, _ = _SEGMENT.unpack_from(data)
    if data[: _SEGMENT.size] != _segment_header(end, chain):
        return 0
    at = _SEGMENT.size
    while len(data) - at >= _GROUP.size:
        magic, first, count, length, sealed = _GROUP.unpack_from(data, at)
        start = at + _GROUP.size
        body = data[start : start + length]
        if magic != _GROUP_MAGIC or first != end or len(body) != length:
            break
        if sealed != _chained(chain, _FACTS.pack(first, count, length), body):
            break
        at, end, chain = start + length, first + count, sealed
    return at
