"""What somebody who is signed in may read. Each read is recorded before it is shown.

If the record of a read cannot be made, nothing is read: `Refusal` (AUDIT_DOWN, OVERLOADED).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from audit.records.events import parse_leaf
from audit.search.finding import people_of
from meshkit.contract import Reason, Refusal
from meshkit.tlog import Proof, check_proof, format_proof, leaf_hash

if TYPE_CHECKING:
    from collections.abc import Iterable

    from audit.console.gate import Visit
    from audit.search.questions import Question
    from meshkit.contract import Document, Record

__all__ = ["Desk", "Entry", "Found", "Proved"]


@dataclass(frozen=True)
class Entry:
    """A record, read."""

    index: int
    leaf: bytes

    @cached_property
    def _parts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        parsed = parse_leaf(self.leaf)
        return parsed.event, parsed.log

    @property
    def event(self) -> dict[str, Any]:
        """What the producer said."""
        return self._parts[0]

    @property
    def log(self) -> dict[str, Any]:
        """What the audit service added."""
        return self._parts[1]

    @property
    def call(self) -> str:
        """Its call's id, in hexadecimal."""
        return str(self.event["call_id"])

    @property
    def phase(self) -> str:
        """INTENT, OUTCOME or NOTE, in lower case."""
        return str(self.event["phase"])

    @property
    def hash(self) -> str:
        """The leaf's hash, in hexadecimal."""
        return leaf_hash(self.leaf).hex()


@dataclass(frozen=True, slots=True)
class Proved:
    """A proof file that was checked here, all five steps, against the checkpoint in it."""

    text: str
    size: int
    root: str
    hashes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """A page of a search, and the token of the next one."""

    entries: list[Entry]
    token: str


class Desk:
    """One visit's reading, for those whom the policies let do `audit.read`."""

    def __init__(self, visit: Visit) -> None:
        """Sit down. Raises Refusal: DENIED."""
        visit.must("audit.read")
        self._visit = visit
        self._log = visit.console.log

    async def note(self, action: str, **detail: str) -> None:
        """Record an act of this visit. Raises Refusal: it must not go on."""
        visit = self._visit
        await visit.console.notes.note(
            action,
            tenant=visit.tenant,
            actor=visit.actor,
            connection=visit.connection,
            detail={"by": "console", **detail},
        )

    async def call(self, call_id: bytes) -> list[Entry]:
        """Return a call's records. Raises Refusal: NOT_FOUND."""
        found = await self._log.records(self._visit.tenant, call_id=call_id)
        return await self._read(found, call=call_id.hex())

    async def trace(self, trace_id: bytes) -> list[Entry]:
        """Return a trace's records. Raises Refusal: NOT_FOUND."""
        found = await self._log.records(self._visit.tenant, trace_id=trace_id)
        return await self._read(found, trace=trace_id.hex())

    async def find(self, question: Question, *, limit: int, token: str = "") -> Found:
        """Return some of the records that fit; it is recorded that they were sought.

        What was typed is not recorded: names of fields are, and how much was found.

        Raises:
            Refusal: INVALID_FIELD, KEYS_DOWN: see `audit.log.appender.AuditLog.search`.
        """
        page = await self._log.search(
            self._visit.tenant, question, page_size=limit, page_token=token
        )
        entries = [Entry(record.index, record.leaf) for record in page.records]
        await self.note(
            "log.search", count=str(len(entries)), fields=",".join(question.asked) or "any"
        )
        return Found(entries, page.next_token)

    async def names(self, question: Question) -> dict[str, str]:
        """Return the names that somebody asked for, by the pseudonyms that the records have."""
        people = await people_of(self._log.parts.pseudonyms, self._visit.tenant, question)
        asked = (
            (people.actors, question.actor),
            (people.users, question.user),
            (people.subjects, question.subject),
        )
        return {pseudonym: name for some, name in asked for pseudonym in some or ()}

    async def _read(self, records: Iterable[Record], **asked: str) -> list[Entry]:
        entries = [Entry(record.index, record.leaf) for record in records]
        await self.note("log.read", count=str(len(entries)), **asked)
        if not entries:
            raise Refusal(Reason.NOT_FOUND)
        return entries

    async def proved(self, entry: Entry) -> Proved | None:
        """Prove that an entry is in the published tree; None while it is not yet published.

        Raises:
            ProofInvalid: it does not hold: the log is damaged.
        """
        checkpoint = await self._log.checkpoint()
        if entry.index >= checkpoint.size:
            return None
        hashes = await self._log.inclusion(entry.index, checkpoint.size)
        proof = Proof(leaf=entry.leaf, index=entry.index, hashes=hashes, checkpoint=checkpoint)
        text = format_proof(proof)
        check_proof(text, self._log.vkey)
        return Proved(
            text, checkpoint.size, checkpoint.root.hex(), tuple(each.hex() for each in hashes)
        )

    async def document(self, digest: bytes) -> Document:
        """Return what an archived digest stands for.

        Raises:
            Refusal: NOT_FOUND, also if it is another tenant's, or nothing is archived.
        """
        archive = self._visit.console.archive
        await self.note("log.read", kind="archive", digest=digest.hex())
        if archive is None:
            raise Refusal(Reason.NOT_FOUND)
        return await archive.get(digest, self._visit.tenant)
