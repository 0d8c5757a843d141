"""gRPC at the log: services append, auditors read, each within what its certificate says.

Append            service identities of `APPENDERS`; the producer recorded is the certificate's
Archive           service identities too
reads             tenants' workloads that the policies let do `audit.read` on the tenant asked; each
                  read of records or documents is recorded before its answer leaves (records.reads)
checkpoint, proof the same; public by nature, so they are not recorded
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from audit.log.turns import Turns
from audit.search.questions import Question
from audit.wire import event_from_wire, question_from_wire, record_to_wire, write_ack
from meshkit.contract import Audit, Document, Event, Reason, Refusal, TraceContext
from meshkit.identity import ServiceIdentity, TenantIdentity
from meshkit.interceptors import current
from meshkit.logs import frames_of
from meshkit.telemetry import root_span
from meshkit.w3c import Parent
from sealgate.v1 import audit_pb2 as pb
from sealgate.v1.audit_pb2_grpc import (
    AuditServiceServicer,
    add_AuditServiceServicer_to_server,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    import grpc

    from audit.records.archive import Archive
    from audit.records.reads import Reads
    from audit.search.questions import Page
    from meshkit.contract import Appended, Record
    from meshkit.identity import Identity

    Context = grpc.aio.ServicerContext[Any, Any]

__all__ = ["APPENDERS", "SERVICE", "AuditServicer", "Log", "admits"]

log = structlog.get_logger()

SERVICE = "sealgate.v1.AuditService"
APPENDERS = frozenset({"gateway", "compliance", "cache", "inference", "audit", "operator"})
"""Services whose events are taken, and the operator: what `sealgate keys` does is recorded."""

BATCH_EVENTS_MAX = 1_024
BATCHES_MAX = 64
"""Batches of one stream that may wait for their acks; then it is not read further."""

_FOR_SERVICES = frozenset({f"/{SERVICE}/Append", f"/{SERVICE}/Archive"})
_CALL_ID_BYTES = 16
_TRACE_ID_BYTES = 16
_TRACE_RECORDS_MAX = 1_000
_SPAN_ID_BYTES = 8
_DIGEST_BYTES = 32


class Log(Audit, Protocol):
    """`Audit`, many events at a time, and told who says so."""

    async def append(self, event: Event, *, producer: str | None = None) -> Appended:
        """See `meshkit.contract.Audit.append`; `producer` as below."""
        ...

    async def append_many(
        self, events: Sequence[Event], *, producer: str | None = None
    ) -> list[Appended | Refusal]:
        """Append in order, each with an answer of its own.

        `producer` is the SPIFFE id of the service that sent them.
        """
        ...

    async def search(
        self, tenant: str, question: Question, *, page_size: int = 0, page_token: str = ""
    ) -> Page:
        """Find a page of a tenant's records: see `audit.log.appender.AuditLog.search`."""
        ...

    def pseudonym_of(self, tenant: str) -> str:
        """Return a tenant's pseudonym, as leaves say it."""
        ...


def admits(identity: Identity, method: str) -> bool:
    """Whether a peer may call a method at all: services append, tenants' workloads read."""
    if method in _FOR_SERVICES:
        return isinstance(identity, ServiceIdentity) and identity.name in APPENDERS
    return isinstance(identity, TenantIdentity)


