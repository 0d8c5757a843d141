"""Typed errors survive the wire, and strangers' statuses promise nothing."""

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from meshkit.contract import Reason, Receipt, Refusal
from meshkit.status import (
    DETAILS_TRAILER,
    RETRY_AFTER_MS_MAX,
    code_of,
    from_rpc_error,
    to_status,
)

fields = st.none() | st.from_regex(r"[a-z_.]{1,40}", fullmatch=True)
delays = st.none() | st.integers(0, RETRY_AFTER_MS_MAX)
hashes = st.binary(min_size=32, max_size=32)
receipts = st.none() | st.builds(
    Receipt,
    origin=st.text(max_size=30),
    index=st.integers(0, 2**63),
    leaf_hash=hashes,
    call_id=st.binary(min_size=16, max_size=16),
    trace_id=st.binary(min_size=16, max_size=16),
    prompt_salt=hashes,
    prompt_commitment=hashes,
    key=hashes,
    key_endorsement=st.binary(max_size=80),
    signature=st.binary(min_size=64, max_size=64),
)


class Failure:
    """What a client holds."""

    def __init__(self, code, trailers=()):
        self._code, self._trailers = code, trailers

    def code(self):
        return self._code

    def trailing_metadata(self):
        return self._trailers


def details_of(refusal):
    status = Status.FromString(dict(to_status(refusal).trailing_metadata)[DETAILS_TRAILER])
    found = {}
    for packed in status.details:
        for kind in (ErrorInfo, BadRequest, RetryInfo, QuotaFailure):
            detail = kind()
            if packed.Unpack(detail):
                found[kind] = detail
    return found


@given(st.sampled_from(Reason), fields, delays, receipts)
def test_what_is_told_is_what_is_heard(reason, field, delay, receipt):
    refusal = Refusal(reason, field=field, retry_after_ms=delay)
    refusal.receipt = receipt
    told = to_status(refusal)

    heard = from_rpc_error(Failure(told.code, told.trailing_metadata))

    assert (heard.reason, heard.field, heard.retry_after_ms) == (reason, field, delay)
    assert heard.receipt == receipt


@pytest.mark.parametrize("reason", Reason)
def test_the_text_is_the_reasons_constant_and_the_code_fits(reason):
    told = to_status(Refusal(reason))
    assert told.details == reason.value
    assert told.code is code_of(reason) is not grpc.StatusCode.UNKNOWN
    info = details_of(Refusal(reason))[ErrorInfo]
    assert (info.domain, info.reason) == ("sealgate", reason.name)


def test_an_invalid_field_is_named():
    (violation,) = details_of(Refusal(Reason.INVALID_FIELD, field="top_p"))[
        BadRequest
    ].field_violations
    assert (violation.field, violation.description) == ("top_p", Reason.INVALID_FIELD.value)


def test_a_used_up_limit_says_when_and_that_it_is_a_quota():
    found = details_of(Refusal(Reason.LIMITED, retry_after_ms=1_500))
    assert found[RetryInfo].retry_delay.ToMilliseconds() == 1_500
    assert found[QuotaFailure].violations[0].description == Reason.LIMITED.value


@given(st.sampled_from(grpc.StatusCode).filter(lambda code: code is not grpc.StatusCode.OK))
def test_a_status_from_elsewhere_maps_by_its_code_or_to_the_neighbour_being_down(code):
    heard = from_rpc_error(Failure(code), down=Reason.CACHE_DOWN)
    assert heard.reason is Reason.CACHE_DOWN or code_of(heard.reason) is code


def test_details_that_belie_the_code_are_not_believed():
    trailers = to_status(Refusal(Reason.LIMITED, retry_after_ms=5)).trailing_metadata
    heard = from_rpc_error(Failure(grpc.StatusCode.PERMISSION_DENIED, trailers))
    assert (heard.reason, heard.retry_after_ms) == (Reason.DENIED, None)


def test_another_domains_reason_is_not_ours():
    packed = Any()
    packed.Pack(ErrorInfo(domain="elsewhere", reason="BLOCKED"))
    raw = Status(code=7, details=[packed]).SerializeToString()
    failure = Failure(grpc.StatusCode.PERMISSION_DENIED, ((DETAILS_TRAILER, raw),))
    assert from_rpc_error(failure).reason is Reason.DENIED


@given(st.binary(max_size=60))
def test_garbage_in_trailers_is_survived(raw):
    trailers = ((DETAILS_TRAILER, raw), ("sealgate-receipt-bin", raw))
    heard = from_rpc_error(Failure(grpc.StatusCode.UNAVAILABLE, trailers), down=Reason.AUDIT_DOWN)
    assert heard.reason is Reason.AUDIT_DOWN


def test_a_strangers_field_name_that_is_text_is_dropped():
    told = to_status(Refusal(Reason.INVALID_FIELD, field="ada@example.org wrote"))
    assert from_rpc_error(Failure(told.code, told.trailing_metadata)).field is None
