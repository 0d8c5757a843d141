"""`AuditLog`: the Audit protocol of meshkit.contract over write-ahead log, tiles and index.

    async with open_audit(settings, signer=..., lock=..., sealer=..., ...) as audit:
        appended = await audit.append(event)

Exactly once: an event's key is (call_id, phase). Keys of events under way and of recent ones are in
memory, all others in the index; a key larger than every key that ever left memory is known to be
new without asking (call ids are UUIDv7, so nearly all are).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING

from audit.log.intake import Intent, Waiting
from audit.log.parts import AuditStats, Parts
from audit.privacy.opened import opened_payload
from audit.privacy.payloads import payload_aad, payload_bytes
from audit.privacy.subjects import payload_purpose, retention_class
from audit.records.events import event_bytes, parse_leaf, same_event
from audit.search.finding import Finder, RecordFinder, searched
from audit.search.query import Query
from audit.search.rows import who_of
from meshkit.contract import (
    Appended,
    Checkpoint,
    Commitment,
    Event,
    Phase,
    Reason,
    Record,
    Refusal,
)
from meshkit.tlog import (
    ENTRY_BYTES_MAX,
    TileHashes,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from audit.cosigning.witnesses import Witnesses
    from audit.log.intake import Committer
    from audit.privacy.payloads import Opened
    from audit.search.query import IndexRow
    from audit.search.questions import Page, Question

__all__ = ["AuditLog", "AuditStats", "Parts"]

_LOG_PART_BYTES_MAX = 2_048
_TRACE_RECORDS_MAX = 1_000

_Key = tuple[bytes, Phase]
_PHASE_BYTES = {phase: bytes([number]) for number, phase in enumerate(Phase)}


def _packed(call_id: bytes, phase: Phase) -> bytes:
    """Make a key that is kept long: bytes, which the garbage collector does not go through."""
    return call_id + _PHASE_BYTES[phase]


class AuditLog:
    """One log's only writer. All methods belong to one event loop."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._settings = parts.settings
        self._finder = RecordFinder(Finder(parts.index, parts.mover.rows), parts.leaf)
        self._committer: Committer | None = None
        self._in_flight: dict[_Key, Waiting] = {}
        # A plain dict is slow at its front: it steps over all that was deleted there.
        self._recent: OrderedDict[bytes, int] = OrderedDict()
        self._evicted = parts.index.newest_call()
        self._closed: Reason | None = None
        self._payload_bytes = 0
        self._drained = asyncio.Event()

    @property
    def parts(self) -> Parts:
        """What it is made of, for those who read only."""
        return self._parts

    @property
    def vkey(self) -> str:
        """The C2SP verifier keys in force: one, or several lines after a rotation, newest first."""
        return self._parts.signer.vkey

    @property
    def witnesses(self) -> Witnesses | None:
        """The witnesses of its checkpoints, as they are now; None without a policy."""
        return self._parts.publisher.witnesses

    @property
    def stats(self) -> AuditStats:
        """Counts for metrics; cheap."""
        parts = self._parts
        published = parts.store.published
        return AuditStats(
            durable=parts.wal.end,
            indexed=parts.index.size,
            published=0 if published is None else published.size,
            waiting=len(self._in_flight),
        )

    def attach(self, committer: Committer) -> None:
        """Give the log its committer; once, before the first append."""
        self._committer = committer

    def close(self, reason: Reason) -> None:
        """Refuse every append from now on."""
        self._closed = reason

    def abandon(self) -> None:
        """Tell all who wait that nobody commits any more; what they sent may be durable."""
        for waiting in list(self._in_flight.values()):
            self.settled(waiting)
            waiting.refuse(Reason.AUDIT_DOWN)

    async def idle(self) -> None:
        """Wait until no event is under way; after `close`."""
        while self._in_flight:
            self._drained.clear()
            await self._drained.wait()

    # --- append -----------------------------------------------------------------------------

    async def append(self, event: Event, *, producer: str | None = None) -> Appended:
        """Record an event: see `meshkit.contract.Audit.append`.

        When this returns the event MUST be on stable storage, and its index MUST never name
        another event; a repeat MUST get the first index. No signature of OpenBao is waited for.

        Args:
            event: What happened.
            producer: SPIFFE id of the service that says so, from its certificate.

        Raises:
            Refusal: INVALID_FIELD, CONFLICT, OVERLOADED, AUDIT_DOWN, KEYS_DOWN, EVIDENCE_LOST.
        """
        entered = await self._enter(event, producer)
        self._ready()
        return entered if isinstance(entered, Appended) else await entered

    async def append_many(
        self, events: Sequence[Event], *, producer: str | None = None
    ) -> list[Appended | Refusal]:
        """Record a batch, in order; each event has its own answer. Cheaper than a task for each."""
        entered: list[Appended | Refusal | asyncio.Future[Appended]] = []
        try:
            for event in events:
                try:
                    entered.append(await self._enter(event, producer))
                except Refusal as refusal:
                    entered.append(refusal)
        finally:
            self._ready()
        answers: list[Appended | Refusal] = []
        for one in entered:
            if isinstance(one, (Appended, Refusal)):
                answers.append(one)
                continue
            try:
                answers.append(await one)
            except Refusal as refusal:
                answers.append(refusal)
        return answers

    async def _enter(
        self, event: Event, producer: str | None
    ) -> Appended | asyncio.Future[Appended]:
        """Check an event and queue it, or find the place that it already has."""
        pseudonyms = self._parts.pseudonyms
        names = pseudonyms.at_hand(event) or await pseudonyms.names(event)
        body = event_bytes(event, names)
        if len(body) > ENTRY_BYTES_MAX - _LOG_PART_BYTES_MAX:
            raise Refusal(Reason.INVALID_FIELD, field="event")
        key = (event.call_id, event.phase)
        under_way = self._in_flight.get(key)
        if under_way is not None:
            return self._follow(under_way, event, body)
        known = self._known(key)
        if known is not None:
            return await self._again(event, body, known)
        self._admit()
        waiting = Waiting(
            event,
            body,
            names,
            who_of(event, names),
            producer or self._settings.producer,
            retention_class(self._settings, event),
            asyncio.get_running_loop().create_future(),
        )
        self._in_flight[key] = waiting
        try:
            await self._prepare(waiting)
        except BaseException as failure:
            self.settled(waiting)
            waiting.refuse(failure.reason if isinstance(failure, Refusal) else Reason.AUDIT_DOWN)
            raise
        assert self._committer is not None  # attached before the first append
        self._committer.put(waiting)
        return waiting.done

    def _ready(self) -> None:
        assert self._committer is not None  # as above
        self._committer.ready()

    def _admit(self) -> None:
        if self._closed is not None:
            raise Refusal(self._closed)
        if len(self._in_flight) >= self._settings.intake_events_max:
            raise self._overloaded()
        if self._parts.publisher.backlog >= self._settings.backlog_events_max:
            raise Refusal(Reason.AUDIT_DOWN)

    def _overloaded(self) -> Refusal:
        return Refusal(Reason.OVERLOADED, retry_after_ms=self._settings.overloaded_retry_ms)

    async def _prepare(self, waiting: Waiting) -> None:
        """Seal the payload; for an OUTCOME whose INTENT is not in memory, look that up."""
        event = waiting.event
        plain = payload_bytes(event)
        if len(plain) > self._settings.payload_bytes_max:
            raise Refusal(Reason.INVALID_FIELD, field="payload")
        if self._payload_bytes + len(plain) > self._settings.intake_bytes_max:
            raise self._overloaded()
        if plain:
            waiting.payload_bytes = len(plain)
            self._payload_bytes += len(plain)
            waiting.sealed = await self._seal(waiting, plain)
            waiting.sealed_sha256 = sha256(waiting.sealed).hexdigest()
        if event.phase is Phase.OUTCOME:
            waiting.intent = await self._intent(event)

    async def _seal(self, waiting: Waiting, plain: bytes) -> bytes:
        event = waiting.event
        try:
            return await self._parts.sealer.seal(
                tenant=event.tenant,
                purpose=payload_purpose(waiting.retention, waiting.who.subject),
                plaintext=plain,
                aad=payload_aad(event.call_id, event.phase),
            )
        except OSError:  # a new data key could not be kept
            raise Refusal(Reason.KEYS_DOWN) from None

    def _follow(self, under_way: Waiting, event: Event, body: bytes) -> asyncio.Future[Appended]:
        future: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        # Between the two a new pseudonym key may have begun.
        same = under_way.body in (body, event_bytes(event, under_way.names))
        (under_way.followers if same else under_way.rivals).append(future)
        return future

    async def _again(self, event: Event, body: bytes, index: int) -> Appended:
        """Give an event that was appended before its first place again."""
        leaf = await asyncio.to_thread(self._parts.leaf, index)
        if not same_event(leaf, body):
            names = await self._parts.pseudonyms.names_of_leaf(event.tenant, leaf)
            if not same_event(leaf, event_bytes(event, names)):
                raise Refusal(Reason.CONFLICT)
        hashed = leaf_hash(leaf)
        if event.phase is not Phase.OUTCOME:
            return Appended(index=index, leaf_hash=hashed)
        intent = await self._intent(event)
        prompt = None if intent is None else intent.prompt
        receipt = self._parts.receipts.make(event, index, hashed, prompt)
        return Appended(index=index, leaf_hash=hashed, receipt=receipt)

    # --- exactly once -----------------------------------------------------------------------

    def _known(self, key: _Key) -> int | None:
        """Return the index of an event that is durable already."""
        index = self._recent.get(_packed(*key))
        if index is not None or key[0] > self._evicted:
            return index
        place = self._parts.index.find(*key)
        return None if place is None else place.number

    def remember(self, rows: Sequence[IndexRow]) -> None:
        """Take over durable events; old ones are let go once the index has them."""
        pending = self._parts.mover.rows
        for row in rows:
            self._recent[_packed(row.call_id, row.phase)] = row.number
            pending[row.number] = row
        self._parts.publisher.wake()
        indexed = self._parts.index.size
        while len(self._recent) > self._settings.recent_events_max:
            key, number = next(iter(self._recent.items()))
            if number >= indexed:
                break
            self._recent.popitem(last=False)
            self._evicted = max(self._evicted, key[:-1])

    def settled(self, waiting: Waiting) -> None:
        """Forget that an event is under way."""
        if self._in_flight.pop((waiting.event.call_id, waiting.event.phase), None) is not None:
            self._payload_bytes -= waiting.payload_bytes
        if not self._in_flight:
            self._drained.set()

    async def _intent(self, event: Event) -> Intent | None:
        """Find an OUTCOME's INTENT where memory may have lost it: restart, or a very long call."""
        assert self._committer is not None
        key = (event.call_id, Phase.INTENT)
        if event.call_id in self._committer.open_calls or key in self._in_flight:
            return None  # the committer knows, or will when its turn comes
        index = self._known(key)
        if index is None:
            return None
        leaf = await asyncio.to_thread(self._parts.leaf, index)
        value = parse_leaf(leaf).event.get("commitments", {}).get("prompt_received")
        if value is None:
            return Intent(index, None)
        salts: dict[str, bytes] = {}
        with suppress(Refusal):  # erased, or its key is: the commitment then cannot be opened
            salts = (await self.payload(event.tenant, index)).salts
        return Intent(index, Commitment(salts.get("prompt_received", b""), bytes.fromhex(value)))

    # --- reading ----------------------------------------------------------------------------

    def pseudonym_of(self, tenant: str) -> str:
        """Return a tenant's pseudonym, as leaves say it: 32 hexadecimal digits."""
        return self._tenant(tenant)

    def _tenant(self, tenant: str) -> str:
        return self._parts.pseudonyms.tenant(tenant) if tenant else ""

    def _published(self) -> Checkpoint:
        published = self._parts.store.published
        assert published is not None  # recovery publishes before anything else
        return published

    async def records(
        self, tenant: str, *, call_id: bytes | None = None, trace_id: bytes | None = None
    ) -> tuple[Record, ...]:
        """Find a tenant's records: see `meshkit.contract.Audit.records`; at most 1,000."""
        if not (call_id or trace_id):
            raise Refusal(Reason.INVALID_FIELD, field="call_id")
        query = Query(
            tenant=self._tenant(tenant),
            call_id=call_id or b"",
            trace_id=trace_id or b"",
            newest_first=False,
            limit=_TRACE_RECORDS_MAX,
        )
        return await asyncio.to_thread(self._finder.all, query)

    async def search(
        self, tenant: str, question: Question, *, page_size: int = 0, page_token: str = ""
    ) -> Page:
        """Find a page of a tenant's records. The caller has decided who may, and records it.

        Raises:
            Refusal: INVALID_FIELD (the question, or the token is not of this one); KEYS_DOWN, if
                people are named whose pseudonyms cannot be made; AUDIT_DOWN; EVIDENCE_LOST.
        """
        return await searched(self._parts, self._finder, (tenant, question), page_size, page_token)

    async def payload(self, tenant: str, index: int) -> Opened:
        """Open an entry's sealed payload; for the tenant's own people, and audited by the caller.

        Raises:
            Refusal: NOT_FOUND (none, erased, or another tenant's), KEYS_DOWN, EVIDENCE_LOST.
        """
        return await opened_payload(self._parts, tenant, index)

    async def checkpoint(self) -> Checkpoint:
        """Return the newest published checkpoint."""
        return self._published()

    async def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """Prove inclusion: see `meshkit.contract.Audit.inclusion`."""
        published = self._published().size
        if not 0 <= index < size <= published:
            raise Refusal(Reason.NOT_FOUND)
        reader = TileHashes(self._parts.store, published)
        return await asyncio.to_thread(inclusion_proof, reader, index, size)

    async def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """Prove consistency: see `meshkit.contract.Audit.consistency`."""
        published = self._published().size
        if not 0 <= old <= new <= published:
            raise Refusal(Reason.NOT_FOUND)
        reader = TileHashes(self._parts.store, published)
        return await asyncio.to_thread(consistency_proof, reader, old, new)
