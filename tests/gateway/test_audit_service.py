"""The audit service's port: who may append, who may read, and what of it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial

import grpc
import pytest

from audit.servicer import SERVICE, AuditServicer, admits
from meshkit.authorization import Authorizer
from meshkit.contract import Reason
from meshkit.interceptors import MeshInterceptor
from meshkit.server import Serving, serving
from meshkit.status import from_rpc_error
from meshkit.tls import CertificateHolder
from sealgate.v1 import audit_pb2 as pb
from sealgate.v1.audit_pb2_grpc import AuditServiceStub, add_AuditServiceServicer_to_server
from tests.fakes import MemoryAudit
from tests.gateway.conftest import ASSISTANT

GATEWAY = "spiffe://sealgate.local/service/gateway"
AUDITOR = "spiffe://sealgate.local/tenant/demo/auditor"


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
def connect(authority, policies, log):
    """Return how to call the service as somebody: `async with connect(uri) as stub`."""

    @asynccontextmanager
    async def connected(uri):
        holder = CertificateHolder(authority.issue("spiffe://sealgate.local/service/audit"))
        caller = CertificateHolder(authority.issue(uri))
        guard = MeshInterceptor(trust_domain="sealgate.local", call_budget_ms=5_000, admits=admits)
        servicer = AuditServicer(log, Authorizer(policies))
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
        stream = stub.Append(iter([pb.AppendRequest(events=[event(1)])]))
        assert await reason_of(stream.read()) is Reason.DENIED
        assert log.events == []


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
