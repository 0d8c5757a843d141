"""What the cache is asked and what it answers: between sealgate.v1 and our own types."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshkit.contract import CachedAnswer, Ended, Question, Reason, Refusal
from meshkit.wire import (
    finish_from_wire,
    finish_to_wire,
    parameters_from_wire,
    scope_from_wire,
    screened_from_wire,
    usage_from_wire,
    usage_to_wire,
    verdict_to_wire,
)
from sealgate.v1 import cache_pb2 as pb

if TYPE_CHECKING:
    from meshkit.contract import CacheMiss, TraceContext

__all__ = ["answered", "read_ended", "read_question", "read_wait_s"]

_DIGEST_BYTES = 32
WAIT_MAX_S = 60


def read_question(question: pb.Question, trace: TraceContext) -> Question:
    """Read a question; whether compliance vouches for it is the service's to see.

    Raises:
        Refusal: INVALID_FIELD.
    """
    if len(question.model_digest) != _DIGEST_BYTES:
        raise Refusal(Reason.INVALID_FIELD, field="question.model_digest")
    return Question(
        scope=scope_from_wire(question.scope, trace),
        screened=screened_from_wire(question.screened),
        model_digest=question.model_digest,
        parameters=parameters_from_wire(question.parameters),
    )


def read_wait_s(request: pb.GetRequest) -> float | None:
    """Read how long the asker would wait; None where it leaves that to us.

    Raises:
        Refusal: INVALID_FIELD.
    """
    if not request.HasField("wait_max"):
        return None
    wait_s = request.wait_max.seconds + request.wait_max.nanos / 1e9
    if not 0 <= wait_s <= WAIT_MAX_S:
        raise Refusal(Reason.INVALID_FIELD, field="wait_max")
    return wait_s


def read_ended(request: pb.PutRequest) -> Ended:
    """Read how the answer ended. Raises Refusal: INVALID_FIELD."""
    return Ended(
        finish_reason=finish_from_wire(request.finish_reason), usage=usage_from_wire(request.usage)
    )


def answered(found: CachedAnswer | CacheMiss) -> pb.GetResponse:
    """Write what was found."""
    if not isinstance(found, CachedAnswer):
        return pb.GetResponse(miss=pb.CacheMiss(lease=found.lease))
    return pb.GetResponse(
        hit=pb.CachedAnswer(
            text=found.text,
            finish_reason=finish_to_wire(found.finish_reason),
            usage=usage_to_wire(found.usage),
            verdict=verdict_to_wire(found.verdict),
            tier=found.tier,
        )
    )
