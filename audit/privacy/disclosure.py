"""Lets payloads be read and exported, each time with a record of it before anything leaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshkit.contract import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from audit.log.appender import AuditLog
    from audit.privacy.belongings import Belongings
    from audit.privacy.estate import Estate
    from audit.records.notes import Notes
    from meshkit.contract import Actor, Connection, Payload, Phase

__all__ = ["Disclosure", "Item"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A payload, opened, and which event it is of."""

    index: int
    call_id: bytes
    phase: Phase
    received_us: int
    retention: str
    payload: Payload
    salts: dict[str, bytes]


class Disclosure:
    """The payloads of one log, to those whom policy lets."""

    def __init__(self, audit: AuditLog, estate: Estate, notes: Notes) -> None:
        self._audit = audit
        self._estate = estate
        self._notes = notes

    async def of_call(
        self, tenant: str, call_id: bytes, actor: Actor, connection: Connection | None
    ) -> list[Item]:
        """Return the payloads of a call, in log order.

        Raises:
            Refusal: NOT_FOUND (none, expired, or erased); KEYS_DOWN, EVIDENCE_LOST, AUDIT_DOWN.
        """
        records = await self._audit.records(tenant, call_id=call_id)
        items = await self._items(tenant, [record.index for record in records])
        await self._notes.note(
            "payload.read",
            tenant=tenant,
            actor=actor,
            connection=connection,
            outcome="ok" if items else Reason.NOT_FOUND.name,
            detail={"call": call_id.hex(), "count": str(len(items))},
        )
        if not items:
            raise Refusal(Reason.NOT_FOUND)
        return items

    async def exported(
        self, found: Belongings, actor: Actor, connection: Connection | None
    ) -> AsyncIterator[Item]:
        """Yield what a subject has, but for what is erased meanwhile. Raises as `of_call`."""
        await self._notes.note(
            "subject.export",
            tenant=found.tenant,
            actor=actor,
            connection=connection,
            subject=found.subject,
            detail={"payloads": str(len(found.numbers))},
        )
        for number in found.numbers:
            for item in await self._items(found.tenant, [number]):
                yield item

    async def _items(self, tenant: str, numbers: Sequence[int]) -> list[Item]:
        items = []
        for number, leaf in zip(numbers, await self._estate.leaves(numbers), strict=True):
            try:
                opened = await self._audit.payload(tenant, number)
            except Refusal as refusal:
                if refusal.reason is not Reason.NOT_FOUND:
                    raise
                continue
            items.append(
                Item(
                    index=number,
                    call_id=leaf.call_id,
                    phase=leaf.phase,
                    received_us=leaf.log["received_us"],
                    retention=leaf.log["retention"],
                    payload=opened.payload,
                    salts=opened.salts,
                )
            )
        return items
