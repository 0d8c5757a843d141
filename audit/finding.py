"""Finds entries from the moment they are durable: in the index, or on their way into it.

    finder = Finder(index, pending)
    hits = finder.hits(Query(tenant=pseudonym, subjects=(...,), limit=1_000))

Everything here blocks; callers are in a thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from audit.search import BLOCK, Hit, Query, matches

if TYPE_CHECKING:
    from collections.abc import Mapping

    from audit.index import Index
    from audit.search import IndexRow

__all__ = ["Finder"]


class Finder:
    """Looks through one log.

    pending: Entries not yet in the index, by number; it changes while we look.
    """

    def __init__(self, index: Index, pending: Mapping[int, IndexRow]) -> None:
        self._index = index
        self._pending = pending

    def hits(self, query: Query) -> list[Hit]:
        """Find at most `query.limit` entries, in the order asked for, however long it takes.

        Raises:
            Refusal: AUDIT_DOWN, if the index cannot be read.
        """
        return self._found(query, -1)[0]

    def some(self, query: Query, *, scan_max: int) -> tuple[list[Hit], int | None]:
        """Find entries among about the next `scan_max` that may be any.

        Returns:
            At most `query.limit` hits; and behind which entry to go on, None at the end. There may
            be further ones though there are fewer hits than the limit, or none.

        Raises:
            Refusal: AUDIT_DOWN, if the index cannot be read.
        """
        return self._found(query, max(1, scan_max // BLOCK))

    def _found(self, query: Query, blocks_max: int) -> tuple[list[Hit], int | None]:
        # Rows first: what is indexed between the two looks is then found twice, not never.
        rows = [row for row in list(self._pending.values()) if matches(query, row)]
        indexed, position = self._index.search_some(query, blocks_max=blocks_max)
        found = {row.number: Hit(row.number, row.call_id, row.phase, "") for row in rows}
        if position is not None and not query.newest_first:
            found = {}  # they come behind what the index still has
        found |= {hit.number: hit for hit in indexed}
        hits = [found[number] for number in sorted(found, reverse=query.newest_first)]
        if len(hits) > query.limit:
            return hits[: query.limit], hits[query.limit - 1].number
        return hits, position
