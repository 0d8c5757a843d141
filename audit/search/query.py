"""What an auditor may search for, as a value; and how the index is asked for it. PURE.

    Query       within one tenant, by pseudonyms: what the index knows
    Hit         an entry that fits
    matches     whether a row fits a query: for entries that are not yet in the index

Order is that of the log: by index, newest or oldest first. Entries are only ever added at the end,
so the pages of a search never skip or repeat a record. A search is always within one tenant.
audit/search/questions.py has the same with names instead of pseudonyms, and the page tokens.

Statements hold parameters alone; what varies in their text is chosen here, from constants.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from meshkit.contract import Phase

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "BLOCK",
    "KINDS",
    "NUMBER_OF_PHASE",
    "PHASES",
    "Filter",
    "Hit",
    "IndexRow",
    "Query",
    "blocks_asked",
    "entries_asked",
    "filters_of",
    "matches",
]

PHASES = (Phase.INTENT, Phase.OUTCOME, Phase.NOTE)
"""A phase's place here is its number in the index."""
NUMBER_OF_PHASE = {phase: number for number, phase in enumerate(PHASES)}

BLOCK = 1_024
"""Entries of which the index keeps, together, what occurs in them: few rows, quick to skip."""

KINDS = ("subject", "user", "actor", "verdicts", "model", "outcome", "action", "tenant")
"""Columns that are kept as numbers (`audit.search.words`); what narrows most comes first."""


class IndexRow(NamedTuple):
    """An entry, as the index needs it; a tuple, since one is made for every event.

    `received_us` (UTC, microseconds) picks the payload's partition and is not stored in the index.
    `actor`, `user` and `subject` are pseudonyms. `verdicts` are (type, action), sorted, once each.
    """

    number: int
    call_id: bytes
    phase: Phase
    tenant: str
    trace_id: bytes
    received_us: int
    time_us: int = 0
    action: str = ""
    outcome: str = ""
    model: str = ""
    actor: str = ""
    user: str = ""
    subject: str = ""
    verdicts: tuple[tuple[str, str], ...] = ()


