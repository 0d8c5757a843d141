"""Who may be forgotten, and what must not be: erasure, export and legal holds over one log.

    async with open_custody(log, Estate(log.parts, wrapped, keyring), purges=(purge,)) as custody:
        erased = await custody.erase_subject("acme", "p-4711", actor=actor)

The console, the command line and gRPC all come here. Whoever calls has asked the policies before;
what is done is recorded here, and where it cannot be recorded it is not done.

Order of an erasure: holds are looked at; a plan is written down; wrapped keys of the subject go,
then the same keys in memory, then its payloads; every cache forgets it and says so; the event
`subject.erase` tells of it (pseudonym, counts, key ids); the plan is struck. A crash or a neighbour
that is away leaves the plan, which is finished at the next start or as soon as it can be.

One thing at a time: holds, erasures and sweeps of retention exclude one another, so that none
decides on what another is changing.
"""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import structlog

from audit.privacy.belongings import belongings_of, demand, on_disk
from audit.privacy.disclosure import Disclosure, Item
from audit.privacy.holding import HoldDesk, Wanted
from audit.privacy.holds import Holds
from audit.privacy.plans import ERASE, Plan, Plans
from audit.privacy.retention import Sweeper, today
from audit.records.notes import Notes
from meshkit.background import running
from meshkit.contract import Reason, Refusal, is_subject
from meshkit.counters import counted
from meshkit.tlog import Proof, format_proof

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
    from typing import TypeVar

    from audit.log.appender import AuditLog
    from audit.privacy.belongings import Belongings
    from audit.privacy.estate import Estate
    from audit.privacy.holds import Hold, HoldScope
    from audit.settings import AuditSettings
    from meshkit.contract import Actor, Appended, Connection

    Purge = Callable[[str, str], Awaitable[int]]
    T = TypeVar("T")

__all__ = ["Custody", "Erased", "Item", "open_custody"]

log = structlog.get_logger()

_PROOF_POLL_S = 0.05
_KEY_IDS_A_LINE = 15
_KEY_IDS_TOLD = 20 * _KEY_IDS_A_LINE
"""In an event, singly; their digest covers all of them, however many there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What an erasure took, and the record of it.

    proof: C2SP tlog-proof of that record; empty if no checkpoint covered it in good time.
    """

    payloads: int
    keys: int
    cached: int
    call_id: bytes
    index: int
    proof: str


