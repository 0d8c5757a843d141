"""Finds records by call, by trace and by what they say: an SQLite file made of the log alone.

    entries    number -> call_id, phase, trace_id, time, payload's place, and its words as numbers
               (audit/search/words.py); by (call_id, phase), which is unique, and (tenant, trace_id)
    verdicts   a word of the kind `verdicts` is a set: here by the types and actions in it
    terms_in   (word, block): this word occurs among these 1,024 entries
    spans      block -> earliest and latest time
    meta       size: how many entries of the log are in here; origin: of which log

A search reads the blocks in which all its words occur, and no others. So an entry costs two index
insertions, whatever may be searched for, and a rare word is found as quickly as a frequent one.

It also is the memory of what was appended before (`find`), and so keeps exactly-once over restarts:
at the start, whatever the log and the write-ahead log hold beyond `size` is put in. It is not
fsynced for each write (WAL mode, synchronous=NORMAL): after a power loss it may be behind, never
torn. A file of another `SCHEMA_VERSION`, of another log or that is no database is begun anew, and
filled from the log alone; docs/search.md tells what an entry costs.
"""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from audit.search.query import (
    BLOCK,
    KINDS,
    NUMBER_OF_PHASE,
    PHASES,
    Hit,
    IndexRow,
    blocks_asked,
    entries_asked,
    filters_of,
)
from audit.search.words import number_of
from audit.search.writer import IndexWriter, connected
from meshkit.contract import Phase, Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from audit.search.query import Query

__all__ = ["SCHEMA_VERSION", "Index", "IndexRow", "Place"]

