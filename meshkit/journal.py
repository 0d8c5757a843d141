"""Events of a service about itself, and documents for the archive: sent when audit can take them.

    async with journal(recorder, settings) as book:
        book.note("service.start", detail={"service": "cache"})     returns at once
        book.keep(Document("policy.compliance", policy.canonical()))

Nobody waits for these: a service starts before the audit service is there, and goes on while it is
away. What is told waits in memory, in order, and is sent again until it is durable; the log takes
an event once. What finds no room, is refused for good, or is still waiting when the service has
ended is lost, and that is counted (`journal.lost`) and logged.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager, suppress
from threading import Lock
from typing import TYPE_CHECKING, Protocol

import structlog
from pydantic import BaseModel, ConfigDict, Field

from meshkit.background import running
from meshkit.contract import Document, Reason, Refusal
from meshkit.counters import counted, measured
from meshkit.note_event import note_event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from meshkit.contract import Appended, Event

__all__ = ["Journal", "Journalling", "Recorder", "journal"]

log = structlog.get_logger()

_FOR_GOOD = frozenset({Reason.INVALID_FIELD, Reason.CONFLICT, Reason.DENIED})
"""Sent again, it would be refused again."""


class Recorder(Protocol):
    """The audit service, in process or over the wire."""

    async def append(self, event: Event) -> Appended:
        """See `meshkit.contract.Audit.append`."""
        ...

    async def archive(self, document: Document) -> None:
        """Keep a document under its digest. Raises Refusal: as `append`."""
        ...


class Journalling(BaseModel):
    """Limits of a service's journal, nested in its settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    waiting_max: int = Field(
        default=1_024,
        gt=0,
        description="Events and documents that may wait for the audit service; more are lost, and "
        "counted.",
    )
    retry_ms: int = Field(default=200, gt=0, description="Before what was not taken is sent again.")
    settle_ms: int = Field(
        default=3_000, ge=0, description="For what is left at the end; then it is lost."
    )


class Journal:
    """`note` and `keep` may be called from any thread; all else belongs to one event loop."""

    def __init__(self, recorder: Recorder, settings: Journalling) -> None:
        self._recorder = recorder
        self._settings = settings
        self._waiting: deque[Event | Document] = deque()
        self._lock = Lock()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    @property
    def waiting(self) -> int:
        """How many are not durable yet."""
        return len(self._waiting)

    def note(
        self,
        action: str,
        *,
        tenant: str = "",
        outcome: str = "ok",
        detail: Mapping[str, str] | None = None,
    ) -> None:
        """Tell of something that happened now: see `meshkit.note_event`. Never waits."""
        self._put(note_event(action, tenant=tenant, outcome=outcome, detail=detail))

    def keep(self, *documents: Document) -> None:
        """Have documents kept under their digests. Never waits."""
        for document in documents:
            self._put(document)

    async def settled(self) -> None:
        """Wait until nothing waits."""
        while self._waiting:
            self._idle.clear()
            await self._idle.wait()

    async def run(self) -> None:
        """Send for ever."""
        pause_s = self._settings.retry_ms / 1_000
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                if await self._sent(self._waiting[0]):
                    self._waiting.popleft()
                else:
                    await asyncio.sleep(pause_s)
            self._idle.set()

    def give_up(self) -> None:
        """Count what is left as lost."""
        if left := len(self._waiting):
            self._waiting.clear()
            self._lost(left)

    def _put(self, item: Event | Document) -> None:
        with self._lock:
            room = len(self._waiting) < self._settings.waiting_max
            if room:
                self._waiting.append(item)
        if room:
            with suppress(RuntimeError):  # the loop is closed: `give_up` was called before
                self._loop.call_soon_threadsafe(self._wake.set)
        else:
            self._lost(1)

    async def _sent(self, item: Event | Document) -> bool:
        """Whether this need not be sent again."""
        try:
            if isinstance(item, Document):
                await self._recorder.archive(item)
            else:
                await self._recorder.append(item)
        except Refusal as refusal:
            if refusal.reason not in _FOR_GOOD:
                return False
            self._lost(1)
        return True

    def _lost(self, count: int) -> None:
        counted("journal.lost", count)
        log.error("journal.lost", count=count)


@asynccontextmanager
async def journal(recorder: Recorder, settings: Journalling) -> AsyncIterator[Journal]:
    """Send what is told for as long as the block runs, and for a while what is left then."""
    book = Journal(recorder, settings)
    with measured("journal.waiting", lambda: book.waiting):
        async with running(book.run(), "journal"):
            try:
                yield book
            finally:
                with suppress(TimeoutError):
                    async with asyncio.timeout(settings.settle_ms / 1_000):
                        await book.settled()
                book.give_up()
