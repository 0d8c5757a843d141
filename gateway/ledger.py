"""Makes the record: INTENT before, OUTCOME after, one of the two at the door, counts of a flood.

Nothing here decides anything about a call. What it promises: `close` and `refused` return only once
the OUTCOME is durable, or raise AUDIT_DOWN in its place. An INTENT that was sent goes its way even
if its call is cancelled; an OUTCOME whose sending was cancelled is sent again, unchanged.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from gateway.arrival import now_us
from meshkit.call_id import new_call_id
from meshkit.contract import Connection, Event, Phase, Reason, Refusal
from meshkit.counters import counted
from meshkit.w3c import fresh_trace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.refusals import Counted, RefusalFlood
    from gateway.run import Run
    from meshkit.contract import Appended, Receipt, TraceContext

__all__ = ["Appender", "Ledger"]

log = structlog.get_logger()

_EVER = sys.maxsize


class Appender(Protocol):
    """The part of `meshkit.contract.Audit` that a gateway may use: it reads no records."""

    async def append(self, event: Event) -> Appended:
        """See `meshkit.contract.Audit.append`."""
        ...


@dataclass(slots=True)
class Ledger:
    """The gateway's hand on the audit log.

    budget_s: an event without an ack by then counts as not durable.
    """

    audit: Appender
    flood: RefusalFlood
    budget_s: float
    clock_us: Callable[[], int] = now_us
    _tasks: set[asyncio.Future[Any]] = field(default_factory=set)
    _flush: asyncio.TimerHandle | None = None

    def open(self, run: Run) -> None:
        """Send the INTENT. It goes its way whatever becomes of the call."""
        run.intent = asyncio.create_task(self._appended(run.intent_event()))
        self._keep(run.intent)

    async def opened(self, run: Run) -> None:
        """Wait until the INTENT is durable.

        Raises:
            Refusal: as `Audit.append`: nothing may happen on this call.
        """
        assert run.intent is not None
        await self._durable(run.intent)

    async def close(self, run: Run, failure: Refusal | None) -> Receipt | None:
        """Make the OUTCOME durable and return its receipt.

        After a cancel it may be called again: the same event is sent, which the log takes once.

        Raises:
            Refusal: AUDIT_DOWN, OVERLOADED or KEYS_DOWN: the answer must not leave.
        """
        if run.outcome is None:
            sealed = await self._intent_is_durable(run)
            run.outcome = run.outcome_event(failure, sealed=sealed)
        return await self.record(run.outcome)

    async def record(self, event: Event) -> Receipt | None:
        """Make an OUTCOME durable. Raises as `close` does."""
        return (await self._appended(event)).receipt

    async def refused(self, refusal: Refusal, tenant: str, event: Callable[[], Event]) -> None:
        """Record a refusal at the door, or count it; put the receipt on it.

        Raises:
            Refusal: AUDIT_DOWN, OVERLOADED or KEYS_DOWN, if it cannot be recorded.
        """
        second = self.clock_us() // 1_000_000
        if not self.flood.record_singly(tenant, refusal.reason, second):
            counted("door.refusals_counted")
            self._flush_later()
            return
        told = event()
        try:
            refusal.receipt = await self.record(told)
        except Refusal as failure:
            if failure.reason is not Reason.KEYS_DOWN or told.prompt_received is None:
                raise
            # A salt needs its tenant's key, and a stranger's tenant may have none.
            refusal.receipt = await self.record(replace(told, prompt_received=None))

    async def settled(self) -> None:
        """Wait for every event that is on its way, and record the counts that are left."""
        if self._flush is not None:
            self._flush.cancel()
        await self._note_counts(_EVER)  # not "until now": the clock may have been put back
        while self._tasks:  # each ends by itself within the budget of what it does
            await asyncio.wait(self._tasks)

    def in_background(self, work: Awaitable[object]) -> None:
        """Finish `work` after the call's own task is gone; `settled` waits for it."""
        self._keep(asyncio.ensure_future(work))

    async def _intent_is_durable(self, run: Run) -> bool:
        """Wait for the INTENT; return False if only its payload's key is missing."""
        if run.intent is None:
            return True
        try:
            await self._durable(run.intent)
        except Refusal as refusal:
            if refusal.reason is Reason.KEYS_DOWN:
                return False
            raise
        return True

    async def _appended(self, event: Event) -> Appended:
        try:
            async with asyncio.timeout(self.budget_s):
                return await self.audit.append(event)
        except TimeoutError:
            raise Refusal(Reason.AUDIT_DOWN) from None

    async def _durable(self, sent: asyncio.Task[Appended]) -> Appended:
        """Wait for an event that must not be cancelled with us."""
        return sent.result() if sent.done() else await asyncio.shield(sent)

    def _keep(self, task: asyncio.Future[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._gone)

    def _gone(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Looked at here, so that one nobody waits for any more is not a warning of asyncio's.
            counted(f"ledger.failed.{_kind(error)}")

    def _flush_later(self) -> None:
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(1.1, self._flush_now)

    def _flush_now(self) -> None:
        self._flush = None
        self.in_background(self._note_counts(self.clock_us() // 1_000_000))

    async def _note_counts(self, second: int) -> None:
        for each in self.flood.due(second):
            try:
                await self._appended(_note(each))
            except Refusal as refusal:
                log.warning("door.counts_lost", count=each.count, reason=refusal.reason.name)


def _kind(error: BaseException) -> str:
    return error.reason.name if isinstance(error, Refusal) else type(error).__name__


def _note(each: Counted) -> Event:
    trace: TraceContext = fresh_trace()
    return Event(
        call_id=new_call_id(),
        phase=Phase.NOTE,
        tenant=each.tenant,
        occurred_at_us=(each.second + 1) * 1_000_000 - 1,
        trace=trace,
        connection=Connection(),
        action="refusals.counted",
        outcome=each.reason.name,
        detail=(("count", str(each.count)), ("second", str(each.second))),
    )