SCHEMA_VERSION = 2
"""Kept in the file as `PRAGMA user_version`; a file with another one is dropped and made again."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
  number INTEGER PRIMARY KEY, call_id BLOB NOT NULL, phase INTEGER NOT NULL, trace_id BLOB,
  time_us INTEGER NOT NULL, payload TEXT NOT NULL, subject INTEGER, user INTEGER, actor INTEGER,
  verdicts INTEGER, model INTEGER, outcome INTEGER, action INTEGER, tenant INTEGER NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS calls ON entries (call_id, phase);
CREATE INDEX IF NOT EXISTS traces ON entries (tenant, trace_id) WHERE trace_id IS NOT NULL;
CREATE TABLE IF NOT EXISTS verdicts (
  tenant INTEGER NOT NULL, type TEXT NOT NULL, action TEXT NOT NULL, word INTEGER NOT NULL,
  PRIMARY KEY (tenant, type, action, word)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS terms_in (
  term INTEGER NOT NULL, block INTEGER NOT NULL, PRIMARY KEY (term, block)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS spans (
  block INTEGER PRIMARY KEY, first_us INTEGER NOT NULL, last_us INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS meta (
  one INTEGER PRIMARY KEY CHECK (one = 1), origin TEXT NOT NULL, size INTEGER NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Place:
    """What the index knows of an entry."""

    number: int
    phase: Phase
    payload: str


class Index:
    """One log's index. `add` runs in one thread, or in another process (audit/log/mover.py).

    Look-ups have a connection of their own, and searches another: a long one holds up no append.
    """

    def __init__(self, path: Path, origin: str) -> None:
        self._path = path
        self._origin = origin
        self._reading = threading.Lock()
        self._searching = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self._writer = IndexWriter(self._open())
        self._reader = connected(self._path)
        self._searcher = connected(self._path)

    def _open(self) -> sqlite3.Connection:
        try:
            connection = connected(self._path)
            if self._is_ours(connection):
                return self._made(connection)
            connection.close()
        except sqlite3.OperationalError:  # the disk is full or fails; what is there may be sound
            raise Refusal(Reason.AUDIT_DOWN) from None
        except sqlite3.DatabaseError:
            # Not a database any more: the log has all that was in it.
            connection.close()
        self._remove_files()
        return self._made(connected(self._path))

    def _is_ours(self, connection: sqlite3.Connection) -> bool:
        """Tell whether a file is new, or of this schema and this log, and readable."""
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if version != SCHEMA_VERSION or not tables:
            return not tables
        origin = connection.execute("SELECT origin FROM meta").fetchone()
        return origin is not None and origin[0] == self._origin

    def _made(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        connection.execute("PRAGMA journal_mode=WAL")
        # One transaction: a crash leaves either no tables or all of them.
        begun = f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        connection.executescript(begun)
        connection.execute("INSERT OR IGNORE INTO meta VALUES (1, ?, 0)", (self._origin,))
        return connection

    def _remove_files(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def rebuild(self) -> None:
        """Begin with an empty file, whatever is in the old one.

        Raises:
            Refusal: AUDIT_DOWN, if the disk is full or fails.
        """
        self.close()
        self._remove_files()
        self._begin()

    def close(self) -> None:
        """Close all connections."""
        for connection in (self._searcher, self._reader, self._writer):
            connection.close()

    @property
    def size(self) -> int:
        """How many entries of the log are in here."""
        return self._writer.size

    def refresh(self) -> None:
        """Learn what another process put in. Raises sqlite3.Error."""
        self._writer.refresh()

    def add(self, rows: Sequence[IndexRow], places: Mapping[int, str]) -> None:
        """Put entries in: see `IndexWriter.add`."""
        self._writer.add(rows, places)

    # --- look-ups ---------------------------------------------------------------------------

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
                "SELECT number, payload FROM entries WHERE call_id = ? AND phase = ?",
                call_id,
                NUMBER_OF_PHASE[phase],
            )
        except sqlite3.Error:
            raise Refusal(Reason.AUDIT_DOWN) from None
        return Place(rows[0][0], phase, rows[0][1]) if rows else None

    def newest_call(self) -> bytes:
        """Return the largest call id; empty if there is none."""
        newest: bytes | None = self._ask("SELECT max(call_id) FROM entries")[0][0]
        return newest or b""

    # --- search -----------------------------------------------------------------------------

    def search(self, query: Query) -> list[Hit]:
        """Find at most `query.limit` entries, in the order asked for, however long it takes.

        Raises:
            Refusal: AUDIT_DOWN, if the file cannot be read.
        """
        hits, _ = self.search_some(query, blocks_max=-1)
        return hits

    def search_some(self, query: Query, *, blocks_max: int) -> tuple[list[Hit], int | None]:
        """Find entries among the next `blocks_max` blocks that may hold any (-1: among all).

        Returns:
            At most `query.limit` hits; and behind which entry to go on, None at the end.

        Raises:
            Refusal: AUDIT_DOWN, if the file cannot be read.
        """
        try:
            with self._searching:
                return self._search(query, blocks_max)
        except sqlite3.Error:
            raise Refusal(Reason.AUDIT_DOWN) from None

    def _search(self, query: Query, blocks_max: int) -> tuple[list[Hit], int | None]:
        ids = self._ids(query)
        if not all(some for _, some in ids):
            return [], None  # a word that no entry has
        if query.by_key:
            hits = self._hits(entries_asked(query, ids, None, query.limit))
            return hits, hits[-1].number if len(hits) == query.limit else None
        most = -1 if blocks_max < 0 else blocks_max + 1
        blocks = [row[0] for row in self._searcher.execute(*blocks_asked(query, ids, most))]
        found: list[Hit] = []
        for block in blocks[:blocks_max] if blocks_max >= 0 else blocks:
            found += self._hits(entries_asked(query, ids, block, query.limit - len(found)))
            if len(found) == query.limit:
                return found, found[-1].number
        if blocks_max < 0 or len(blocks) <= blocks_max:
            return found, None
        # The block that was left out is where the next page goes on.
        left = blocks[blocks_max]
        return found, (left + 1) * BLOCK if query.newest_first else left * BLOCK - 1

    def _hits(self, asked: tuple[str, list[Any]]) -> list[Hit]:
        rows = self._searcher.execute(*asked).fetchall()
        return [Hit(row[0], row[1], PHASES[row[2]], row[3]) for row in rows]

    def _ids(self, query: Query) -> list[tuple[str, list[int]]]:
        """Number the words of a query; what narrows most comes first."""
        asked = {
            each.kind: [number_of(each.kind, query.tenant, word) for word in each.values]
            for each in filters_of(query)
        }
        if not query.any_verdict:
            asked["verdicts"] = self._sets_with(query)
        return [(kind, asked[kind]) for kind in KINDS if kind in asked]

    def _sets_with(self, query: Query) -> list[int]:
        kind, action = query.verdict_type, query.verdict_action
        rows = self._searcher.execute(
            "SELECT DISTINCT word FROM verdicts"
            " WHERE tenant = ? AND (? = '' OR type = ?) AND (? = '' OR action = ?)",
            (number_of("tenant", query.tenant, query.tenant), kind, kind, action, action),
        )
        return [row[0] for row in rows]
