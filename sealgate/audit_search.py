"""What an auditor searches the log for.

    wanted = Search(model="smollm2", outcome="BLOCKED", since=datetime(2026, 11, 1, tzinfo=UTC))
    async for record in reader.search(wanted):
        print(record.index, record.leaf.decode())

Names are names here; the service knows their pseudonyms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshkit.contract import Phase
from sealgate.v1 import audit_pb2 as pb

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["Search"]

_PHASES = {
    None: pb.PHASE_UNSPECIFIED,
    Phase.INTENT: pb.PHASE_INTENT,
    Phase.OUTCOME: pb.PHASE_OUTCOME,
    Phase.NOTE: pb.PHASE_NOTE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """A record must fit everything that is given; what is empty does not matter."""

    tenant: str = ""
    """Empty: the caller's own."""
    since: datetime | None = None
    """When it happened, as the producer says; included. With a time zone."""
    until: datetime | None = None
    """Excluded."""
    actor: str = ""
    """SPIFFE id of the workload that called."""
    user: str = ""
    subject: str = ""
    """Whom the data is about, as the caller said it."""
    model: str = ""
    trace_id: bytes = b""
    verdict_type: str = ""
    """`EMAIL`, `PERSON`, …: with `verdict_action`, one verdict must have both."""
    verdict_action: str = ""
    outcome: str = ""
    """`released`, `ok`, or a Reason's name."""
    action: str = ""
    phase: Phase | None = None
    oldest_first: bool = False

    def request(self, page_size: int, page_token: str) -> pb.SearchRequest:
        """Write it for the wire.

        Raises:
            ValueError: a time has no time zone.
        """
        request = pb.SearchRequest(
            tenant=self.tenant,
            actor=self.actor,
            user=self.user,
            subject=self.subject,
            model=self.model,
            trace_id=self.trace_id,
            verdict_type=self.verdict_type,
            verdict_action=self.verdict_action,
            outcome=self.outcome,
            action=self.action,
            phase=_PHASES[self.phase],
            oldest_first=self.oldest_first,
            page_size=page_size,
            page_token=page_token,
        )
        for name in ("since", "until"):
            if (when := getattr(self, name)) is not None:
                if when.tzinfo is None:
                    msg = f"{name} has no time zone"
                    raise ValueError(msg)
                getattr(request, name).FromDatetime(when)
        return request
