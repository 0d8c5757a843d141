"""Events as they come over the wire, and what goes back: between sealgate.v1 and our own types.

Lengths and ranges of an event are `check_event`'s business; here an enum that nobody
knows, or a part that is missing, is refused by its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from audit.search.questions import Question
from meshkit.contract import (
    Actor,
    Appended,
    Commitment,
    Connection,
    Event,
    Payload,
    Phase,
    Reason,
    Refusal,
    TraceContext,
    Usage,
)
from meshkit.remembered import remembered
from meshkit.wire import (
    counts_from_wire,
    finish_from_wire,
    messages_from_wire,
    usage_from_wire,
    write_receipt,
)
from sealgate.v1 import audit_pb2 as pb

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from meshkit.contract import Record

__all__ = ["event_from_wire", "question_from_wire", "record_to_wire", "write_ack"]

_PHASES = {
    Phase.INTENT: pb.PHASE_INTENT,
    Phase.OUTCOME: pb.PHASE_OUTCOME,
    Phase.NOTE: pb.PHASE_NOTE,
}
_PHASES_BACK = {number: phase for phase, number in _PHASES.items()}
_NO_USAGE = Usage()


def event_from_wire(event: pb.AuditEvent) -> Event:
    """Read an event.

    Raises:
        Refusal: INVALID_FIELD, for an unknown enum value or a missing time.
    """
    phase = _PHASES_BACK.get(event.phase)
    if phase is None:
        raise Refusal(Reason.INVALID_FIELD, field="phase")
    if not event.HasField("occurred_at"):
        raise Refusal(Reason.INVALID_FIELD, field="occurred_at")
    return Event(
        call_id=event.call_id,
        phase=phase,
        tenant=event.tenant,
        occurred_at_us=_microseconds(event.occurred_at),
        trace=TraceContext(trace_id=event.trace_id, span_id=event.span_id),
        actor=(
            _actor(event.tenant, event.actor.SerializeToString())
            if event.HasField("actor")
            else None
        ),
        subject=event.subject,
        connection=_connection(event.connection.SerializeToString()),
        action=event.action,
        outcome=event.outcome,
        finish_reason=finish_from_wire(event.finish_reason) if event.finish_reason else None,
        model=event.model,
        model_digest=event.model_digest,
        prompt_template_digest=event.prompt_template_digest,
        compliance_policy_digest=event.compliance_policy_digest,
        authorization_policy_digest=event.authorization_policy_digest,
        purpose=event.purpose,
        counts=counts_from_wire(event.counts) if event.counts else (),
        usage=usage_from_wire(event.usage) if event.HasField("usage") else _NO_USAGE,
        cache_tier=event.cache_tier,
        duration_us=event.duration_us,
        first_token_us=event.first_token_us,
        prompt_received=_commitment(event, "prompt_received"),
        prompt_screened=_commitment(event, "prompt_screened"),
        answer_released=_commitment(event, "answer_released"),
        answer_delivered=_commitment(event, "answer_delivered"),
        payload=_payload(event),
        detail=tuple(sorted(event.detail.items())) if event.detail else (),
    )


def write_ack(event: pb.AuditEvent, result: Appended | Refusal, ack: pb.AppendAck) -> None:
    """Write what became of an event; in place, for a message put into another one is copied."""
    ack.call_id, ack.phase = event.call_id, event.phase
    if isinstance(result, Appended):
        appended = ack.appended
        appended.index = result.index
        appended.leaf_hash = result.leaf_hash
        if result.receipt is not None:
            write_receipt(result.receipt, appended.receipt)
        return
    ack.refusal.reason = result.reason.name
    ack.refusal.field = result.field or ""
    ack.refusal.retry_after_ms = result.retry_after_ms or 0


def record_to_wire(record: Record) -> pb.Record:
    """Write a record: its leaf byte for byte."""
    return pb.Record(index=record.index, phase=_PHASES[record.phase], leaf=record.leaf)


def question_from_wire(request: pb.SearchRequest) -> Question:
    """Read what is searched for.

    Raises:
        Refusal: INVALID_FIELD, for an unknown phase.
    """
    if request.phase and request.phase not in _PHASES_BACK:
        raise Refusal(Reason.INVALID_FIELD, field="phase")
    return Question(
        since_us=_microseconds(request.since),
        until_us=_microseconds(request.until) if request.HasField("until") else None,
        actor=request.actor,
        user=request.user,
        subject=request.subject,
        model=request.model,
        trace_id=request.trace_id,
        verdict_type=request.verdict_type,
        verdict_action=request.verdict_action,
        outcome=request.outcome,
        action=request.action,
        phase=_PHASES_BACK.get(request.phase),
        newest_first=not request.oldest_first,
    )


def _microseconds(stamp: Timestamp) -> int:
    return stamp.seconds * 1_000_000 + stamp.nanos // 1_000


@remembered
def _actor(tenant: str, serialised: bytes) -> Actor:
    actor = pb.Actor.FromString(serialised)
    return Actor(
        spiffe_id=actor.spiffe_id,
        tenant=tenant,
        workload=actor.workload,
        user=actor.user or None,
        roles=frozenset(actor.roles),
    )


@remembered
def _connection(serialised: bytes) -> Connection:
    connection = pb.Connection.FromString(serialised)
    return Connection(
        tls_version=connection.tls_version,
        key_exchange_group=connection.key_exchange_group,
        peer_ip=connection.peer_ip,
    )


def _commitment(event: pb.AuditEvent, name: str) -> Commitment | None:
    if not event.HasField(name):  # type: ignore[arg-type] # one of the four, by name
        return None
    given = getattr(event, name)
    return Commitment(salt=given.salt, value=given.value)


def _payload(event: pb.AuditEvent) -> Payload | None:
    if not event.HasField("payload"):
        return None
    return Payload(
        screened=messages_from_wire(event.payload.screened), released=event.payload.released
    )
