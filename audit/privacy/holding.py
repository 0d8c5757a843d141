"""Sets and releases legal holds, each with a record of it. Its caller lets nothing else go on."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from audit.privacy.belongings import demand, held_call, on_disk
from audit.privacy.holds import Hold, Holds, HoldScope
from meshkit.call_id import new_call_id
from meshkit.contract import is_subject

if TYPE_CHECKING:
    from audit.log.appender import AuditLog
    from audit.privacy.estate import Estate
    from audit.records.notes import Notes
    from meshkit.contract import Actor, Connection

__all__ = ["HoldDesk", "Wanted"]

_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}", re.ASCII)
_CALL_ID_BYTES = 16


class Wanted(NamedTuple):
    """A hold as it is asked for.

    value: TENANT: empty. CLASS: a retention class. SUBJECT: its id. CALL: its id, in hexadecimal.
    reference: why, such as a case number; goes into the record.
    """

    tenant: str
    scope: HoldScope
    value: str
    reference: str


class HoldDesk:
    """The holds of one log."""

    def __init__(self, audit: AuditLog, estate: Estate, holds: Holds, notes: Notes) -> None:
        self._audit = audit
        self._estate = estate
        self._holds = holds
        self._notes = notes

    async def set(self, wanted: Wanted, actor: Actor, connection: Connection | None) -> Hold:
        """Keep payloads from retention and erasure.

        Raises:
            Refusal: INVALID_FIELD; NOT_FOUND: no such call; KEYS_DOWN, AUDIT_DOWN: it is not set.
        """
        demand(_REFERENCE.fullmatch(wanted.reference), "reference")
        hold = await self._made(wanted)
        await on_disk(asyncio.to_thread(self._holds.put, hold))
        try:
            await self._told("hold.set", hold, actor, connection)
        except BaseException:
            # Nobody was told that it is set, so nobody relies on it.
            self._holds.remove(hold)
            raise
        return hold

    async def release(
        self, tenant: str, hold_id: bytes, actor: Actor, connection: Connection | None
    ) -> None:
        """Release a hold. Raises Refusal: NOT_FOUND; AUDIT_DOWN: it is still set."""
        hold = self._holds.find(tenant, hold_id)
        await self._told("hold.release", hold, actor, connection)
        await on_disk(asyncio.to_thread(self._holds.remove, hold))

    async def list(self, tenant: str, actor: Actor, connection: Connection | None) -> list[Hold]:
        """Return a tenant's holds, oldest first, once that is recorded."""
        found = self._holds.of(tenant)
        await self._notes.note(
            "log.read",
            tenant=tenant,
            actor=actor,
            connection=connection,
            detail={"kind": "holds", "count": str(len(found))},
        )
        return found

    async def refresh(self) -> None:
        """Have holds on subjects know what these are called by now, and those on calls all of it.

        A call that was under way when its hold was set has had its OUTCOME since. To be called
        once all that is durable is in the store.
        """
        for hold in self._holds.all():
            fresh = hold
            if hold.scope is HoldScope.SUBJECT:
                fresh = await self._with_pseudonyms(hold)
            elif hold.scope is HoldScope.CALL:
                numbers = await self._entries(hold)
                if set(numbers) - set(hold.numbers):
                    fresh = await held_call(self._estate, hold, numbers)
            if fresh != hold:
                await asyncio.to_thread(self._holds.put, fresh)

    async def _made(self, wanted: Wanted) -> Hold:
        value = wanted.value
        hold = Hold(id=new_call_id(), set_us=time.time_ns() // 1_000, **wanted._asdict())
        match wanted.scope:
            case HoldScope.TENANT:
                demand(not value, "value")
            case HoldScope.CLASS:
                demand(value in self._audit.parts.settings.retention_days, "value")
            case HoldScope.SUBJECT:
                demand(is_subject(value), "value")
                return await self._with_pseudonyms(hold)
            case HoldScope.CALL:
                await on_disk(self._estate.settled())
                return await on_disk(held_call(self._estate, hold, await self._entries(hold)))
        return hold

    async def _entries(self, hold: Hold) -> tuple[int, ...]:
        records = await self._audit.records(hold.tenant, call_id=_call_id(hold.value))
        return tuple(record.index for record in records)

    async def _with_pseudonyms(self, hold: Hold) -> Hold:
        """Look up what a subject is called by now: since a rotation it has one name more."""
        names = await self._estate.pseudonyms.all_of("subject", hold.tenant, hold.value)
        return replace(hold, pseudonyms=tuple(sorted({*hold.pseudonyms, *names})))

    async def _told(
        self, action: str, hold: Hold, actor: Actor, connection: Connection | None
    ) -> None:
        detail = {
            "hold": hold.id.hex(),
            "scope": hold.scope.value,
            "reference": hold.reference,
        }
        if hold.scope in {HoldScope.CLASS, HoldScope.CALL}:
            detail["value"] = hold.value
        await self._notes.note(
            action,
            tenant=hold.tenant,
            actor=actor,
            connection=connection,
            subject=hold.value if hold.scope is HoldScope.SUBJECT else "",
            detail=detail,
        )


def _call_id(value: str) -> bytes:
    try:
        call_id = bytes.fromhex(value)
    except ValueError:
        call_id = b""
    demand(len(call_id) == _CALL_ID_BYTES, "value")
    return call_id
