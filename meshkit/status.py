"""A `Refusal` as a gRPC status, and back: typed errors survive the wire.

    Refusal(LIMITED, retry_after_ms=250)
      -> RESOURCE_EXHAUSTED "a limit is used up; retry later"
         grpc-status-details-bin: google.rpc.Status{ErrorInfo{domain "sealgate", reason "LIMITED"},
                                                    RetryInfo{0.25s}, QuotaFailure}
      -> Refusal(LIMITED, retry_after_ms=250)

    INVALID_FIELD  + BadRequest (the field's name, a constant text)
    retry_after_ms + RetryInfo
    LIMITED        + QuotaFailure (constants)
    receipt        + trailer `sealgate-receipt-bin` (sealgate.v1.Receipt)

Constants out, never a value and never user text. A status from elsewhere (a proxy, C-core, an
older peer) has no ErrorInfo of ours; it maps by its code, to the reason that promises least.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, assert_never

from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from meshkit.contract import Reason, Refusal
from meshkit.wire import receipt_from_bytes, receipt_to_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.message import Message

__all__ = [
    "DETAILS_TRAILER",
    "DOMAIN",
    "RECEIPT_TRAILER",
    "RpcFailure",
    "Told",
    "code_of",
    "from_rpc_error",
    "to_status",
]

DOMAIN = "sealgate"
"""ErrorInfo.domain of every reason of ours."""

DETAILS_TRAILER = "grpc-status-details-bin"
"""Where a google.rpc.Status travels, by gRPC's convention."""

RECEIPT_TRAILER = "sealgate-receipt-bin"
"""Where the receipt of a refusal travels."""

RETRY_AFTER_MS_MAX = 86_400_000
"""A day: what is longer in a stranger's RetryInfo is cut to this."""

_FIELD_NAME = re.compile(r"[A-Za-z0-9_.\[\]]{1,64}")


class Told(NamedTuple):
    """What a caller is told: the arguments of `context.abort`, in order."""

    code: StatusCode
    details: str
    trailing_metadata: tuple[tuple[str, str | bytes], ...]


class RpcFailure(Protocol):
    """What `grpc.aio.AioRpcError` and the synchronous `grpc.RpcError` of a call have in common."""

    def code(self) -> StatusCode:
        """Tell the status code."""
        ...

    def trailing_metadata(self) -> Iterable[Any] | None:
        """Tell the trailers: pairs of name and value."""
        ...


def code_of(reason: Reason) -> StatusCode:  # noqa: C901, PLR0912 -- one list, one match
    """Map a reason to its gRPC code. The type checker proves that none is missing.

    Source: https://github.com/grpc/grpc/blob/master/doc/statuscodes.md
    """
    match reason:
        case Reason.INVALID_FIELD:
            return StatusCode.INVALID_ARGUMENT
        case Reason.NOT_FOUND:
            return StatusCode.NOT_FOUND
        case Reason.UNAUTHENTICATED:
            return StatusCode.UNAUTHENTICATED
        case Reason.DENIED | Reason.BLOCKED:
            return StatusCode.PERMISSION_DENIED
        case Reason.LIMITED | Reason.OVERLOADED:
            return StatusCode.RESOURCE_EXHAUSTED
        case Reason.OUT_OF_TIME:
            return StatusCode.DEADLINE_EXCEEDED
        case Reason.CANCELLED:
            return StatusCode.CANCELLED
        case (
            Reason.COMPLIANCE_DOWN
            | Reason.CACHE_DOWN
            | Reason.INFERENCE_DOWN
            | Reason.AUDIT_DOWN
            | Reason.KEYS_DOWN
        ):
            return StatusCode.UNAVAILABLE
        case Reason.CONFLICT:
            return StatusCode.ALREADY_EXISTS
        case Reason.HELD | Reason.WRONG_STATE:
            return StatusCode.FAILED_PRECONDITION
        case Reason.EVIDENCE_LOST:
            return StatusCode.DATA_LOSS
        case Reason.INTERNAL:
            return StatusCode.INTERNAL
        case _:
            assert_never(reason)


_NOT_AGAIN = ("grpc-retry-pushback-ms", "-1")
"""Clients make a call again that gRPC cancelled unseen (`meshkit.channel`); this one was seen.

Source: gRFC A6, pushback.
"""


