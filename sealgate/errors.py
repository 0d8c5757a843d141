"""What may go wrong with a call, as exceptions: one class for each family of reasons.

    SealgateError
      InvalidRequestError   INVALID_FIELD; `field` is its name
      NotFoundError         NOT_FOUND
      UnauthenticatedError  UNAUTHENTICATED
      DeniedError           DENIED
      BlockedError          BLOCKED
      LimitedError          LIMITED; `retry_after_ms`
      OverloadedError       OVERLOADED; `retry_after_ms`
      OutOfTimeError        OUT_OF_TIME
      CallCancelledError    CANCELLED
      UnavailableError      COMPLIANCE_DOWN, CACHE_DOWN, INFERENCE_DOWN, AUDIT_DOWN, KEYS_DOWN; or
                            no reason at all: nobody was reached
      ConflictError         CONFLICT
      HeldError             HELD
      WrongStateError       WRONG_STATE
      EvidenceLostError     EVIDENCE_LOST
      InternalError         INTERNAL
      BrokenStreamError     a stream ended without saying how; what came before stands
      ReceiptError          a receipt does not hold; `step` says why (docs/receipts.md)

Texts are constants; no exception quotes a prompt or an answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from grpc import StatusCode

from meshkit.contract import Reason
from meshkit.status import from_rpc_error

if TYPE_CHECKING:
    from meshkit.contract import Receipt, Refusal
    from meshkit.status import RpcFailure

__all__ = [
    "BlockedError",
    "BrokenStreamError",
    "CallCancelledError",
    "ConflictError",
    "DeniedError",
    "EvidenceLostError",
    "HeldError",
    "InternalError",
    "InvalidRequestError",
    "LimitedError",
    "NotFoundError",
    "OutOfTimeError",
    "OverloadedError",
    "ReceiptError",
    "SealgateError",
    "UnauthenticatedError",
    "UnavailableError",
    "WrongStateError",
    "error_of",
    "error_of_rpc",
]


class SealgateError(Exception):
    """Any of them.

    Attributes:
        reason: Why, as the gateway says; None where this side found out by itself.
        field: Name of the request's field that is wrong, if the gateway named one.
        retry_after_ms: When it is worth another try, if the gateway said.
        receipt: Of the record of the refusal, if there is one; not checked.
    """

    def __init__(
        self,
        text: str,
        *,
        reason: Reason | None = None,
        field: str | None = None,
        retry_after_ms: int | None = None,
        receipt: Receipt | None = None,
    ) -> None:
        super().__init__(text if field is None else f"{text}: {field}")
        self.reason = reason
        self.field = field
        self.retry_after_ms = retry_after_ms
        self.receipt = receipt


class InvalidRequestError(SealgateError):
    """A field is outside its range."""


class NotFoundError(SealgateError):
    """No such model, record or proof, or none for this caller."""


class UnauthenticatedError(SealgateError):
    """Certificate or token is not accepted."""


class DeniedError(SealgateError):
    """Policy does not allow this call."""


class BlockedError(SealgateError):
    """The text holds data that policy forbids."""


class LimitedError(SealgateError):
    """A limit is used up."""


class OverloadedError(SealgateError):
    """The service is at its capacity."""


class OutOfTimeError(SealgateError):
    """The deadline passed, or leaves no time for useful work."""


class CallCancelledError(SealgateError):
    """The call was cancelled on this side."""


class UnavailableError(SealgateError):
    """A part of the service is down, or nobody could be reached."""


class ConflictError(SealgateError):
    """A record exists with other content."""


class HeldError(SealgateError):
    """A legal hold stands against it."""


class WrongStateError(SealgateError):
    """The state it is in does not allow this step."""


class EvidenceLostError(SealgateError):
    """The audit log contradicts an earlier checkpoint."""


class InternalError(SealgateError):
    """A defect of the service."""


class BrokenStreamError(SealgateError):
    """The stream ended without its final frame."""

    def __init__(self) -> None:
        super().__init__("stream ended without a final frame")


class ReceiptError(SealgateError):
    """The receipt is missing or does not hold.

    Attributes:
        step: Number of the first step of `meshkit.tlog.check_receipt` that failed; 0 if there was
            no receipt at all.
    """

    def __init__(self, step: int, *, receipt: Receipt | None = None) -> None:
        super().__init__(f"receipt does not hold, step {step}", receipt=receipt)
        self.step = step


def _class_of(reason: Reason) -> type[SealgateError]:  # noqa: C901, PLR0912 -- one list
    match reason:
        case Reason.INVALID_FIELD:
            return InvalidRequestError
        case Reason.NOT_FOUND:
            return NotFoundError
        case Reason.UNAUTHENTICATED:
            return UnauthenticatedError
        case Reason.DENIED:
            return DeniedError
        case Reason.BLOCKED:
            return BlockedError
        case Reason.LIMITED:
            return LimitedError
        case Reason.OVERLOADED:
            return OverloadedError
        case Reason.OUT_OF_TIME:
            return OutOfTimeError
        case Reason.CANCELLED:
            return CallCancelledError
        case (
            Reason.COMPLIANCE_DOWN
            | Reason.CACHE_DOWN
            | Reason.INFERENCE_DOWN
            | Reason.AUDIT_DOWN
            | Reason.KEYS_DOWN
        ):
            return UnavailableError
        case Reason.CONFLICT:
            return ConflictError
        case Reason.HELD:
            return HeldError
        case Reason.WRONG_STATE:
            return WrongStateError
        case Reason.EVIDENCE_LOST:
            return EvidenceLostError
        case Reason.INTERNAL:
            return InternalError
        case _:
            assert_never(reason)


def error_of(refusal: Refusal) -> SealgateError:
    """Turn a refusal into the exception of its family."""
    return _class_of(refusal.reason)(
        refusal.reason.value,
        reason=refusal.reason,
        field=refusal.field,
        retry_after_ms=refusal.retry_after_ms,
        receipt=refusal.receipt,
    )


def error_of_rpc(failure: RpcFailure) -> SealgateError:
    """Turn a failed RPC into the exception of its family."""
    refusal = from_rpc_error(failure)
    if refusal.reason is Reason.INTERNAL and failure.code() is StatusCode.UNAVAILABLE:
        return UnavailableError("nobody was reached")
    return error_of(refusal)