class Custody:
    """What the top of this file says. Made by `open_custody`; for one event loop."""

    def __init__(
        self,
        audit: AuditLog,
        estate: Estate,
        settings: AuditSettings,
        *,
        purges: Sequence[Purge],
        clock: Callable[[], int],
    ) -> None:
        folder = audit.parts.settings.data_dir
        self._audit = audit
        self._estate = estate
        self._settings = settings
        self._purges = tuple(purges)
        self._notes = Notes(audit)
        self._plans = Plans(folder / "plans")
        self._holds = Holds(folder / "holds")
        self._disclosure = Disclosure(audit, estate, self._notes)
        self._desk = HoldDesk(audit, estate, self._holds, self._notes)
        self._sweeper = Sweeper(estate, self._holds, settings)
        self._clock = clock
        self._alone = asyncio.Lock()
        self._under_way: set[asyncio.Task[Any]] = set()

    # --- reading and holding ------------------------------------------------------------------

    async def read_payload(
        self, tenant: str, call_id: bytes, *, actor: Actor, connection: Connection | None = None
    ) -> list[Item]:
        """Return a call's payloads: see `audit.privacy.disclosure.Disclosure.of_call`."""
        return await self._disclosure.of_call(tenant, call_id, actor, connection)

    async def export_subject(
        self, tenant: str, subject: str, *, actor: Actor, connection: Connection | None = None
    ) -> AsyncIterator[Item]:
        """Yield all payloads about a subject, in log order. Recorded before the first leaves.

        Raises:
            Refusal: INVALID_FIELD; KEYS_DOWN, EVIDENCE_LOST, AUDIT_DOWN.
        """
        demand(is_subject(subject), "subject")
        async with self._alone:
            found = await self._belongings(tenant, subject)
        async for item in self._disclosure.exported(found, actor, connection):
            yield item

    async def set_hold(
        self,
        tenant: str,
        scope: HoldScope,
        value: str,
        reference: str,
        *,
        actor: Actor,
        connection: Connection | None = None,
    ) -> Hold:
        """Set a legal hold: see `audit.privacy.holding.HoldDesk.set`. A caller may go away."""
        wanted = Wanted(tenant, scope, value, reference)
        return await self._to_its_end(self._desk.set(wanted, actor, connection))

    async def release_hold(
        self, tenant: str, hold_id: bytes, *, actor: Actor, connection: Connection | None = None
    ) -> None:
        """Release a legal hold: see `HoldDesk.release`. A caller may go away."""
        await self._to_its_end(self._desk.release(tenant, hold_id, actor, connection))

    async def holds(
        self, tenant: str, *, actor: Actor, connection: Connection | None = None
    ) -> list[Hold]:
        """Return a tenant's holds, oldest first. Recorded, as all reading is."""
        return await self._desk.list(tenant, actor, connection)

    # --- erasing ----------------------------------------------------------------------------

    async def erase_subject(
        self, tenant: str, subject: str, *, actor: Actor, connection: Connection | None = None
    ) -> Erased:
        """Erase all that is kept about a subject. A caller who goes away does not stop it.

        When it returns the wrapped keys are gone from the disk and the keys from memory, payloads
        are overwritten, every cache has said that it forgot, and the record is durable.

        Raises:
            Refusal: HELD (recorded, too); INVALID_FIELD; KEYS_DOWN, AUDIT_DOWN, CACHE_DOWN: what
                was begun is finished by itself.
        """
        demand(is_subject(subject), "subject")
        erased = await self._to_its_end(self._erase(tenant, subject, actor, connection))
        return replace(erased, proof=await self._proof(erased.index))

    async def _to_its_end(self, work: Coroutine[object, object, T]) -> T:
        """Do what excludes all else, and its record with it, even if the caller goes away."""

        async def alone() -> T:
            async with self._alone:
                return await work

        task = asyncio.create_task(alone())
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited has it; perhaps nobody did

    async def _erase(
        self, tenant: str, subject: str, actor: Actor, connection: Connection | None
    ) -> Erased:
        for earlier in await asyncio.to_thread(self._plans.unfinished):
            if (earlier.tenant, earlier.subject) == (tenant, subject):
                await self._carry_out(earlier)
        found = await self._belongings(tenant, subject)
        await self._not_held(found, actor, connection)
        plan = Plan.erase(
            tenant,
            subject,
            actor=actor,
            key_ids=found.key_ids,
            places=found.places,
            detail=self._detail(found),
        )
        await self._written(plan)
        plan, appended = await self._carry_out(plan)
        return Erased(
            payloads=len(found.numbers),
            keys=len(found.key_ids),
            cached=int(plan.detail["cached"]),
            call_id=plan.call_id,
            index=appended.index,
            proof="",
        )

    async def _belongings(self, tenant: str, subject: str) -> Belongings:
        await on_disk(self._estate.settled())
        return await on_disk(belongings_of(self._estate, tenant, subject))

    async def _not_held(
        self, found: Belongings, actor: Actor, connection: Connection | None
    ) -> None:
        """Refuse what a hold stands against, once that is recorded."""
        for hold in self._holds.of(found.tenant):
            if hold.blocks(found.pseudonyms, found.classes):
                await self._notes.note(
                    ERASE,
                    tenant=found.tenant,
                    actor=actor,
                    connection=connection,
                    outcome=Reason.HELD.name,
                    subject=found.subject,
                    detail={"hold": hold.id.hex(), "reference": hold.reference},
                )
                raise Refusal(Reason.HELD)

    def _detail(self, found: Belongings) -> dict[str, str]:
        ids = sorted(each.hex() for each in found.key_ids)
        lines = [ids[at : at + _KEY_IDS_A_LINE] for at in range(0, len(ids), _KEY_IDS_A_LINE)]
        told = lines[: _KEY_IDS_TOLD // _KEY_IDS_A_LINE]
        return {
            "payloads": str(len(found.numbers)),
            "keys": str(len(ids)),
            "key_ids_sha256": sha256("\n".join(ids).encode()).hexdigest(),
            "key_backups_days": str(self._settings.key_backups_days),
            **{f"key_ids.{number:02d}": " ".join(line) for number, line in enumerate(told)},
        }

    async def _written(self, plan: Plan) -> None:
        await on_disk(asyncio.to_thread(self._plans.put, plan))

    async def _carry_out(self, plan: Plan) -> tuple[Plan, Appended]:
        """Take a plan through its steps. May be repeated: see audit/privacy/plans.py."""
        await on_disk(self._estate.take(plan))
        if not plan.purged:
            entries = [await purge(plan.tenant, plan.subject) for purge in self._purges]
            plan = plan.with_purged(sum(entries))
            await self._written(plan)
        appended = await self._audit.append(plan.event)
        await on_disk(asyncio.to_thread(self._plans.remove, plan))
        return plan, appended

    async def _proof(self, index: int) -> str:
        """Wait for a checkpoint that covers a record; return its proof, or nothing if none came."""
        clock = asyncio.get_running_loop().time
        until = clock() + self._settings.erasure_proof_ms / 1_000
        while (checkpoint := await self._audit.checkpoint()).size <= index:
            if clock() >= until:
                return ""
            await asyncio.sleep(_PROOF_POLL_S)
        leaf = await asyncio.to_thread(self._audit.parts.leaf, index)
        hashes = await self._audit.inclusion(index, checkpoint.size)
        return format_proof(Proof(leaf=leaf, index=index, hashes=hashes, checkpoint=checkpoint))

    # --- by itself --------------------------------------------------------------------------

    async def sweep(self) -> int:
        """Take what retention is over for; return how many partitions were looked into.

        Raises:
            Refusal, OSError, sqlite3.Error: not all of it; the next sweep goes on.
        """
        async with self._alone:
            # Read first: should the day end while payloads are moved, the last of them, still on
            # the way, would be no part of the counts of theirs.
            now = self._clock()
            await self._estate.settled()
            await self._desk.refresh()
            # What an unfinished plan names is gone before anything is counted: else a second
            # plan would name it too, and two records would tell of it.
            for begun in await asyncio.to_thread(self._plans.unfinished):
                await on_disk(self._estate.take(begun))
            plans = await self._sweeper.plans(now)
            for plan in plans:
                await self._written(plan)
                self._sweeper.begun(plan)
                await self._carry_out(plan)
        return len(plans)

    async def resume(self) -> int:
        """Finish what was begun; return how many plans are left because a neighbour is away."""
        left = 0
        async with self._alone:
            for plan in await asyncio.to_thread(self._plans.unfinished):
                try:
                    await self._carry_out(plan)
                except Refusal as refusal:
                    left += 1
                    counted("audit.erasure.held_up")
                    log.warning("audit.erasure_held_up", reason=refusal.reason.name)
        return left

    async def run(self) -> None:
        """Finish, and sweep, for ever. Run by `open_custody`."""
        clock = asyncio.get_running_loop().time
        due_s = clock()
        while True:
            try:
                await self.resume()
                if clock() >= due_s:
                    await self.sweep()
                    due_s = clock() + self._settings.retention_sweep_s
            except (Refusal, OSError, sqlite3.Error) as failure:
                counted("audit.retention.failed")
                log.warning("audit.retention_failed", kind=type(failure).__name__)
            await asyncio.sleep(self._settings.erasure_retry_s)

    async def settled(self) -> None:
        """Wait for erasures under way."""
        if self._under_way:
            await asyncio.wait(self._under_way)


@asynccontextmanager
async def open_custody(
    audit: AuditLog,
    estate: Estate,
    *,
    purges: Sequence[Purge] = (),
    clock: Callable[[], int] = today,
) -> AsyncIterator[Custody]:
    """Finish what an earlier run left, then keep retention for as long as the block runs.

    Args:
        audit: The log whose payloads these are.
        estate: The payloads and their keys.
        purges: One for each cache: forgets a tenant's subject, and says how many entries.
        clock: Days since 1970, UTC; for tests.

    Raises:
        Refusal: EVIDENCE_LOST: a hold or plan cannot be read.
        OSError: the disk fails.
    """
    custody = Custody(audit, estate, audit.parts.settings, purges=purges, clock=clock)
    await custody.resume()
    try:
        async with running(custody.run(), "audit-retention"):
            yield custody
    finally:
        await custody.settled()
