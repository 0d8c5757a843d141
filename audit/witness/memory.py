"""What a witness cosigned last, for each log: one row of SQLite, replaced by compare-and-swap.

The whole promise of a witness is that this only grows: `advance` checks and writes in one
transaction, and it is on the disk (`synchronous=FULL`) before it returns.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["EMPTY", "MEMORY", "Seen", "WitnessMemory"]

MEMORY = "witness.sqlite"


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest checkpoint cosigned: size in leaves, root (32 bytes; empty at size 0), note."""

    size: int
    root: bytes
    note: str


EMPTY = Seen(0, b"", "")


class WitnessMemory:
    """One file; methods block, and belong to one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Open or make it.

        Raises:
            sqlite3.Error: it cannot be read or written.
        """
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("PRAGMA busy_timeout=5000")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS seen (origin TEXT PRIMARY KEY, size INTEGER NOT NULL,"
            " root BLOB NOT NULL, note TEXT NOT NULL, time_s INTEGER NOT NULL) WITHOUT ROWID"
        )

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def last(self, origin: str) -> Seen:
        """Return what was cosigned last; `EMPTY` if nothing was."""
        row = self._db.execute(
            "SELECT size, root, note FROM seen WHERE origin = ?", (origin,)
        ).fetchone()
        return EMPTY if row is None else Seen(*row)

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Return size and time (POSIX seconds) of what was cosigned last, by origin."""
        rows = self._db.execute("SELECT origin, size, time_s FROM seen")
        return {origin: (size, time_s) for origin, size, time_s in rows}

    def advance(self, origin: str, old: Seen, new: Seen, time_s: int) -> bool:
        """Replace `old` by `new`; False if something else was there meanwhile.

        When this returns True, `new` MUST be on stable storage.

        Raises:
            sqlite3.Error: it may or may not have been written; nothing may be cosigned.
        """
        if old == EMPTY:
            done = self._db.execute(
                "INSERT INTO seen VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (origin, new.size, new.root, new.note, time_s),
            )
        else:
            done = self._db.execute(
                "UPDATE seen SET size = ?, root = ?, note = ?, time_s = ?"
                " WHERE origin = ? AND size = ? AND root = ?",
                (new.size, new.root, new.note, time_s, origin, old.size, old.root),
            )
        return done.rowcount == 1
