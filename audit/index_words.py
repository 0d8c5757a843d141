"""The dictionary of the search index: words become numbers, and where each occurs is kept.

One writer. Both parts keep in memory what they have put into the file, so after a transaction that
was rolled back they must `forget`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from audit.search import BLOCK, KINDS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from audit.search import IndexRow

__all__ = ["Ids", "Occurrences", "Words"]

Ids = tuple[int | None, ...]
"""An entry's words as numbers, in the order of `KINDS`; None for one that it has not."""

_VERDICTS = KINDS.index("verdicts")
_TENANT = KINDS.index("tenant")
_REMEMBERED_MAX = 32_768
"""Words and combinations of words kept in memory: some 200 bytes each."""

_FIND = "SELECT number FROM words WHERE tenant = ? AND kind = ? AND word = ?"
_PUT = "INSERT INTO words (tenant, kind, word) VALUES (?, ?, ?)"
_PUT_VERDICT = "INSERT INTO verdicts VALUES (?, ?, ?)"
_PUT_TERM = "INSERT OR IGNORE INTO terms_in VALUES (?, ?)"
_PUT_SPAN = (
    "INSERT INTO spans VALUES (?, ?, ?) ON CONFLICT (block) DO UPDATE SET "
    "first_us = min(first_us, excluded.first_us), last_us = max(last_us, excluded.last_us)"
)


class Words:
    """Gives words their numbers. Few combinations of them, many entries: one look-up each."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._combined: dict[tuple[object, ...], Ids] = {}
        self._known: dict[tuple[str, int, str], int] = {}

    def forget(self) -> None:
        """Remember nothing: what was put in may have been taken back."""
        self._combined.clear()
        self._known.clear()

    def of(self, row: IndexRow) -> Ids:
        """Return the numbers of a row's words, in the order of `KINDS`."""
        key = row.words
        ids = self._combined.get(key)
        if ids is None:
            if len(self._combined) >= _REMEMBERED_MAX:
                self._combined.clear()
            ids = self._combined[key] = self._looked_up(row)
        return ids

    def _looked_up(self, row: IndexRow) -> Ids:
        named = (row.subject, row.user, row.actor, "", row.model, row.outcome, row.action)
        ids = [
            self._number(row.tenant, kind, word) if word else None
            for kind, word in enumerate(named)
        ]
        ids.append(self._number(row.tenant, _TENANT, ""))
        if row.verdicts:
            ids[_VERDICTS] = self._verdicts(row)
        return tuple(ids)

    def _verdicts(self, row: IndexRow) -> int:
        # Labels hold neither space nor comma.
        word = ",".join(f"{kind} {action}" for kind, action in row.verdicts)
        before = self._find(row.tenant, _VERDICTS, word)
        if before is not None:
            return before
        number = self._number(row.tenant, _VERDICTS, word)
        rows = [(number, kind, action) for kind, action in row.verdicts]
        self._connection.executemany(_PUT_VERDICT, rows)
        return number

    def _find(self, tenant: str, kind: int, word: str) -> int | None:
        found = self._connection.execute(_FIND, (tenant, kind, word)).fetchone()
        return None if found is None else int(found[0])

    def _number(self, tenant: str, kind: int, word: str) -> int:
        key = (tenant, kind, word)
        number = self._known.get(key)
        if number is None:
            number = self._find(tenant, kind, word)
            if number is None:
                number = self._connection.execute(_PUT, key).lastrowid
                assert number is not None  # an INSERT has one
            if len(self._known) >= _REMEMBERED_MAX:
                self._known.clear()
            self._known[key] = number
        return number


class Occurrences:
    """Keeps which words occur in which blocks, and what time a block spans."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._last = -1
        self._noted: set[int] = set()
        """Words that are known to occur in the last block."""

    def forget(self) -> None:
        """Remember nothing: what was put in may have been taken back."""
        self._last, self._noted = -1, set()

    def add(self, rows: Iterable[IndexRow], ids: Iterable[Ids]) -> None:
        """Note rows, in order of their numbers, with their words."""
        blocks: dict[int, tuple[set[Ids], list[int]]] = {}
        for row, some in zip(rows, ids, strict=True):
            combined, times = blocks.setdefault(row.number // BLOCK, (set(), []))
            combined.add(some)
            times.append(row.time_us)
        for block, (combined, times) in blocks.items():
            self._note(block, {word for some in combined for word in some if word is not None})
            self._connection.execute(_PUT_SPAN, (block, min(times), max(times)))

    def _note(self, block: int, words: set[int]) -> None:
        if block != self._last:
            self._last, self._noted = block, set()
        new = words - self._noted
        self._connection.executemany(_PUT_TERM, [(word, block) for word in sorted(new)])
        self._noted |= new
