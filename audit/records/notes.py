"""Records what the audit service itself does: NOTE events, durable before the act has an effect.

    notes = Notes(log)
    await notes.note("log.read", tenant="acme", actor=actor, detail={"count": "2"})

What must be recorded is refused if its record is: `note` raises, and its caller does not go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from audit.records.ocsf import ACTIONS
from meshkit.contract import Reason, Refusal
from meshkit.note_event import note_event

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meshkit.contract import Actor, Appended, Connection, Event

__all__ = ["Notes", "Noting"]


class Noting(Protocol):
    """The part of a log that is needed here."""

    async def append(self, event: Event, *, producer: str | None = None) -> Appended:
        """See `audit.log.appender.AuditLog.append`."""
        ...


class Notes:
    """The audit service's own hand on its log."""

    def __init__(self, log: Noting, *, producer: str | None = None) -> None:
        self._log = log
        self._producer = producer

    async def note(
        self,
        action: str,
        *,
        tenant: str = "",
        actor: Actor | None = None,
        connection: Connection | None = None,
        outcome: str = "ok",
        subject: str = "",
        detail: Mapping[str, str] | None = None,
    ) -> Appended:
        """Record an act; when this returns, the record is durable. See `note_event`.

        Raises:
            Refusal: INVALID_FIELD (`action`: not in the table; or a detail that is no constant),
                AUDIT_DOWN, OVERLOADED: the act must not go on.
        """
        if action not in ACTIONS:
            raise Refusal(Reason.INVALID_FIELD, field="action")
        event = note_event(
            action,
            tenant=tenant,
            actor=actor,
            connection=connection,
            outcome=outcome,
            subject=subject,
            detail=detail,
        )
        return await self._log.append(event, producer=self._producer)