class AuditServicer(AuditServiceServicer):
    """The methods of audit.proto over one log."""

    def __init__(self, log: Log, reads: Reads, archive: Archive | None = None) -> None:
        """Serve `log`. Without an archive nothing is kept in it or found there."""
        self._log = log
        self._reads = reads
        self._archive = archive
        self._streams: set[_AppendStream] = set()
        self._turns = Turns()
        self._draining = False

    def add_to(self, server: grpc.aio.Server) -> None:
        """Have `server` serve it."""
        add_AuditServiceServicer_to_server(self, server)

    def drain(self) -> None:
        """End every stream of events once what was read of it has its acks; take no other.

        Producers keep theirs open for ever, and would hold up a shutdown for as long as it may
        take. They send whatever has no ack again, to whoever serves the log next.
        """
        self._draining = True
        for stream in self._streams:
            stream.drain()

    async def Append(  # type: ignore[override] # the stubs know no handler that writes
        self, request_iterator: AsyncIterator[pb.AppendRequest], context: Context
    ) -> None:
        """See audit.proto. A batch's acks go out together, once the last of it is durable."""
        producer = current().identity
        assert producer is not None
        if self._draining:
            raise Refusal(Reason.AUDIT_DOWN)
        stream = _AppendStream(self._log, producer.spiffe_id, context, self._turns)
        self._streams.add(stream)
        try:
            await stream.serve(request_iterator)
        finally:
            self._streams.discard(stream)
            stream.cancel()

    async def GetRecord(
        self,
        request: pb.GetRecordRequest,
        context: Context,  # noqa: ARG002 -- gRPC's signature
    ) -> pb.GetRecordResponse:
        """See audit.proto."""
        called = {"call": request.call_id.hex()} if len(request.call_id) == _CALL_ID_BYTES else {}
        async with self._reads.of("call", request.tenant, detail=called) as read:
            _demand(bool(called), "call_id")
            records = await self._log.records(read.tenant, call_id=request.call_id)
            read.count = len(records)
            found = _found(records)
        return pb.GetRecordResponse(records=found)

    async def GetByTrace(
        self,
        request: pb.GetByTraceRequest,
        context: Context,  # noqa: ARG002 -- gRPC's signature
    ) -> pb.GetByTraceResponse:
        """See audit.proto."""
        sound = len(request.trace_id) == _TRACE_ID_BYTES and any(request.trace_id)
        traced = {"trace": request.trace_id.hex()} if sound else {}
        async with self._reads.of("trace", request.tenant, detail=traced) as read:
            _demand(sound, "trace_id")
            traced_back = Question(trace_id=request.trace_id, newest_first=False)
            page = await self._log.search(
                read.tenant,
                traced_back,
                page_size=_TRACE_RECORDS_MAX,
                page_token=request.page_token,
            )
            read.count = len(page.records)
            first = not request.page_token
            found = _found(page.records) if first else [*map(record_to_wire, page.records)]
        return pb.GetByTraceResponse(records=found, next_page_token=page.next_token)

    async def Search(
        self,
        request: pb.SearchRequest,
        context: Context,  # noqa: ARG002 -- gRPC's signature
    ) -> pb.SearchResponse:
        """See audit.proto. Recorded with the names of what was asked for, not with what."""
        question = question_from_wire(request)
        fields = {"fields": ",".join(question.asked)}
        async with self._reads.of(
            "search", request.tenant, action="log.search", detail=fields
        ) as read:
            page = await self._log.search(
                read.tenant, question, page_size=request.page_size, page_token=request.page_token
            )
            read.count = len(page.records)
        records = [record_to_wire(record) for record in page.records]
        return pb.SearchResponse(records=records, next_page_token=page.next_token)

    async def Archive(
        self,
        request: pb.ArchiveRequest,
        context: Context,  # noqa: ARG002 -- gRPC's signature
    ) -> pb.ArchiveResponse:
        """See audit.proto."""
        if self._archive is None:
            raise Refusal(Reason.AUDIT_DOWN)
        document = Document(request.kind, request.content, tuple(request.owners))
        await self._archive.put(document, request.digest)
        return pb.ArchiveResponse()

    async def GetArchived(
        self,
        request: pb.GetArchivedRequest,
        context: Context,  # noqa: ARG002 -- gRPC's signature
    ) -> pb.GetArchivedResponse:
        """See audit.proto."""
        sound = len(request.digest) == _DIGEST_BYTES
        asked = {"digest": request.digest.hex()} if sound else {}
        async with self._reads.of("archive", request.tenant, detail=asked) as read:
            _demand(sound, "digest")
            if self._archive is None:
                raise Refusal(Reason.NOT_FOUND)
            document = await self._archive.get(request.digest, read.tenant)
            read.count = 1
        return pb.GetArchivedResponse(kind=document.kind, content=document.content)

    async def GetCheckpoint(
        self,
        request: pb.GetCheckpointRequest,  # noqa: ARG002 -- empty
        context: Context,  # noqa: ARG002 -- gRPC's signature
    ) -> pb.GetCheckpointResponse:
        """See audit.proto."""
        self._may_prove()
        return pb.GetCheckpointResponse(note=(await self._log.checkpoint()).note)

    async def GetInclusionProof(
        self,
        request: pb.GetInclusionProofRequest,
        context: Context,  # noqa: ARG002 -- gRPC's signature
    ) -> pb.GetInclusionProofResponse:
        """See audit.proto."""
        self._may_prove()
        hashes = await self._log.inclusion(request.index, request.tree_size)
        return pb.GetInclusionProofResponse(hashes=hashes)

    async def GetConsistencyProof(
        self,
        request: pb.GetConsistencyProofRequest,
        context: Context,  # noqa: ARG002 -- gRPC's signature
    ) -> pb.GetConsistencyProofResponse:
        """See audit.proto."""
        self._may_prove()
        hashes = await self._log.consistency(request.old_size, request.new_size)
        return pb.GetConsistencyProofResponse(hashes=hashes)

    def _may_prove(self) -> None:
        actor = self._reads.actor()
        self._reads.may(actor, actor.tenant)