class Hit(NamedTuple):
    """An entry that was found; `payload` is its place in the payload store, or empty.

    The index keeps 8 bytes of a pseudonym: its leaf has the last word on what an entry is.
    """

    number: int
    call_id: bytes
    phase: Phase
    payload: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What to find. Empty means: whatever it is.

    `actors`, `users` and `subjects` are pseudonyms of which any will do (one for each key that was
    ever in force); None asks for anybody, and an empty tuple finds nothing: all keys are erased.
    """

    tenant: str
    """Pseudonym; empty finds what belongs to no tenant: events of the services themselves."""
    since_us: int = 0
    """UTC, microseconds, of the event; included."""
    until_us: int | None = None
    """Excluded."""
    actors: tuple[str, ...] | None = None
    users: tuple[str, ...] | None = None
    subjects: tuple[str, ...] | None = None
    model: str = ""
    call_id: bytes = b""
    trace_id: bytes = b""
    verdict_type: str = ""
    """With `verdict_action`: one and the same verdict must have both."""
    verdict_action: str = ""
    outcome: str = ""
    action: str = ""
    phase: Phase | None = None
    newest_first: bool = True
    after: int | None = None
    """Go on behind this entry, in the order asked for."""
    limit: int = 100
    """At most so many hits."""

    @property
    def by_key(self) -> bool:
        """Whether call or trace narrow it down: then no blocks are looked for."""
        return bool(self.call_id or self.trace_id)

    @property
    def any_verdict(self) -> bool:
        """Whether verdicts do not matter."""
        return not (self.verdict_type or self.verdict_action)


class Filter(NamedTuple):
    """A column of words, and the words of which any will do."""

    kind: str
    values: tuple[str, ...]


def filters_of(query: Query) -> Iterator[Filter]:
    """Yield what is asked of the columns of words, in the order of `KINDS`; no verdicts."""
    asked: dict[str, tuple[str, ...] | None] = {
        "subject": query.subjects,
        "user": query.users,
        "actor": query.actors,
        "model": (query.model,) if query.model else None,
        "outcome": (query.outcome,) if query.outcome else None,
        "action": (query.action,) if query.action else None,
        "tenant": (query.tenant,),
    }
    for kind, values in asked.items():
        if values is not None:
            yield Filter(kind, values)


def matches(query: Query, row: IndexRow) -> bool:
    """Tell whether a row is what the query asks for, but for `limit`."""
    return (
        all(getattr(row, kind) in values for kind, values in filters_of(query))
        and query.since_us <= row.time_us
        and (query.until_us is None or row.time_us < query.until_us)
        and (not query.call_id or row.call_id == query.call_id)
        and (not query.trace_id or row.trace_id == query.trace_id)
        and (query.phase is None or row.phase is query.phase)
        and (query.any_verdict or _verdict_matches(query, row.verdicts))
        and _is_behind(query, row.number)
    )


def _verdict_matches(query: Query, verdicts: Iterable[tuple[str, str]]) -> bool:
    return any(
        query.verdict_type in ("", kind) and query.verdict_action in ("", action)
        for kind, action in verdicts
    )


def _is_behind(query: Query, number: int) -> bool:
    if query.after is None:
        return True
    return number < query.after if query.newest_first else number > query.after


# --- statements ---------------------------------------------------------------------------------

_BLOCKS = "SELECT b.block FROM terms_in b JOIN spans s ON s.block = b.block WHERE "
_WITH_THIS_TOO = "EXISTS (SELECT 1 FROM terms_in o WHERE o.block = b.block AND"
_ANY_OF = "IN (SELECT value FROM json_each(?))"

Ids = Sequence[tuple[str, Sequence[int]]]
"""By column, the numbers of the words of which any will do; what narrows most first."""


def blocks_asked(query: Query, ids: Ids, most: int) -> tuple[str, list[object]]:
    """Ask for the blocks that may hold hits, in order; at most `most`.

    Returns:
        A statement that gives one block a row, and its parameters.
    """
    (_, first), *others = ids
    condition, value = _any_of("b.term", first)
    text, values = [_BLOCKS + condition], [value]
    for condition, value in _within(query):
        text.append(condition)
        values.append(value)
    for _, some in others:
        condition, value = _any_of("o.term", some)
        text.append(f"{_WITH_THIS_TOO} {condition})")
        values.append(value)
    asked = " AND ".join(text)
    return f"{asked} GROUP BY b.block ORDER BY b.block {_direction(query)} LIMIT ?", [*values, most]


def _within(query: Query) -> Iterator[tuple[str, object]]:
    yield "s.last_us >= ?", query.since_us
    if query.until_us is not None:
        yield "s.first_us < ?", query.until_us
    if query.after is not None:
        # Only blocks that have entries behind it: else a page could end where it began.
        yield (
            ("b.block <= ?", (query.after - 1) // BLOCK)
            if query.newest_first
            else ("b.block >= ?", (query.after + 1) // BLOCK)
        )


def entries_asked(query: Query, ids: Ids, block: int | None, most: int) -> tuple[str, list[object]]:
    """Ask for the entries of one block, or (None) of the query's call or trace, that are hits.

    Returns:
        A statement that gives number, call_id, phase and payload a row, and its parameters.
    """
    text = ["SELECT number, call_id, phase, payload FROM entries WHERE time_us >= ?"]
    values: list[object] = [query.since_us]
    for kind, some in ids:
        # A plus keeps SQLite off the index of traces, where the block is the narrower choice.
        condition, value = _any_of(kind if block is None else f"+{kind}", some)
        text.append(condition)
        values.append(value)
    for condition, value in _plain(query, block):
        text.append(condition)
        values.append(value)
    asked = " AND ".join(text)
    return f"{asked} ORDER BY number {_direction(query)} LIMIT ?", [*values, most]


def _plain(query: Query, block: int | None) -> Iterator[tuple[str, object]]:
    if block is not None:
        yield "number >= ?", block * BLOCK
        yield "number < ?", (block + 1) * BLOCK
    if query.call_id:
        yield "call_id = ?", query.call_id
    if query.trace_id:
        yield "trace_id = ?", query.trace_id
    if query.until_us is not None:
        yield "time_us < ?", query.until_us
    if query.phase is not None:
        yield "phase = ?", NUMBER_OF_PHASE[query.phase]
    if query.after is not None:
        yield f"number {'<' if query.newest_first else '>'} ?", query.after


def _any_of(column: str, some: Sequence[int]) -> tuple[str, object]:
    if len(some) == 1:
        return f"{column} = ?", some[0]
    return f"{column} {_ANY_OF}", json.dumps(list(some))


def _direction(query: Query) -> str:
    return "DESC" if query.newest_first else "ASC"
