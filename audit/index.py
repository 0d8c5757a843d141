"""Finds records by call and by trace: an SQLite file that can be made again from the log.

    calls    (call_id, phase) -> index, tenant pseudonym, where the payload is
    traces   (tenant pseudonym, trace_id, index)
    meta     size: how many entries of the log are in here; origin: of which log

It also is the memory of what was appended before (`find`), and so keeps exactly-once over restarts:
at the start, whatever the log and the write-ahead log hold beyond `size` is put in. Losing the file
costs about 10 µs an entry to make it again. It is not fsynced for each write (WAL mode,
synchronous=NORMAL): after a power loss it may be behind, never torn.
"""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meshkit.contract import Phase, Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["Index", "IndexRow", "Place"]

_PHASES = (Phase.INTENT, Phase.OUTCOME, Phase.NOTE)
_NUMBER = {phase: number for number, phase in enumerate(_PHASES)}
_SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
  call_id BLOB NOT NULL, phase INTEGER NOT NULL, number INTEGER NOT NULL, tenant TEXT NOT NULL,
  payload TEXT, PRIMARY KEY (call_id, phase)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS traces (
  tenant TEXT NOT NULL, trace_id BLOB NOT NULL, number INTEGER NOT NULL,
  PRIMARY KEY (tenant, trace_id, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta (
  one INTEGER PRIMARY KEY CHECK (one = 1), origin TEXT, size INTEGER);
"""


@dataclass(frozen=True, slots=True)
class IndexRow:
    """An entry, as the index needs it.

    `received_us` (UTC, microseconds) picks the payload's partition and is not stored here.
    """

    number: int
    call_id: bytes
    phase: Phase
    tenant: str
    trace_id: bytes
    received_us: int


@dataclass(frozen=True, slots=True)
class Place:
    """What the index knows of an entry."""

    number: int
    phase: Phase
    payload: str


class Index:
    """One log's index. `add` runs in one thread; look-ups have a connection of their own."""

    def __init__(self, path: Path, origin: str) -> None:
        self._path = path
        self._origin = origin
        self._reading = threading.Lock()
        self._writer = self._open()
        self._reader = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self.size = self._load_size()

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.OperationalError:  # the disk is full or fails; what is there may be sound
            raise Refusal(Reason.AUDIT_DOWN) from None
        except sqlite3.DatabaseError:
            # Not a database any more: the log has all that was in it.
            self._remove_files()
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.executescript(_SCHEMA)
        connection.execute("SELECT origin, size FROM meta").fetchone()  # readable, or else
        return connection

    def _remove_files(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def _load_size(self) -> int:
        row = self._writer.execute("SELECT origin, size FROM meta").fetchone()
        if row is None or row[0] != self._origin:
            self.clear()
            return 0
        return int(row[1])

    def clear(self) -> None:
        """Forget everything; the caller fills it again from the log."""
        with self._writer:
            self._writer.execute("BEGIN")
            for table in ("calls", "traces", "meta"):
                self._writer.execute(f"DELETE FROM {table}")  # noqa: S608 -- constants
            self._writer.execute("INSERT INTO meta VALUES (1, ?, 0)", (self._origin,))
        self.size = 0

    def rebuild(self) -> None:
        """Begin with an empty file, whatever is in the old one.

        Raises:
            Refusal: AUDIT_DOWN, if the disk is full or fails.
        """
        self.close()
        self._remove_files()
        self._writer = self._open()
        self._reader = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
        self.size = self._load_size()

    def close(self) -> None:
        """Close both connections."""
        self._reader.close()
        self._writer.close()

    def add(self, rows: Sequence[IndexRow], places: Mapping[int, str]) -> None:
        """Put entries in, in one transaction; the first bears the number `size`.

        Args:
            rows: In order of their numbers.
            places: Where the payloads are, by number.

        Raises:
            sqlite3.Error: the disk is full, or a key is there already: nothing was put in.
        """
        with self._writer:
            self._writer.execute("BEGIN IMMEDIATE")
            self._writer.executemany(
                "INSERT INTO calls VALUES (?, ?, ?, ?, ?)",
                [
                    (r.call_id, _NUMBER[r.phase], r.number, r.tenant, places.get(r.number, ""))
                    for r in rows
                ],
            )
            self._writer.executemany(
                "INSERT INTO traces VALUES (?, ?, ?)",
                [(row.tenant, row.trace_id, row.number) for row in rows],
            )
            self._writer.execute("UPDATE meta SET size = size + ?", (len(rows),))
        self.size += len(rows)

    def _ask(self, question: str, *values: bytes | int | str) -> list[Any]:
        with self._reading:  # look-ups come from several threads
            return self._reader.execute(question, values).fetchall()

    def find(self, call_id: bytes, phase: Phase) -> Place | None:
        """Return where an event is; about 10 µs.

        Raises:
            Refusal: AUDIT_DOWN, if the file cannot be read: the event may be there.
        """
        try:
            rows = self._ask(
                "SELECT number, payload FROM calls WHERE call_id = ? AND phase = ?",
                call_id,
                _NUMBER[phase],
            )
        except sqlite3.Error:
            raise Refusal(Reason.AUDIT_DOWN) from None
        return Place(rows[0][0], phase, rows[0][1]) if rows else None

    def by_call(self, tenant: str, call_id: bytes) -> list[Place]:
        """Return a call's entries, within the tenant (pseudonym)."""
        rows = self._ask(
            "SELECT number, phase, payload FROM calls WHERE call_id = ? AND tenant = ?",
            call_id,
            tenant,
        )
        return [Place(row[0], _PHASES[row[1]], row[2]) for row in rows]

    def by_trace(self, tenant: str, trace_id: bytes, limit: int) -> list[int]:
        """Return the numbers of a trace's entries, within the tenant (pseudonym)."""
        rows = self._ask(
            "SELECT number FROM traces WHERE tenant = ? AND trace_id = ? ORDER BY number LIMIT ?",
            tenant,
            trace_id,
            limit,
        )
        return [row[0] for row in rows]

    def newest_call(self) -> bytes:
        """Return the largest call id; empty if there is none."""
        newest: bytes | None = self._ask("SELECT max(call_id) FROM calls")[0][0]
        return newest or b""
