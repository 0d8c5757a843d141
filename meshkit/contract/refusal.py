"""Why a call may end without an answer. PURE."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshkit.contract.audit import Receipt


class Reason(StrEnum):
    """Why a call was refused. The value is the only text a caller sees.

    A name is wire API (google.rpc.ErrorInfo.reason): add freely, never rename, never reuse.
    `meshkit.status` maps each to its gRPC code.
    """

    INVALID_FIELD = "a field of the request is outside the range it states"
    NOT_FOUND = "the thing asked for does not exist"
    UNAUTHENTICATED = "caller is not authenticated"
    DENIED = "policy does not allow this call"
    BLOCKED = "text holds data that policy forbids"
    LIMITED = "a limit is used up; retry later"
    OVERLOADED = "the service is at its capacity; retry later"
    OUT_OF_TIME = "deadline leaves no time for useful work"
    CANCELLED = "caller cancelled the call"
    COMPLIANCE_DOWN = "compliance is unavailable"
    CACHE_DOWN = "cache is unavailable"
    INFERENCE_DOWN = "inference is unavailable"
    AUDIT_DOWN = "audit log is unavailable"
    KEYS_DOWN = "key service is unavailable"
    CONFLICT = "record exists with other content"
    HELD = "a legal hold stands against it"
    WRONG_STATE = "the state it is in does not allow this step"
    EVIDENCE_LOST = "audit log contradicts an earlier checkpoint"
    INTERNAL = "internal error"


class Refusal(Exception):  # noqa: N818 -- a refusal is an answer, not a malfunction
    """A call ends here, for a closed list of reasons.

    Takes no free text, so user text cannot leak through one. `field` is the name of a proto field
    (INVALID_FIELD only), never its value.
    """

    def __init__(
        self, reason: Reason, *, field: str | None = None, retry_after_ms: int | None = None
    ) -> None:
        super().__init__(reason.name if field is None else f"{reason.name} {field}")
        self.reason = reason
        self.field = field
        self.retry_after_ms = retry_after_ms
        self.receipt: Receipt | None = None
        """Set by the gateway once the refusal's OUTCOME is durable; travels in trailers."""
