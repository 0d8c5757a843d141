"""Puts entries into the search index: one writer, who may be another process than who reads it.

What is in the tables is told in audit/search/index.py.
"""

from __future__ import annotations

import sqlite3
from itertools import chain
from typing import TYPE_CHECKING

from audit.search.query import NUMBER_OF_PHASE
from audit.search.words import Occurrences, VerdictSets, words_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from audit.search.query import IndexRow

__all__ = ["IndexWriter", "connected"]

_NO_TRACE = bytes(16)
_ENTRY = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_TOGETHER = 64
"""Entries put in by one statement: a thread lets go of the interpreter once for each of those,
and would wait for it as often while the event loop is busy."""


def connected(path: Path, *, mode: str = "rwc") -> sqlite3.Connection:
    """Open the file; mode `rw` does not make it. Raises sqlite3.OperationalError."""
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        check_same_thread=False,
        isolation_level=None,
    )


class IndexWriter:
    """Writes an index whose tables are there; for one thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Take over a connection."""
        self._connection = connection
        connection.execute("PRAGMA synchronous=NORMAL")  # a connection's, not the file's
        self._verdict_sets = VerdictSets(connection)
        self._occurrences = Occurrences(connection)
        self.size = 0
        """Entries in the index, as far as this writer knows."""
        self.refresh()

    def refresh(self) -> None:
        """Learn what another writer put in meanwhile, or may have. Raises sqlite3.Error."""
        size = int(self._connection.execute("SELECT size FROM meta").fetchone()[0])
        if size != self.size:
            self._forget()
            self.size = size

    def _forget(self) -> None:
        self._verdict_sets.forget()
        self._occurrences.forget()

    def add(self, rows: Sequence[IndexRow], places: Mapping[int, str]) -> None:
        """Put entries in, in one transaction; the first bears the number `size`.

        Args:
            rows: In order of their numbers.
            places: Where the payloads are, by number.

        Raises:
            sqlite3.Error: the disk is full, or a key is there already: nothing was put in.
        """
        try:
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                self._put(rows, places)
        except BaseException:
            self._forget()
            raise
        self.size += len(rows)

    def _put(self, rows: Sequence[IndexRow], places: Mapping[int, str]) -> None:
        ids = [words_of(row) for row in rows]
        values = [
            (
                row.number,
                row.call_id,
                NUMBER_OF_PHASE[row.phase],
                row.trace_id if row.trace_id != _NO_TRACE else None,
                row.time_us,
                places.get(row.number, ""),
                *some,
            )
            for row, some in zip(rows, ids, strict=True)
        ]
        for start in range(0, len(values), _TOGETHER):
            part = values[start : start + _TOGETHER]
            marks = ", ".join([_ENTRY] * len(part))
            self._connection.execute(
                f"INSERT INTO entries VALUES {marks}",  # noqa: S608 -- marks are constants
                [*chain.from_iterable(part)],
            )
        self._verdict_sets.add(rows, ids)
        self._occurrences.add(rows, ids)
        self._connection.execute("UPDATE meta SET size = size + ?", (len(rows),))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