class _AppendStream:
    """One producer's stream: read, append batches side by side, ack in whatever order."""

    def __init__(self, log: Log, producer: str, context: Context, turns: Turns) -> None:
        self._log = log
        self._turns = turns
        self._producer = producer
        self._context = context
        self._room = asyncio.Semaphore(BATCHES_MAX)
        self._writing = asyncio.Lock()
        self._under_way: set[asyncio.Task[None]] = set()
        self._reading: asyncio.Task[None] | None = None
        self._broken: BaseException | None = None

    async def serve(self, requests: AsyncIterator[pb.AppendRequest]) -> None:
        """Read, append and ack until the producer has no more, or `drain`."""
        self._reading = asyncio.create_task(self._read(requests))
        self._reading.add_done_callback(self._ended)
        await asyncio.wait([self._reading])
        while self._under_way:
            await asyncio.wait(self._under_way)
        if self._broken is not None:
            raise self._broken

    def drain(self) -> None:
        """Read no further; `serve` ends once what was read has its acks."""
        if self._reading is not None:
            self._reading.cancel()

    def cancel(self) -> None:
        """Stop waiting for events of a stream that broke: its producer sends them again."""
        for task in (self._reading, *self._under_way):
            if task is not None:
                task.cancel()

    async def _read(self, requests: AsyncIterator[pb.AppendRequest]) -> None:
        """Take events in until the producer has no more."""
        async for request in requests:
            _demand(1 <= len(request.events) <= BATCH_EVENTS_MAX, "events")
            await self._room.acquire()
            task = asyncio.create_task(self._append(request.events))
            self._under_way.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._broken = self._broken or failure  # what came first is why
            self.drain()

    async def _tell(self, acks: pb.AppendResponse) -> None:
        """Send a batch's acks; that makes room for another batch."""
        async with self._writing:
            await self._context.write(acks)
        self._room.release()

    async def _append(self, batch: Sequence[pb.AuditEvent]) -> None:
        await self._turns.take()
        acks = await self._acks(batch)
        del batch  # a producer may be long in taking its acks: they alone are kept for it
        await self._tell(acks)

    async def _acks(self, batch: Sequence[pb.AuditEvent]) -> pb.AppendResponse:
        results: list[Event | Appended | Refusal] = [_read(event) for event in batch]
        good = [(at, each) for at, each in enumerate(results) if isinstance(each, Event)]
        try:
            with _spans(batch):
                answers = await self._log.append_many(
                    [event for _, event in good], producer=self._producer
                )
        except Exception as bug:  # noqa: BLE001 -- without an ack, the producer would hang
            log.error("audit.bug", kind=type(bug).__name__, frames=frames_of(bug))  # noqa: TRY400 -- its text may be a user's
            answers = [Refusal(Reason.INTERNAL)] * len(good)
        for (at, _), answer in zip(good, answers, strict=True):
            results[at] = answer
        response = pb.AppendResponse()
        for event, told in zip(batch, results, strict=True):
            if not isinstance(told, Event):
                write_ack(event, told, response.acks.add())
        return response


@contextmanager
def _spans(batch: Sequence[pb.AuditEvent]) -> Iterator[None]:
    """Give each event whose trace is being exported a span of that trace, not of the stream's."""
    with ExitStack() as spans:
        for event in batch:
            if (
                event.trace_sampled
                and len(event.trace_id) == _TRACE_ID_BYTES
                and len(event.span_id) == _SPAN_ID_BYTES
            ):
                trace = TraceContext(trace_id=event.trace_id, span_id=event.span_id)
                spans.enter_context(
                    root_span("audit.append", Parent(trace, sampled=True), trust_parent=True)
                )
        yield


def _read(event: pb.AuditEvent) -> Event | Refusal:
    try:
        return event_from_wire(event)
    except Refusal as refusal:
        return refusal


def _found(records: tuple[Record, ...]) -> list[pb.Record]:
    if not records:
        raise Refusal(Reason.NOT_FOUND)
    return [record_to_wire(record) for record in records]


def _demand(holds: bool, field: str) -> None:  # noqa: FBT001 -- reads as a sentence
    if not holds:
        raise Refusal(Reason.INVALID_FIELD, field=field)
