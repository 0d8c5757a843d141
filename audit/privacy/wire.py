"""Payloads and holds over the wire: between sealgate.v1 and our own types."""

from __future__ import annotations

from typing import TYPE_CHECKING

from audit.privacy.holds import HoldScope
from meshkit.contract import Phase, Reason, Refusal
from meshkit.wire import messages_to_wire
from sealgate.v1 import audit_pb2
from sealgate.v1 import payloads_pb2 as pb

if TYPE_CHECKING:
    from audit.privacy.disclosure import Item
    from audit.privacy.holds import Hold

__all__ = ["hold_to_wire", "item_to_wire", "scope_from_wire"]

_PHASES = {
    Phase.INTENT: audit_pb2.PHASE_INTENT,
    Phase.OUTCOME: audit_pb2.PHASE_OUTCOME,
    Phase.NOTE: audit_pb2.PHASE_NOTE,
}
_SCOPES = {
    HoldScope.TENANT: pb.HOLD_SCOPE_TENANT,
    HoldScope.CLASS: pb.HOLD_SCOPE_CLASS,
    HoldScope.SUBJECT: pb.HOLD_SCOPE_SUBJECT,
    HoldScope.CALL: pb.HOLD_SCOPE_CALL,
}
_SCOPES_BACK = {number: scope for scope, number in _SCOPES.items()}


def scope_from_wire(scope: pb.HoldScope.ValueType) -> HoldScope:
    """Read what a hold is to be on. Raises Refusal: INVALID_FIELD."""
    found = _SCOPES_BACK.get(scope)
    if found is None:
        raise Refusal(Reason.INVALID_FIELD, field="scope")
    return found


def item_to_wire(item: Item) -> pb.PayloadItem:
    """Write an opened payload."""
    return pb.PayloadItem(
        index=item.index,
        call_id=item.call_id,
        phase=_PHASES[item.phase],
        received_us=item.received_us,
        screened=messages_to_wire(item.payload.screened),
        released=item.payload.released,
        retention=item.retention,
        salts=item.salts,
    )


def hold_to_wire(hold: Hold) -> pb.Hold:
    """Write a hold."""
    return pb.Hold(
        id=hold.id,
        scope=_SCOPES[hold.scope],
        value=hold.value,
        pseudonyms=hold.pseudonyms,
        reference=hold.reference,
        set_us=hold.set_us,
    )
