"""The audit service's port: who may append, who may read, and what of it."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections import Counter
from contextlib import asynccontextmanager
from functools import partial
from hashlib import sha256
from types import SimpleNamespace

import grpc
import pytest

from audit.log.turns import Turns
from audit.records.archive import Archive
from audit.records.notes import Notes
from audit.records.reads import Reads
from audit.servicer import BATCHES_MAX, SERVICE, AuditServicer, _AppendStream, admits
from meshkit.authorization import Authorizer
from meshkit.contract import Phase, Reason, Refusal
from meshkit.interceptors import MeshInterceptor
from meshkit.server import Serving, serving
from meshkit.status import from_rpc_error
from meshkit.tls import CertificateHolder
from sealgate.v1 import audit_pb2 as pb
from sealgate.v1.audit_pb2_grpc import AuditServiceStub, add_AuditServiceServicer_to_server
from tests.fakes import MemoryAudit
from tests.gateway.conftest import ASSISTANT

GATEWAY = "spiffe://sealgate.local/service/gateway"
READS_MAX = 5
WITHIN_S = 20.0
AUDITOR = "spiffe://sealgate.local/tenant/demo/auditor"


def notes(log):
    return [each for each in log.events if each.phase is Phase.NOTE]


def event(number, *, tenant="demo", phase=pb.PHASE_OUTCOME, trace=b"t" * 16):
    made = pb.AuditEvent(
        call_id=number.to_bytes(16),
        phase=phase,
        tenant=tenant,
        trace_id=trace,
        span_id=b"s" * 8,
        action="chat",
        outcome="released",
    )
    made.occurred_at.FromMicroseconds(1_700_000_000_000_000 + number)
    return made


@pytest.fixture
def log():
    return MemoryAudit()


@pytest.fixture
def connect(authority, policies, log, tmp_path):
    """Return how to call the service as somebody: `async with connect(uri) as stub`."""

    @asynccontextmanager
    async def connected(uri):
        holder = CertificateHolder(authority.issue("spiffe://sealgate.local/service/audit"))
        caller = CertificateHolder(authority.issue(uri))
        reads = Reads(
            notes=Notes(log), naming=log, authorizer=Authorizer(policies), per_s_max=READS_MAX
        )
        archive = Archive(tmp_path / "archive", Notes(log), document_bytes_max=1_000)
        servicer = AuditServicer(log, reads, archive)
        guard = MeshInterceptor(
            trust_domain="sealgate.local",
            call_budget_ms=5_000,
            admits=admits,
            on_refused=reads.stranger,
        )
        async with (
            serving(
                partial(add_AuditServiceServicer_to_server, servicer),
                address="127.0.0.1:0",
                credentials=holder.server_credentials(),
                guard=guard,
                settings=Serving(lame_duck_ms=0, drain_ms=1_000),
                names=(SERVICE,),
            ) as port,
            grpc.aio.secure_channel(f"localhost:{port}", caller.channel_credentials()) as channel,
        ):
            yield AuditServiceStub(channel)
        await reads.settled()

    return connected


async def reason_of(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value).reason


async def appended(stub, *batches):
    """Append batches; return the acks by call number."""
    stream = stub.Append(iter([pb.AppendRequest(events=events) for events in batches]))
    acks = [ack async for response in stream for ack in response.acks]
    return {int.from_bytes(ack.call_id): ack for ack in acks}


async def test_every_event_of_every_batch_gets_its_ack(connect, log) -> None:
    async with connect(GATEWAY) as stub:
        acks = await appended(stub, *[[event(10 * b + n) for n in range(10)] for b in range(5)])

        assert sorted(acks) == list(range(50))
        assert len({ack.appended.index for ack in acks.values()}) == 50
        assert acks[7].appended.receipt.call_id == (7).to_bytes(16)
        assert log.producers == {GATEWAY}


async def test_an_event_that_cannot_be_taken_is_refused_alone(connect, log) -> None:
    timeless = event(2)
    timeless.ClearField("occurred_at")
    other = event(1)
    other.outcome = "DENIED"
    async with connect(GATEWAY) as stub:
        await appended(stub, [event(1)])
        acks = await appended(stub, [other, timeless, event(3, phase=9), event(4)])

        assert acks[1].refusal.reason == "CONFLICT"
        assert (acks[2].refusal.reason, acks[2].refusal.field) == ("INVALID_FIELD", "occurred_at")
        assert acks[3].refusal.field == "phase"
        assert acks[4].appended.index == 1


class GoneAway:
    """The context of a stream whose client cannot be written to."""

    async def write(self, _acks):
        raise grpc.aio.UsageError


async def test_a_stream_that_cannot_be_answered_ends(log) -> None:
    async def for_ever():
        yield pb.AppendRequest(events=[event(1)])
        await asyncio.Event().wait()

    stream = _AppendStream(log, GATEWAY, GoneAway(), Turns())
    async with asyncio.timeout(10):
        with pytest.raises(grpc.aio.UsageError):
            await stream.serve(for_ever())
    assert len(log.events) == 1


async def test_a_stream_that_fails_at_both_ends_says_so_once(log) -> None:
    async def two_batches():
        yield pb.AppendRequest(events=[event(1)])
        yield pb.AppendRequest()

    unseen = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: unseen.append(told))
    stream = _AppendStream(log, GATEWAY, GoneAway(), Turns())
    with pytest.raises(Refusal, match="INVALID_FIELD"):
        await stream.serve(two_batches())
    del stream
    gc.collect()
    assert unseen == []


class Paused:
    """The context of a stream whose client reads no acks until it is told to."""

    def __init__(self) -> None:
        self.goes_on = asyncio.Event()
        self.sent = []

    async def write(self, acks):
        await self.goes_on.wait()
        self.sent.append(acks)


class Batch(list):
    """As in a request, but a weak reference can be had to it."""


async def test_for_a_client_that_does_not_read_acks_are_kept_and_no_events(log) -> None:
    read = []

    async def for_ever():
        while True:
            batch = Batch([event(len(read))])
            read.append(weakref.ref(batch))
            yield SimpleNamespace(events=batch)
            del batch

    context = Paused()
    stream = _AppendStream(log, GATEWAY, context, Turns())
    serving_it = asyncio.create_task(stream.serve(for_ever()))
    async with asyncio.timeout(10):
        while len(log.events) < BATCHES_MAX or len(read) <= BATCHES_MAX:
            await asyncio.sleep(0)
        for _ in range(3):  # from the log's answer to the blocked write
            await asyncio.sleep(0)
        gc.collect()
        assert len(read) == BATCHES_MAX + 1
        assert [batch() for batch in read[:-1]] == [None] * BATCHES_MAX
        stream.drain()
        context.goes_on.set()
        await serving_it
    assert len(context.sent) == BATCHES_MAX


async def test_a_bug_is_acked_as_internal_and_mute(connect, log) -> None:
    async def broken(given, *, producer=None):
        raise ValueError(given[0].action)

    log.append_many = broken
    async with connect(GATEWAY) as stub:
        acks = await appended(stub, [event(1)])

        assert acks[1].refusal.reason == "INTERNAL"


async def test_an_empty_batch_ends_the_stream(connect) -> None:
    async with connect(GATEWAY) as stub:
        stream = stub.Append(iter([pb.AppendRequest()]))
        assert await reason_of(stream.read()) is Reason.INVALID_FIELD


@pytest.mark.parametrize("uri", [AUDITOR, ASSISTANT, "spiffe://sealgate.local/service/stranger"])
async def test_only_our_services_append(connect, log, uri) -> None:
    async with connect(uri) as stub:
        assert await reason_of(stub.Append(timeout=WITHIN_S).read()) is Reason.DENIED
        # Where what is sent crosses the refusal, gRPC may tell that it could not be sent instead.
        stream = stub.Append(iter([pb.AppendRequest(events=[event(1)])]))
        assert await reason_of(stream.read()) in {Reason.DENIED, Reason.INTERNAL}
        assert [each.action for each in log.events] == ["access.refused"] * 2


async def test_an_auditor_reads_its_own_tenant_only(connect, log) -> None:
    async with connect(GATEWAY) as stub:
        await appended(stub, [event(1), event(2, tenant="other")])
    async with connect(AUDITOR) as stub:
        found = await stub.GetRecord(pb.GetRecordRequest(call_id=(1).to_bytes(16)))
        traced = await stub.GetByTrace(pb.GetByTraceRequest(tenant="demo", trace_id=b"t" * 16))
        foreign = pb.GetRecordRequest(call_id=(2).to_bytes(16))
        named = pb.GetRecordRequest(tenant="other", call_id=(2).to_bytes(16))

        assert [record.index for record in found.records] == [0]
        assert [record.index for record in traced.records] == [0]
        assert await reason_of(stub.GetRecord(foreign)) is Reason.NOT_FOUND
        assert await reason_of(stub.GetRecord(named)) is Reason.DENIED


async def test_an_auditor_checks_the_log(connect, log) -> None:
    async with connect(GATEWAY) as stub:
        await appended(stub, [event(1), event(2)])
    async with connect(AUDITOR) as stub:
        note = (await stub.GetCheckpoint(pb.GetCheckpointRequest())).note
        proof = await stub.GetInclusionProof(pb.GetInclusionProofRequest(index=1, tree_size=2))
        grown = pb.GetConsistencyProofRequest(old_size=1, new_size=2)
        beyond = pb.GetInclusionProofRequest(index=2, tree_size=2)

        assert note.startswith("fake.example/log\n2\n")
        assert len(proof.hashes) == 1
        assert len((await stub.GetConsistencyProof(grown)).hashes) == 1
        assert await reason_of(stub.GetInclusionProof(beyond)) is Reason.NOT_FOUND


@pytest.mark.parametrize("uri", [ASSISTANT, GATEWAY, "spiffe://sealgate.local/tenant/demo/nobody"])
async def test_who_is_no_auditor_reads_nothing(connect, uri) -> None:
    async with connect(uri) as stub:
        for call in (
            stub.GetRecord(pb.GetRecordRequest(call_id=bytes(16))),
            stub.GetByTrace(pb.GetByTraceRequest(trace_id=b"t" * 16)),
            stub.GetCheckpoint(pb.GetCheckpointRequest()),
            stub.GetInclusionProof(pb.GetInclusionProofRequest(index=0, tree_size=1)),
            stub.GetConsistencyProof(pb.GetConsistencyProofRequest(old_size=0, new_size=1)),
        ):
            assert await reason_of(call) is Reason.DENIED


@pytest.mark.parametrize(
    "call",
    [
        lambda stub: stub.GetRecord(pb.GetRecordRequest(call_id=b"short")),
        lambda stub: stub.GetByTrace(pb.GetByTraceRequest(trace_id=bytes(16))),
    ],
)
async def test_ids_of_the_wrong_shape_are_named(connect, call) -> None:
    async with connect(AUDITOR) as stub:
        assert await reason_of(call(stub)) is Reason.INVALID_FIELD


async def test_a_read_is_recorded_before_its_answer_leaves(connect, log) -> None:
    async with connect(GATEWAY) as stub:
        await appended(stub, [event(1), event(2, tenant="other")])
    async with connect(AUDITOR) as stub:
        await stub.GetRecord(pb.GetRecordRequest(call_id=(1).to_bytes(16)))
        await stub.GetByTrace(pb.GetByTraceRequest(trace_id=b"t" * 16))
        await reason_of(stub.GetRecord(pb.GetRecordRequest(call_id=(9).to_bytes(16))))
        foreign = pb.GetRecordRequest(tenant="other", call_id=(2).to_bytes(16))
        await reason_of(stub.GetRecord(foreign))

    by_call, by_trace, missing, refused = notes(log)
    assert dict(by_call.detail) == {
        "kind": "call",
        "asked": "pseudonym-of-demo",
        "call": (1).to_bytes(16).hex(),
        "count": "1",
    }
    assert (by_call.action, by_call.outcome, by_call.tenant) == ("log.read", "ok", "demo")
    assert by_call.actor.spiffe_id == AUDITOR
    assert by_call.connection.tls_version == "TLSv1.3"
    assert dict(by_trace.detail) == {
        "kind": "trace",
        "asked": "pseudonym-of-demo",
        "trace": (b"t" * 16).hex(),
        "count": "1",
    }
    assert missing.outcome == "NOT_FOUND"
    # Refused: told under the reader's own tenant, with the pseudonym of the one that was asked.
    assert (refused.outcome, refused.tenant) == ("DENIED", "demo")
    assert dict(refused.detail)["asked"] == "pseudonym-of-other"


@pytest.mark.parametrize("failing", [Reason.AUDIT_DOWN, Reason.OVERLOADED])
async def test_a_read_that_cannot_be_recorded_is_refused(connect, log, failing) -> None:
    async with connect(GATEWAY) as stub:
        await appended(stub, [event(1)])

    async def down(event, *, producer=None):
        raise Refusal(failing)

    log.append = down
    async with connect(AUDITOR) as stub:
        for call_id in (1, 2):  # one that is there, one that is not
            asked = pb.GetRecordRequest(call_id=call_id.to_bytes(16))
            assert await reason_of(stub.GetRecord(asked)) is failing


async def test_a_flood_of_reads_is_limited_and_counted(connect, log) -> None:
    async with connect(GATEWAY) as stub:
        await appended(stub, [event(1)])
    asked = pb.GetRecordRequest(call_id=(1).to_bytes(16))
    reasons = Counter()
    async with connect(AUDITOR) as stub:
        for _ in range(8 * READS_MAX):
            try:
                await stub.GetRecord(asked)
            except grpc.aio.AioRpcError as failure:
                reasons[from_rpc_error(failure).reason] += 1

    told = notes(log)
    singly = [each for each in told if each.action == "log.read"]
    counts = [each for each in told if each.action == "reads.counted"]
    assert set(reasons) == {Reason.LIMITED}
    assert len(singly) + reasons[Reason.LIMITED] == 8 * READS_MAX
    assert sum(int(dict(each.detail)["count"]) for each in counts) == reasons[Reason.LIMITED]
    assert all((each.tenant, each.actor.spiffe_id) == ("demo", AUDITOR) for each in counts)


@pytest.mark.parametrize("uri", ["spiffe://elsewhere.example/tenant/demo/auditor", GATEWAY])
async def test_a_stranger_at_the_port_is_recorded(connect, log, uri) -> None:
    async with connect(uri) as stub:
        await reason_of(stub.GetRecord(pb.GetRecordRequest(call_id=bytes(16))))

    (told,) = notes(log)
    expected = "DENIED" if uri is GATEWAY else "UNAUTHENTICATED"
    assert (told.action, told.outcome, told.tenant) == ("access.refused", expected, "")
    assert dict(told.detail) == {"method": "GetRecord"}
    assert told.connection.tls_version == "TLSv1.3"


def archived(content, digest=None, *, owners=(), kind="policy.compliance"):
    digest = sha256(content).digest() if digest is None else digest
    return pb.ArchiveRequest(digest=digest, kind=kind, content=content, owners=owners)


async def test_what_a_digest_stands_for_is_kept_and_read(connect, log) -> None:
    async with connect(GATEWAY) as stub:
        await stub.Archive(archived(b"rules"))
        await stub.Archive(archived(b"rules"))  # may be repeated
        await stub.Archive(archived(b"theirs", owners=["other"]))
        await stub.Archive(archived(b"nobody's", owners=["-"]))
    async with connect(AUDITOR) as stub:
        found = await stub.GetArchived(pb.GetArchivedRequest(digest=sha256(b"rules").digest()))
        for hidden in (b"theirs", b"nobody's", b"none"):
            asked = pb.GetArchivedRequest(digest=sha256(hidden).digest())
            assert await reason_of(stub.GetArchived(asked)) is Reason.NOT_FOUND
    async with connect(AUDITOR) as stub:
        short = pb.GetArchivedRequest(digest=b"x")
        assert await reason_of(stub.GetArchived(short)) is Reason.INVALID_FIELD

    assert (found.kind, found.content) == ("policy.compliance", b"rules")
    puts = [each for each in notes(log) if each.action == "archive.put"]
    assert [dict(each.detail)["digest"] for each in puts] == [
        sha256(content).hexdigest() for content in (b"rules", b"theirs", b"nobody's")
    ]
    reads = [each.outcome for each in notes(log) if each.action == "log.read"]
    assert reads == ["ok", "NOT_FOUND", "NOT_FOUND", "NOT_FOUND", "INVALID_FIELD"]


@pytest.mark.parametrize(
    ("put", "field"),
    [
        (archived(b"rules", b"d" * 32), "digest"),
        (archived(b"rules", b""), "digest"),
        (archived(b""), "content"),
        (archived(b"x" * 1_001), "content"),
        (archived(b"rules", owners=["Not A Label"]), "owners"),
        (archived(b"rules", owners=["demo", "-"]), "owners"),
        (archived(b"rules", kind="no kind"), "kind"),
    ],
)
async def test_what_is_not_what_its_digest_says_is_not_kept(connect, log, put, field) -> None:
    async with connect(GATEWAY) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Archive(put)

    refusal = from_rpc_error(caught.value)
    assert (refusal.reason, refusal.field) == (Reason.INVALID_FIELD, field)
    assert log.events == []


async def test_only_our_services_fill_the_archive(connect, log) -> None:
    async with connect(AUDITOR) as stub:
        assert await reason_of(stub.Archive(archived(b"rules"))) is Reason.DENIED
