"""Finds entries from the moment they are durable: in the index, or on their way into it.

    finder = Finder(index, pending)
    hits = finder.hits(Query(tenant=pseudonym, subjects=(...,), limit=1_000))
    records = RecordFinder(finder, leaf_of).all(query)

Everything but `people_of` blocks; callers are in a thread.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from audit.search.query import BLOCK, Hit, Query, matches
from audit.search.questions import Page, People, position_in, query_of, token_of
from audit.search.rows import row_of
from meshkit.contract import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from audit.keys.pseudonyms import Kind, Pseudonyms
    from audit.log.parts import Parts
    from audit.search.index import Index
    from audit.search.query import IndexRow
    from audit.search.questions import Question

__all__ = ["Finder", "RecordFinder", "people_of", "searched"]

_PAGE_RECORDS = 100
"""In a page, where nothing is said."""


async def searched(
    parts: Parts, finder: RecordFinder, asked: tuple[str, Question], page_size: int, page_token: str
) -> Page:
    """Find a page of a tenant's records: see `audit.log.appender.AuditLog.search`."""
    tenant, question = asked
    question.check()
    after = position_in(question, tenant, page_token)
    people = await people_of(parts.pseudonyms, tenant, question)
    limit = min(page_size or _PAGE_RECORDS, parts.settings.search_page_records_max)
    pseudonym = parts.pseudonyms.tenant(tenant)
    query = query_of(question, pseudonym, people, after=after, limit=limit)
    records, position = await asyncio.to_thread(
        finder.page,
        query,
        scan_max=parts.settings.search_scan_events_max,
        bytes_max=parts.settings.search_page_bytes_max,
    )
    more = "" if position is None else token_of(question, tenant, position)
    return Page(records=records, next_token=more)


async def people_of(pseudonyms: Pseudonyms, tenant: str, question: Question) -> People:
    """Return the pseudonyms of whom a question names, under every key that is left.

    Raises:
        Refusal: KEYS_DOWN, rather than an answer that lacks some.
    """

    async def all_of(kind: Kind, name: str) -> tuple[str, ...] | None:
        return tuple(await pseudonyms.all_of(kind, tenant, name)) if name else None

    return People(
        actors=await all_of("workload", question.actor),
        users=await all_of("user", question.user),
        subjects=await all_of("subject", question.subject),
    )


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
        if position is not None:
            # Others come behind what the index still has, or have come into it: on a later page.
            newest = query.newest_first
            found = {number: hit for number, hit in found.items() if newest and number >= position}
        found |= {hit.number: hit for hit in indexed}
        hits = [found[number] for number in sorted(found, reverse=query.newest_first)]
        if len(hits) > query.limit:
            return hits[: query.limit], hits[query.limit - 1].number
        return hits, position


class RecordFinder:
    """Finds records, and looks into each before it is given out.

    leaf_of: Reads a durable entry's leaf.
    """

    def __init__(self, finder: Finder, leaf_of: Callable[[int], bytes]) -> None:
        self._finder = finder
        self._leaf_of = leaf_of

    def all(self, query: Query) -> tuple[Record, ...]:
        """Find at most `query.limit` records, in the order asked for, however long it takes.

        Raises:
            Refusal: AUDIT_DOWN, if the index cannot be read; EVIDENCE_LOST, if the log cannot.
        """
        found = (self._read(query, hit.number) for hit in self._finder.hits(query))
        return tuple(record for record in found if record is not None)

    def page(
        self, query: Query, *, scan_max: int, bytes_max: int
    ) -> tuple[tuple[Record, ...], int | None]:
        """Find and read some, within bounds on the work and on the leaves' size.

        Args:
            query: What to find; at most `query.limit` records.
            scan_max: About so many entries are looked at.
            bytes_max: Once there are so many bytes of leaves, the page is full.

        Returns:
            Records, maybe none; and behind which entry to go on, None at the end.

        Raises:
            Refusal: as `all`.
        """
        hits, position = self._finder.some(query, scan_max=scan_max)
        records: list[Record] = []
        size = 0
        for hit in hits:
            record = self._read(query, hit.number)
            if record is None:
                continue
            records.append(record)
            size += len(record.leaf)
            if size >= bytes_max and hit is not hits[-1]:
                return tuple(records), hit.number
        return tuple(records), position

    def _read(self, query: Query, number: int) -> Record | None:
        """Read an entry; None if its leaf is not what was asked for: the index knows 8 bytes of it.

        So nothing of another tenant leaves, whatever the index says.
        """
        leaf = self._leaf_of(number)
        row = row_of(number, leaf)
        if not matches(replace(query, after=None), row):
            return None
        return Record(index=number, phase=row.phase, leaf=leaf)
