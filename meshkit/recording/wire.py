"""Events for the audit service and what it answers: between our own types and sealgate.v1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshkit.contract import Appended, Phase, Reason, Refusal
from meshkit.wire import (
    counts_to_wire,
    finish_to_wire,
    messages_to_wire,
    receipt_from_wire,
    usage_to_wire,
)
from sealgate.v1 import audit_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshkit.appends import Pending
    from meshkit.contract import Actor, Commitment, Document, Event, Payload

__all__ = ["ack_from_wire", "append_to_wire", "archive_to_wire", "event_to_wire"]

_PHASES: dict[Phase, pb.Phase.ValueType] = {
    Phase.INTENT: pb.PHASE_INTENT,
    Phase.OUTCOME: pb.PHASE_OUTCOME,
    Phase.NOTE: pb.PHASE_NOTE,
}
_PHASES_BACK: dict[int, Phase] = {number: phase for phase, number in _PHASES.items()}


def event_to_wire(event: Event, *, sampled: bool) -> pb.AuditEvent:
    """Write an event for the audit log; what is None there is absent here."""
    made = pb.AuditEvent(
        call_id=event.call_id,
        phase=_PHASES[event.phase],
        tenant=event.tenant,
        subject=event.subject,
        trace_id=event.trace.trace_id,
        span_id=event.trace.span_id,
        connection=pb.Connection(
            tls_version=event.connection.tls_version,
            key_exchange_group=event.connection.key_exchange_group,
            peer_ip=event.connection.peer_ip,
        ),
        action=event.action,
        outcome=event.outcome,
        model=event.model,
        model_digest=event.model_digest,
        prompt_template_digest=event.prompt_template_digest,
        compliance_policy_digest=event.compliance_policy_digest,
        authorization_policy_digest=event.authorization_policy_digest,
        purpose=event.purpose,
        counts=counts_to_wire(event.counts),
        usage=usage_to_wire(event.usage),
        cache_tier=event.cache_tier,
        duration_us=event.duration_us,
        first_token_us=event.first_token_us,
        prompt_received=_commitment(event.prompt_received),
        prompt_screened=_commitment(event.prompt_screened),
        answer_released=_commitment(event.answer_released),
        answer_delivered=_commitment(event.answer_delivered),
        payload=_payload(event.payload),
        detail=dict(event.detail),
        trace_sampled=sampled,
    )
    made.occurred_at.FromMicroseconds(event.occurred_at_us)
    if event.finish_reason is not None:
        made.finish_reason = finish_to_wire(event.finish_reason)
    if event.actor is not None:
        made.actor.CopyFrom(_actor(event.actor))
    return made


def append_to_wire(batch: Iterable[Pending]) -> pb.AppendRequest:
    """Write a batch of events."""
    return pb.AppendRequest(
        events=[event_to_wire(each.event, sampled=each.sampled) for each in batch]
    )


def ack_from_wire(ack: pb.AppendAck) -> tuple[tuple[bytes, Phase], Appended | Refusal]:
    """Read what became of an event: its key, and its place or why it has none.

    Raises:
        KeyError: the audit service is none of ours.
    """
    key = (ack.call_id, _PHASES_BACK[ack.phase])
    if ack.WhichOneof("result") != "appended":
        refused = ack.refusal
        return key, Refusal(
            Reason[refused.reason],
            field=refused.field or None,
            retry_after_ms=refused.retry_after_ms or None,
        )
    made = ack.appended
    receipt = receipt_from_wire(made.receipt) if made.HasField("receipt") else None
    return key, Appended(index=made.index, leaf_hash=made.leaf_hash, receipt=receipt)


def archive_to_wire(document: Document) -> pb.ArchiveRequest:
    """Write a document for the archive."""
    return pb.ArchiveRequest(
        digest=document.digest,
        kind=document.kind,
        content=document.content,
        owners=document.owners,
    )


def _commitment(made: Commitment | None) -> pb.Commitment | None:
    return None if made is None else pb.Commitment(salt=made.salt, value=made.value)


def _payload(payload: Payload | None) -> pb.AuditPayload | None:
    if payload is None:
        return None
    return pb.AuditPayload(screened=messages_to_wire(payload.screened), released=payload.released)


def _actor(actor: Actor) -> pb.Actor:
    return pb.Actor(
        spiffe_id=actor.spiffe_id,
        user=actor.user or "",
        roles=sorted(actor.roles),
        workload=actor.workload,
    )
