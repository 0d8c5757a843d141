"""Reads of records: who may, and that each is itself recorded before its answer leaves.

    async with reads.of("call", request.tenant, detail={"call": call_id.hex()}) as read:
        records = await log.records(read.tenant, call_id=call_id)
        read.count = len(records)

Leaving the block makes the event durable; if that fails, so does the read. A read that was refused
is recorded with its reason. Of one actor so many are taken in a second; more are LIMITED, and each
second's count of those becomes one event, so that nobody can fill the log by reading it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

import structlog

from meshkit.authorization import Request
from meshkit.contract import Actor, Reason, Refusal
from meshkit.counters import counted
from meshkit.identity import TenantIdentity, is_label
from meshkit.request import current

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from audit.records.notes import Notes
    from meshkit.authorization import Authorizer
    from meshkit.contract import Connection

__all__ = ["Naming", "Read", "Reads"]

log = structlog.get_logger()

KINDS_MAX = 4_096
"""Actors and seconds kept apart; what comes beyond is counted together, as nobody's."""
STRANGERS_PER_S_MAX = 10
"""Peers turned away at the port that are recorded one by one in a second, all of them together."""
RETRY_MS = 1_000
_EVER = sys.maxsize
_NOBODY = Actor(spiffe_id="", tenant="", workload="")
_METHODS = frozenset(
    {"Append", "Archive", "GetArchived", "GetByTrace", "GetRecord", "Search"}
    | {"ReadPayload", "ExportSubject", "EraseSubject", "SetHold", "ReleaseHold", "ListHolds"}
)
_FLUSH_S = 1.1
_READ, _COUNTED, _REFUSED = "log.read", "reads.counted", "access.refused"


class Naming(Protocol):
    """The part of a log that is needed here."""

    def pseudonym_of(self, tenant: str) -> str:
        """Return a tenant's pseudonym, as leaves say it."""
        ...


@dataclass(slots=True)
class Read:
    """A read under way. tenant: whose records; count: how many the answer holds."""

    actor: Actor
    tenant: str
    count: int = 0


@dataclass(slots=True)
class _Second:
    """An actor's reads in one second."""

    actor: Actor
    second: int
    count: int = 0


