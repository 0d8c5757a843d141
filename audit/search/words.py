"""Words of the search index as numbers, and in which blocks of entries each occurs.

A pseudonym is random already: its first 8 bytes are its number. A label's is 8 bytes of SHA-256 of
tenant, kind and label. So there is no dictionary to keep. Two words may bear one number (of 10
million people of a tenant, any two with a probability of 3 in a million): whoever must not mistake
one for another looks into the leaf, as every record that leaves the service is looked into.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING

from audit.search.query import BLOCK, KINDS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from audit.search.query import IndexRow

__all__ = ["Ids", "Occurrences", "VerdictSets", "number_of", "words_of"]

Ids = tuple[int | None, ...]
"""An entry's words as numbers, in the order of `KINDS`; None for one that it has not."""

_PSEUDONYMS = frozenset({"subject", "user", "actor", "tenant"})
_COMBINED_MAX = 8_192
_HALF = 1 << 63

_PUT_VERDICT = "INSERT OR IGNORE INTO verdicts VALUES (?, ?, ?, ?)"
_PUT_TERM = "INSERT OR IGNORE INTO terms_in VALUES (?, ?)"
_PUT_SPAN = (
    "INSERT INTO spans VALUES (?, ?, ?) ON CONFLICT (block) DO UPDATE SET "
    "first_us = min(first_us, excluded.first_us), last_us = max(last_us, excluded.last_us)"
)


def number_of(kind: str, tenant: str, word: str) -> int:
    """Return a word's number: 64 bits with a sign, as SQLite has them. The tenant's own may be ''.

    Raises:
        ValueError: a pseudonym is not hexadecimal.
    """
    if kind in _PSEUDONYMS and word:
        return int(word[:16], 16) - _HALF
    return _hashed(kind, tenant, word)


@lru_cache(maxsize=_COMBINED_MAX)
def _hashed(*words: str) -> int:
    return int.from_bytes(sha256("\0".join(words).encode()).digest()[:8], signed=True)


def words_of(row: IndexRow) -> Ids:
    """Return the numbers of a row's words, in the order of `KINDS`: about 1 µs."""
    subject, user, actor = row.subject, row.user, row.actor
    return (
        int(subject[:16], 16) - _HALF if subject else None,
        int(user[:16], 16) - _HALF if user else None,
        int(actor[:16], 16) - _HALF if actor else None,
        *_labels(row.tenant, row.verdicts, row.model, row.outcome, row.action),
    )


@lru_cache(maxsize=_COMBINED_MAX)
def _labels(
    tenant: str, verdicts: tuple[tuple[str, str], ...], model: str, outcome: str, action: str
) -> Ids:
    """Number what is much the same from entry to entry; the tenant comes last."""
    # Labels hold neither space nor comma.
    written = ",".join(f"{kind} {action}" for kind, action in verdicts)
    named = zip(KINDS[3:7], (written, model, outcome, action), strict=True)
    ids = [number_of(kind, tenant, word) if word else None for kind, word in named]
    return (*ids, number_of("tenant", tenant, tenant))


class VerdictSets:
    """Keeps which types and actions a set of verdicts holds; one writer.

    After a transaction that was rolled back it must `forget`.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._known: set[int] = set()

    def forget(self) -> None:
        """Remember nothing: what was put in may have been taken back."""
        self._known.clear()

    def add(self, rows: Iterable[IndexRow], ids: Iterable[Ids]) -> None:
        """Keep the rows' sets that are new."""
        for row, (_, _, _, word, *_, tenant) in zip(rows, ids, strict=True):
            if word is None or word in self._known:
                continue
            if len(self._known) >= _COMBINED_MAX:
                self._known.clear()
            self._known.add(word)
            some = [(tenant, kind, action, word) for kind, action in row.verdicts]
            self._connection.executemany(_PUT_VERDICT, some)


class Occurrences:
    """Keeps which words occur in which blocks, and what time a block spans; one writer.

    After a transaction that was rolled back it must `forget`.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._last = -1
        self._noted: set[int | None] = set()
        """Words that are known to occur in the last block."""

    def forget(self) -> None:
        """Remember nothing: what was put in may have been taken back."""
        self._last, self._noted = -1, set()

    def add(self, rows: Iterable[IndexRow], ids: Iterable[Ids]) -> None:
        """Note rows, in order of their numbers, with their words."""
        blocks: dict[int, tuple[set[int | None], list[int]]] = {}
        for row, some in zip(rows, ids, strict=True):
            words, times = blocks.setdefault(row.number // BLOCK, (set(), []))
            words.update(some)
            times.append(row.time_us)
        for block, (words, times) in blocks.items():
            self._note(block, words)
            self._connection.execute(_PUT_SPAN, (block, min(times), max(times)))

    def _note(self, block: int, words: set[int | None]) -> None:
        if block != self._last:
            self._last, self._noted = block, {None}
        new = words - self._noted
        self._connection.executemany(_PUT_TERM, [(word, block) for word in new])
        self._noted |= new
