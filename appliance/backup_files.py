"""What a backup holds, and in which order it is read from an installation that goes on working.

Everything under the data folder, but for what stands in `_MADE_ANEW` (it is made again by itself)
and in `_APART` (whoever has it and the rest has every key: `sealgate backup seal-key`).

The order makes one moment of it, though nothing stops:

    1  the segments of the write-ahead log get a second name, those of now and, until 5, new ones:
       so none is lost to us when it is dropped
    2  the published checkpoint C is read; the log is copied as it was at C
    3  sealed payloads are copied: all of events before what comes next
    4  OpenBao's snapshot: it holds the lock's checkpoint L, and C <= L
    5  the write-ahead log again, up to E: what the lock knows was durable before, so L <= E
    6  all the rest, wrapped keys among it: after E, so that no event lacks the key it is sealed by

So a restored disk has C <= L <= E, with every entry from C to E in its write-ahead log: the start
goes on from there as after a crash (audit/log/recovery.py), and no payload belongs to an index that
will be given to somebody else. A data key wrapped by a version that the snapshot lacks would be
lost: versions are asked before 4 and after 6. If one was rotated between, or a segment of the
write-ahead log came and went unseen, all of it is done again.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from audit.log.disk import Disk
from audit.log.wal import Wal, sound_bytes
from meshkit.contract import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


__all__ = ["Source", "Staged", "walked"]

_MADE_ANEW = (
    "audit/index.sqlite*",
    "audit/mirror.sqlite*",
    "audit/writer.lock",
    "audit/mover.lock",
    "audit/log/*",  # as of one checkpoint: see `Source.log`
    "audit/wal/*",
    "audit/pending/*",
    "audit/key-orders/*",  # or a restore would carry them out again
    "audit/payloads/*",
    "openbao/raft/*",  # as a snapshot
    "openbao/tls/*",
    "openbao/lock",
    "openbao/openbao.log*",
    "redis/*",
    "services/*",
    "tls/*",
    "tls-auditor/*",
    "tls-privacy/*",
    "tls-models/*",
    "lock",
    "ready.json",
    "appliance.log",
)
_APART = ("openbao/seal.key", "openbao/init.json")
_SPARE_BYTES = 4_096
"""Of the spare segment that reading a write-ahead log lays out: nothing is written to it."""
_SQLITE_BESIDE = ("-wal", "-shm", "-journal")


@dataclass(frozen=True, slots=True)
class Staged:
    """A file to be taken: its path in the backup, and where its bytes are now."""

    name: str
    path: Path
    bytes: int
    """As long as it was then: what is added later stays out."""


def walked(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder, sorted, but those that are being written (`.name`)."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                path = Path(root, name)
                if path.is_file() and not path.is_symlink():
                    yield path


def _wanted(name: str) -> bool:
    if name.endswith(_SQLITE_BESIDE):
        return False
    return not any(fnmatchcase(name, pattern) for pattern in (*_MADE_ANEW, *_APART))


@dataclass(frozen=True, slots=True)
class Source:
    """An installation's data folder, and an empty folder on the same disk to prepare things in."""

    data: Path
    staging: Path

    def stage_wal(self) -> None:
        """Give every segment a second name; those already named keep theirs. Call it often."""
        folder = self.staging / "wal"
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted((self.data / "audit" / "wal").glob("*.wal")):
            if not (folder / path.name).exists():
                _linked(path, folder / path.name)

    def stage_wal_end(self, size: int) -> list[Staged]:
        """Hold the write-ahead log up to its last whole group of now; oldest segment first.

        Raises:
            Refusal: EVIDENCE_LOST, if it does not go on without a gap from a log of `size`
                entries: a segment was begun and dropped again between two calls of `stage_wal`.
        """
        self.stage_wal()
        names = [path.name for path in sorted((self.staging / "wal").glob("*.wal"))]
        folder = self.staging / "wal-end"
        folder.mkdir()
        for name in names[:-1]:
            (folder / name).hardlink_to(self.staging / "wal" / name)
        for name in names[-1:]:
            data = (self.staging / "wal" / name).read_bytes()
            (folder / name).write_bytes(data[: sound_bytes(data)])
        wal = Wal(Disk(), folder, segment_bytes_max=_SPARE_BYTES)
        wal.recover()
        first = wal.groups[0].first if wal.groups else wal.end
        if not first <= size <= wal.end:
            raise Refusal(Reason.EVIDENCE_LOST)
        return [_staged(f"audit/wal/{name}", folder / name) for name in names]

    def stage_payloads(self) -> list[Staged]:
        """Hold the payload files that there are now, and how long each is."""
        return self._hold(self.data / "audit" / "payloads", self.staging / "payloads", bool)

    def stage_rest(self) -> list[Staged]:
        """Hold all other files as they are now: by second names, databases by a copy."""
        return self._hold(self.data, self.staging / "rest", _wanted)

    def _hold(self, below: Path, folder: Path, wanted: Callable[[str], bool]) -> list[Staged]:
        folder.mkdir()
        held = []
        for number, path in enumerate(walked(below)):
            name = path.relative_to(self.data).as_posix()
            if not wanted(name):
                continue
            target = folder / str(number)
            if name.endswith(".sqlite"):
                _copied_database(path, target)
            else:
                _linked(path, target)
            if target.exists():
                held.append(_staged(name, target))
        return held


def _staged(name: str, path: Path) -> Staged:
    return Staged(name, path, path.stat().st_size)


def _linked(path: Path, target: Path) -> None:
    try:
        target.hardlink_to(path)
    except FileNotFoundError:
        return  # it went meanwhile: it is not part of this moment
    except FileExistsError:
        return  # named by another thread of ours


def _copied_database(path: Path, target: Path) -> None:
    """Copy a database that is in use, whole."""
    with (
        closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as source,
        closing(sqlite3.connect(target)) as copy,
    ):
        source.backup(copy)
