"""What is to be erased, written down before the first of it goes.

    plans/<call id of the event that will tell>.json

Crash at any point, and the next start finishes the plan: every step may be repeated, and the event
at the end has its call id, its time and its counts from here, so that it is in the log once and
tells of all of it. The file of an erasure holds the subject's id, as caches must be told it; it is
readable to the service alone, and removed as soon as the event is durable.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from typing import TYPE_CHECKING, Any

from audit.privacy.payloads import Partition
from meshkit.call_id import new_call_id
from meshkit.contract import Actor, Connection, Event, Phase, Reason, Refusal, TraceContext
from meshkit.files import clear_unfinished, fsync_folder, write_private
from meshkit.w3c import current_trace, fresh_trace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["ERASE", "EXPIRE", "Plan", "Plans", "day_text"]

ERASE, EXPIRE = "subject.erase", "payload.expire"
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()


def day_text(day: int) -> str:
    """Write a day since 1970 in ISO 8601."""
    return date.fromordinal(_EPOCH_ORDINAL + day).isoformat()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One erasure, or one partition that is over."""

    action: str
    call_id: bytes
    occurred_us: int
    tenant: str
    subject: str = ""
    partition: Partition | None = None
    """EXPIRE: it goes as a whole."""
    key_ids: tuple[bytes, ...] = ()
    places: tuple[str, ...] = ()
    """Payloads to be blanked."""
    detail: Mapping[str, str] = field(default_factory=dict)
    """Of the event: counts and ids, no personal data."""
    actor: Actor | None = None
    trace: TraceContext
    purged: bool = False
    """ERASE: caches have forgotten, and `detail` says how many entries."""

    @classmethod
    def erase(
        cls,
        tenant: str,
        subject: str,
        *,
        actor: Actor | None,
        key_ids: Sequence[bytes],
        places: Sequence[str],
        detail: Mapping[str, str],
    ) -> Plan:
        """Plan an erasure, of now."""
        return cls(
            action=ERASE,
            call_id=new_call_id(),
            occurred_us=time.time_ns() // 1_000,
            tenant=tenant,
            subject=subject,
            key_ids=tuple(key_ids),
            places=tuple(places),
            detail=detail,
            actor=actor,
            trace=current_trace() or fresh_trace(),
        )

    @classmethod
    def expire(
        cls,
        tenant: str,
        partition: Partition,
        *,
        key_ids: Sequence[bytes],
        places: Sequence[str],
        whole: bool,
        detail: Mapping[str, str],
    ) -> Plan:
        """Plan the end of a partition; not `whole`: a hold keeps some of it."""
        return cls(
            action=EXPIRE,
            call_id=new_call_id(),
            occurred_us=time.time_ns() // 1_000,
            tenant=tenant,
            partition=partition if whole else None,
            key_ids=tuple(key_ids),
            places=() if whole else tuple(places),
            detail=detail,
            trace=fresh_trace(),
            purged=True,
        )

    def with_purged(self, entries: int) -> Plan:
        """Note that caches have forgotten."""
        return replace(self, purged=True, detail={**self.detail, "cached": str(entries)})

    @property
    def event(self) -> Event:
        """What will tell of it: the same event each time."""
        return Event(
            call_id=self.call_id,
            phase=Phase.NOTE,
            tenant=self.tenant,
            occurred_at_us=self.occurred_us,
            trace=self.trace,
            actor=self.actor,
            subject=self.subject,
            connection=Connection(),
            action=self.action,
            outcome="ok" if self._does_something else Reason.HELD.name,
            detail=tuple(sorted(self.detail.items())),
        )

    @property
    def _does_something(self) -> bool:
        return self.action == ERASE or bool(self.key_ids or self.places or self.partition)


class Plans:
    """Those that are not finished. Methods block, for some milliseconds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        clear_unfinished(folder)  # they name subjects
        fsync_folder(folder.parent)

    def put(self, plan: Plan) -> None:
        """Write a plan down, durably. Raises OSError: it is not, or not all of it."""
        write_private(self._path(plan), json.dumps(_written(plan)).encode())

    def remove(self, plan: Plan) -> None:
        """Strike a plan that is finished. Raises OSError: it may come again, harmlessly."""
        self._path(plan).unlink(missing_ok=True)
        fsync_folder(self._folder)

    def unfinished(self) -> list[Plan]:
        """Return what a crash, or a neighbour that was away, has left; oldest first.

        Raises:
            Refusal: EVIDENCE_LOST, if a file is no plan.
        """
        try:
            return [_read(path.read_bytes()) for path in sorted(self._folder.glob("*.json"))]
        except (ValueError, KeyError, TypeError):
            raise Refusal(Reason.EVIDENCE_LOST) from None

    def _path(self, plan: Plan) -> Path:
        return self._folder / f"{plan.call_id.hex()}.json"


def _written(plan: Plan) -> dict[str, object]:
    actor = plan.actor and {**asdict(plan.actor), "roles": sorted(plan.actor.roles)}
    return {
        "action": plan.action,
        "call_id": plan.call_id.hex(),
        "occurred_us": plan.occurred_us,
        "tenant": plan.tenant,
        "subject": plan.subject,
        "partition": plan.partition and asdict(plan.partition),
        "key_ids": [each.hex() for each in plan.key_ids],
        "places": plan.places,
        "detail": dict(plan.detail),
        "actor": actor,
        "trace": [plan.trace.trace_id.hex(), plan.trace.span_id.hex()],
        "purged": plan.purged,
    }


def _read(raw: bytes) -> Plan:
    told: dict[str, Any] = json.loads(raw)
    actor, partition = told["actor"], told["partition"]
    trace_id, span_id = (bytes.fromhex(each) for each in told["trace"])
    return Plan(
        action=str(told["action"]),
        call_id=bytes.fromhex(told["call_id"]),
        occurred_us=int(told["occurred_us"]),
        tenant=str(told["tenant"]),
        subject=str(told["subject"]),
        partition=partition and Partition(**partition),
        key_ids=tuple(bytes.fromhex(each) for each in told["key_ids"]),
        places=tuple(told["places"]),
        detail={str(name): str(value) for name, value in told["detail"].items()},
        actor=actor and Actor(**{**actor, "roles": frozenset(actor["roles"])}),
        trace=TraceContext(trace_id=trace_id, span_id=span_id),
        purged=bool(told["purged"]),
    )