def to_status(refusal: Refusal) -> Told:
    """Turn a refusal into what its caller is told.

    Cost: 1 us for a reason told before; 25 us for a new combination of reason, field and delay.
    """
    trailers: tuple[tuple[str, str | bytes], ...] = (
        (DETAILS_TRAILER, _details(refusal.reason, refusal.field, refusal.retry_after_ms)),
    )
    if refusal.receipt is not None:
        trailers = (*trailers, (RECEIPT_TRAILER, receipt_to_bytes(refusal.receipt)))
    if refusal.reason is Reason.CANCELLED:
        trailers = (*trailers, _NOT_AGAIN)
    return Told(code_of(refusal.reason), refusal.reason.value, trailers)


def from_rpc_error(error: RpcFailure, *, down: Reason = Reason.INTERNAL) -> Refusal:
    """Rebuild the refusal that a peer told us, receipt included.

    Args:
        error: A failed RPC, of grpc.aio or of synchronous gRPC.
        down: What it means that the peer cannot be reached, is broken or speaks another language;
            a service passes its neighbour's, such as `Reason.CACHE_DOWN`.
    """
    trailers = dict(error.trailing_metadata() or ())
    code = error.code()
    refusal = _typed(trailers.get(DETAILS_TRAILER), code) or Refusal(_reason_of(code, down))
    receipt = trailers.get(RECEIPT_TRAILER)
    refusal.receipt = receipt_from_bytes(receipt) if isinstance(receipt, bytes) else None
    return refusal


@lru_cache(maxsize=1_024)
def _details(reason: Reason, field: str | None, retry_after_ms: int | None) -> bytes:
    details: list[Message] = [ErrorInfo(domain=DOMAIN, reason=reason.name)]
    if field is not None:
        violation = BadRequest.FieldViolation(field=field, description=Reason.INVALID_FIELD.value)
        details.append(BadRequest(field_violations=[violation]))
    if retry_after_ms is not None:
        retry = RetryInfo()
        retry.retry_delay.FromMilliseconds(retry_after_ms)
        details.append(retry)
    if reason is Reason.LIMITED:
        spent = QuotaFailure.Violation(subject=DOMAIN, description=Reason.LIMITED.value)
        details.append(QuotaFailure(violations=[spent]))
    status = Status(code=code_of(reason).value[0], message=reason.value)
    status.details.extend(_packed(each) for each in details)
    raw: bytes = status.SerializeToString()
    return raw


def _packed(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def _typed(raw: str | bytes | None, code: StatusCode) -> Refusal | None:
    """Read our own details; None if they are not ours, broken, or belie the code they came with."""
    if not isinstance(raw, bytes):
        return None
    info, bad, retry = ErrorInfo(), BadRequest(), RetryInfo()
    try:
        for detail in Status.FromString(raw).details:
            _ = detail.Unpack(info) or detail.Unpack(bad) or detail.Unpack(retry)
    except DecodeError:
        return None
    reason = Reason.__members__.get(info.reason) if info.domain == DOMAIN else None
    if reason is None or code_of(reason) is not code:
        return None
    return Refusal(reason, field=_field(bad), retry_after_ms=_delay_ms(retry))


def _field(bad: BadRequest) -> str | None:
    name = bad.field_violations[0].field if bad.field_violations else ""
    return name if _FIELD_NAME.fullmatch(name) else None


def _delay_ms(retry: RetryInfo) -> int | None:
    if not retry.HasField("retry_delay"):
        return None
    delay_ms: int = retry.retry_delay.ToMilliseconds()
    return min(max(0, delay_ms), RETRY_AFTER_MS_MAX)


_REASONS = {
    StatusCode.INVALID_ARGUMENT: Reason.INVALID_FIELD,
    StatusCode.NOT_FOUND: Reason.NOT_FOUND,
    StatusCode.UNAUTHENTICATED: Reason.UNAUTHENTICATED,
    StatusCode.PERMISSION_DENIED: Reason.DENIED,
    StatusCode.RESOURCE_EXHAUSTED: Reason.OVERLOADED,
    StatusCode.DEADLINE_EXCEEDED: Reason.OUT_OF_TIME,
    StatusCode.CANCELLED: Reason.CANCELLED,
    StatusCode.ALREADY_EXISTS: Reason.CONFLICT,
}
"""For statuses that are not ours. A code that is missing here means that the peer is `down`."""


def _reason_of(code: StatusCode, down: Reason) -> Reason:
    return _REASONS.get(code, down)
