"""A NOTE: an event about a service, not about a call."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from meshkit.call_id import new_call_id
from meshkit.contract import Connection, Event, Phase
from meshkit.w3c import current_trace, fresh_trace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meshkit.contract import Actor

__all__ = ["note_event"]


def note_event(
    action: str,
    *,
    tenant: str = "",
    actor: Actor | None = None,
    connection: Connection | None = None,
    outcome: str = "ok",
    subject: str = "",
    detail: Mapping[str, str] | None = None,
) -> Event:
    """Make one, of now. In a call it names that call's trace, else one of its own.

    Args:
        action: One of `audit.records.ocsf.ACTIONS`.
        tenant: Whom it concerns; empty, if the whole mesh.
        actor: Who did it; None, if a service did by itself.
        connection: Where it came from, if from outside.
        outcome: `ok`, or the name of a `Reason`.
        subject: Whom the data is about; only with a tenant.
        detail: Constants and numbers by name, at most 512 printable ASCII characters each. Never
            user text.
    """
    return Event(
        call_id=new_call_id(),
        phase=Phase.NOTE,
        tenant=tenant,
        occurred_at_us=time.time_ns() // 1_000,
        trace=current_trace() or fresh_trace(),
        actor=actor,
        subject=subject,
        connection=connection or Connection(),
        action=action,
        outcome=outcome,
        detail=tuple(sorted((detail or {}).items())),
    )