@dataclass(slots=True, kw_only=True)
class Reads:
    """Decides and records the reads of one service; for one event loop.

    per_s_max: reads of one actor in a second.
    """

    notes: Notes
    naming: Naming
    authorizer: Authorizer
    per_s_max: int
    clock: Callable[[], float] = time.time
    _seen: dict[tuple[str, int], _Second] = field(default_factory=dict)
    _timer: asyncio.TimerHandle | None = None
    _flushing: asyncio.Task[None] | None = None

    def actor(self) -> Actor:
        """Return who makes the call that is being served. Raises Refusal: DENIED, no tenant's."""
        peer = current().identity
        if not isinstance(peer, TenantIdentity):
            raise Refusal(Reason.DENIED)
        return Actor(
            spiffe_id=peer.spiffe_id,
            tenant=peer.tenant,
            workload=peer.workload,
            roles=self.authorizer.roles_of(peer.spiffe_id),
        )

    def may(self, actor: Actor, tenant: str, *, action: str = "audit.read") -> None:
        """Let an actor do something with a tenant's records. Raises Refusal: DENIED, by policy."""
        request = Request(
            actor=actor, action=action, tenant=tenant, peer_ip=current().connection.peer_ip
        )
        if not self.authorizer.decide(request).allowed:
            raise Refusal(Reason.DENIED)

    async def let(self, needs: str, asked: str) -> tuple[Actor, str]:
        """Let the caller of this RPC do what records itself; a refusal is recorded here.

        Returns:
            Who it is, and whose data it asks for: its own tenant's, if it named none.

        Raises:
            Refusal: DENIED; LIMITED, too many in this second; AUDIT_DOWN, OVERLOADED or KEYS_DOWN,
                it cannot be recorded.
        """
        actor = self.actor()
        if not self._singly(actor, self.per_s_max):
            raise Refusal(Reason.LIMITED, retry_after_ms=RETRY_MS)
        tenant = asked or actor.tenant
        try:
            if not is_label(tenant):
                raise Refusal(Reason.DENIED)  # noqa: TRY301 -- recorded below, as all of them
            self.may(actor, tenant, action=needs)
        except Refusal as refusal:
            await self.notes.note(
                _REFUSED,
                tenant=actor.tenant,
                actor=actor,
                connection=current().connection,
                outcome=refusal.reason.name,
                detail={"action": needs},
            )
            raise
        return actor, tenant

    @asynccontextmanager
    async def of(
        self,
        kind: str,
        asked: str,
        *,
        action: str = _READ,
        needs: str = "audit.read",
        detail: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Read]:
        """Let the caller of this RPC read, and record it when the block is left.

        Args:
            kind: `call`, `trace`, `archive`, `search`…
            asked: The tenant that the caller named; empty: its own.
            action: What the event says it is: `log.read`, `log.search`…
            needs: What Cedar is asked.
            detail: What was asked for, in constants and numbers; never text of the caller.

        Raises:
            Refusal: DENIED; LIMITED, too many in this second; AUDIT_DOWN, OVERLOADED or KEYS_DOWN,
                it cannot be recorded. And whatever the block raises.
        """
        actor, connection = self.actor(), current().connection
        if not self._singly(actor, self.per_s_max):
            raise Refusal(Reason.LIMITED, retry_after_ms=RETRY_MS)
        read = Read(actor, asked or actor.tenant)
        known = is_label(read.tenant)
        named = self.naming.pseudonym_of(read.tenant) if known else "malformed"
        about = {"kind": kind, "asked": named, **(detail or {})}
        note = partial(self.notes.note, action, actor=actor, connection=connection)
        # Among another tenant's records a stranger writes nothing.
        recorded_for = actor.tenant
        try:
            if not known:
                raise Refusal(Reason.DENIED)  # noqa: TRY301 -- recorded below, as all of them
            self.may(actor, read.tenant, action=needs)
            recorded_for = read.tenant
            yield read
        except Refusal as refusal:
            await note(tenant=recorded_for, outcome=refusal.reason.name, detail=about)
            raise
        await note(tenant=recorded_for, detail={**about, "count": str(read.count)})

    async def stranger(self, refusal: Refusal, method: str, connection: Connection) -> None:
        """Record a refusal by the interceptor: of a peer that is nobody we know, or not for us."""
        if self._singly(_NOBODY, STRANGERS_PER_S_MAX):
            name = method.rpartition("/")[2]
            detail = {"method": name if name in _METHODS else "other"}
            await self.notes.note(
                _REFUSED, connection=connection, outcome=refusal.reason.name, detail=detail
            )

    async def settled(self) -> None:
        """Record the counts that are left; to be called once no read is under way."""
        if self._timer is not None:
            self._timer.cancel()
        if self._flushing is not None:
            await asyncio.wait([self._flushing])
        await self._note_counts(_EVER)

    # --- a flood ------------------------------------------------------------------------------

    def _singly(self, actor: Actor, per_s_max: int) -> bool:
        """Note one read; return whether it gets a record of its own."""
        second = int(self.clock())
        seen = self._seen.get((actor.spiffe_id, second))
        if seen is None:
            who = _NOBODY if len(self._seen) >= KINDS_MAX else actor
            seen = self._seen.setdefault((who.spiffe_id, second), _Second(who, second))
            self._flush_later()
        seen.count += 1
        return seen.count <= per_s_max

    def _flush_later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FLUSH_S, self._flush_now)

    def _flush_now(self) -> None:
        self._timer = None
        self._flushing = asyncio.create_task(self._note_counts(int(self.clock())))

    async def _note_counts(self, before: int) -> None:
        for key in [key for key in self._seen if key[1] < before]:
            seen = self._seen.pop(key)
            singly = self.per_s_max if seen.actor.tenant else STRANGERS_PER_S_MAX
            if seen.count > singly:
                await self._note_count(seen, seen.count - singly)
        if self._seen:
            self._flush_later()

    async def _note_count(self, seen: _Second, count: int) -> None:
        counted("audit.reads_counted", count)
        try:
            await self.notes.note(
                _COUNTED,
                tenant=seen.actor.tenant,
                actor=seen.actor if seen.actor.tenant else None,
                outcome=Reason.LIMITED.name,
                detail={"count": str(count), "second": str(seen.second)},
            )
        except Refusal as refusal:
            log.warning("audit.read_counts_lost", count=count, reason=refusal.reason.name)
