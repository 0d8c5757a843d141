"""An auditor's reads, against a small log on a real socket; what comes back is checked."""

from datetime import UTC, datetime
from functools import partial

import grpc
import pytest

from meshkit.contract import Phase, Reason, Refusal
from meshkit.tlog import (
    ListHashes,
    VerifierKey,
    checkpoint_text,
    consistency_proof,
    format_note,
    inclusion_proof,
    is_consistent,
    is_included,
    leaf_hash,
    root_of,
    signature_line,
)
from sealgate import AsyncAuditReader, InternalError, NotFoundError, ReceiptError
from sealgate.audit_search import Search
from sealgate.errors import LimitedError
from sealgate.v1 import audit_pb2 as pb
from sealgate.v1.audit_pb2_grpc import AuditServiceServicer, add_AuditServiceServicer_to_server

LEAVES = [f'{{"n":{n}}}'.encode() for n in range(7)]
HASHES = ListHashes([leaf_hash(leaf) for leaf in LEAVES])
CALL = b"c" * 16


class Log(AuditServiceServicer):
    def __init__(self, signer):
        self.signer = signer
        self.phase = 2
        self.asked, self.limited = [], 0

    async def GetRecord(self, request, _context):
        if (request.tenant, request.call_id) != ("acme", CALL):
            raise Refusal(Reason.NOT_FOUND)
        return pb.GetRecordResponse(records=[pb.Record(index=3, phase=self.phase, leaf=LEAVES[3])])

    async def GetByTrace(self, _request, _context):
        return pb.GetByTraceResponse(records=[pb.Record(index=3, phase=1, leaf=LEAVES[3])])

    async def Search(self, request, _context):
        self.asked.append((request.model, request.page_size, request.page_token))
        if self.limited:
            self.limited -= 1
            raise Refusal(Reason.LIMITED, retry_after_ms=1)
        number = int(request.page_token or "0")
        return pb.SearchResponse(
            records=[pb.Record(index=number, phase=1, leaf=LEAVES[number])] * (number != 1),
            next_page_token=str(number + 1) if number < 2 else "",
        )

    async def GetCheckpoint(self, _request, _context):
        text = checkpoint_text(self.signer.origin, 7, root_of(HASHES, 7))
        line = signature_line(self.signer.verifier, self.signer.log.sign(text.encode()))
        return pb.GetCheckpointResponse(note=format_note(text, line))

    async def GetInclusionProof(self, request, _context):
        hashes = inclusion_proof(HASHES, request.index, request.tree_size)
        return pb.GetInclusionProofResponse(hashes=hashes)

    async def GetConsistencyProof(self, request, _context):
        hashes = consistency_proof(HASHES, request.old_size, request.new_size)
        return pb.GetConsistencyProofResponse(hashes=hashes)


@pytest.fixture
def log(signer):
    return Log(signer)


@pytest.fixture
async def port(serve, log):
    async with serve(partial(add_AuditServiceServicer_to_server, log)) as found:
        yield found


@pytest.fixture
async def reader(port, tls, signer):
    async with AsyncAuditReader(f"localhost:{port}", tls=tls, vkey=signer.vkey) as made:
        yield made


async def test_a_record_is_in_the_log_that_the_checkpoint_vouches_for(reader):
    (record,) = await reader.records("acme", call_id=CALL)
    assert (record.index, record.phase) == (3, Phase.OUTCOME)
    checkpoint = await reader.checkpoint()
    proof = await reader.inclusion(record.index, checkpoint.size)
    assert is_included(leaf_hash(record.leaf), index=3, size=7, proof=proof, root=checkpoint.root)


async def test_a_search_goes_from_page_to_page_and_waits_at_a_limit(reader, log):
    log.limited = 2
    found = [record.index async for record in reader.search(Search(model="m"), page_size=5)]
    assert found == [0, 2]
    assert log.asked == [("m", 5, "")] * 3 + [("m", 5, "1"), ("m", 5, "2")]
    log.limited = 100
    with pytest.raises(LimitedError):
        [record async for record in reader.search(Search())]


def test_a_time_without_a_zone_is_no_time():
    with pytest.raises(ValueError, match="since has no time zone"):
        Search(since=datetime(2026, 11, 1)).request(0, "")  # noqa: DTZ001 -- the point
    asked = Search(until=datetime(2026, 11, 1, tzinfo=UTC)).request(0, "")
    assert asked.until.seconds == 1_793_491_200


async def test_an_older_tree_is_shown_to_be_part_of_this_one(reader):
    checkpoint = await reader.checkpoint()
    proof = await reader.consistency(4, 7)
    assert is_consistent(
        old=4, old_root=root_of(HASHES, 4), new=7, new_root=checkpoint.root, proof=proof
    )


async def test_records_are_found_by_trace(reader):
    (record,) = await reader.records("acme", trace_id=b"t" * 16)
    assert record.phase is Phase.INTENT


async def test_another_tenants_record_is_not_found(reader):
    with pytest.raises(NotFoundError):
        await reader.records("other", call_id=CALL)


@pytest.mark.parametrize("ids", [{}, {"call_id": CALL, "trace_id": CALL}])
async def test_one_id_it_must_be(reader, ids):
    with pytest.raises(ValueError, match="call id or a trace id"):
        await reader.records("acme", **ids)


async def test_another_logs_checkpoint_is_not_believed(port, tls, signer):
    stranger = str(VerifierKey(signer.origin, b"k" * 32))
    async with AsyncAuditReader(f"localhost:{port}", tls=tls, vkey=stranger) as reader:
        with pytest.raises(ReceiptError):
            await reader.checkpoint()


async def test_a_phase_of_a_later_version_is_an_error(reader, log):
    log.phase = 77
    with pytest.raises(InternalError):
        await reader.records("acme", call_id=CALL)


async def test_a_method_that_the_servicer_left_out_is_unimplemented(reader):
    """`Append` here: the generated base would answer from a thread, past identity."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await reader._stub.Append(iter([])).read()
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_malformed_verifier_key_is_a_value_error(tls):
    with pytest.raises(ValueError, match="verifier key"):
        AsyncAuditReader("localhost:1", tls=tls, vkey="nonsense")
