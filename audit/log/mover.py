"""Moves durable events out of the write-ahead log into payload store and search index.

In a thread, in small slices with rests between them (pace.py); once many events wait at a time, in
a process of its own (mover_process.py), which leaves the interpreter to the event loop. That one
can be killed at any time: the thread then goes on where the index says that it ended.
"""

from __future__ import annotations

import asyncio
import time
from itertools import takewhile
from typing import TYPE_CHECKING

import structlog

from audit.log.mover_process import MoverEndedError, enter, move
from audit.log.pace import Pace, entries_from, groups_from
from audit.search.rows import row_of
from meshkit.counters import counted

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from audit.log.mover_process import MoverProcess
    from audit.log.storage import LogStore
    from audit.log.wal import Group, Wal
    from audit.privacy.payloads import PayloadStore
    from audit.search.index import Index
    from audit.search.query import IndexRow
    from audit.settings import AuditSettings
    from meshkit.work_threads import WorkThreads

    T = TypeVar("T")

__all__ = ["Mover"]

log = structlog.get_logger()

_REST_S = 60.0
"""The process is ended when nothing needed it for so long, and not begun again so soon after it
ended by itself."""


class Mover:
    """Belongs to one event loop; its blocking work, to `thread`."""

    def __init__(
        self,
        settings: AuditSettings,
        *,
        wal: Wal,
        store: LogStore,
        payloads: PayloadStore,
        index: Index,
        thread: WorkThreads,
        process: MoverProcess | None = None,
    ) -> None:
        """Without a process all is done in the thread."""
        self._settings = settings
        self._wal = wal
        self._store = store
        self._payloads = payloads
        self._index = index
        self._thread = thread
        self.process = process
        """What moves under load, if there is any."""
        self._needed_s = self._ended_s = float("-inf")
        self._unsure = False
        """Whether the process may have put in more than our end of the index knows."""
        self.pace = Pace(lambda: wal.end - index.size, events_max=settings.round_events_max)
        self.rows: dict[int, IndexRow] = {}
        """Entries not yet in the search index, by number, in their order; the event loop's."""

    def hurry(self, *, hurried: bool) -> None:
        """Say whether somebody waits for all to be moved: while the log is opened or closed."""
        self.pace.hurried = hurried
        if self.process is not None:
            self.process.hurried = hurried

    async def close(self) -> None:
        """End the process, and wait until the thread is done with payload store and index."""
        self.hurry(hurried=True)
        # Shielded: though nobody waits for it any more, the process is to end.
        await asyncio.shield(asyncio.ensure_future(self.alone(self._end)))

    def _end(self) -> None:
        if self.process is not None:
            self.process.end()

    async def catch_up(self) -> None:
        """Move payloads and index all that is durable; needs nothing but the disk.

        Raises:
            OSError, sqlite3.OperationalError: call again.
            Refusal: EVIDENCE_LOST.
        """
        end = self._wal.end
        while self._index.size < end:
            began_s = time.perf_counter()
            if not await self.alone(self._move):
                await asyncio.sleep(self.pace.rest_s(time.perf_counter() - began_s))
            self._let_go()
        self._let_go()
        if self.process is not None and self.process.pid is not None and self._rested():
            await self.alone(lambda: self._has_process(0))  # else it would wait for the next event

    def _let_go(self) -> None:
        """Forget rows that the index has.

        Not in the thread: an entry may be moved before the event loop hears that it is durable, and
        puts its row in.
        """
        size = self._index.size
        for number in list(takewhile(lambda number: number < size, self.rows)):
            del self.rows[number]

    async def alone(self, work: Callable[[], T]) -> T:
        """Run blocking work while nothing is moved."""
        return await self._thread.do(work)

    async def taking_away(self, work: Callable[[], T]) -> T:
        """Run blocking work that takes payloads away, while nothing is moved."""

        def released() -> T:
            if self.process is not None:
                try:
                    self.process.release()
                except MoverEndedError:
                    self._gone()  # which lets go, too
            return work()

        return await self.alone(released)

    def _move(self) -> bool:
        """Move some events; return whether the process did."""
        if self._unsure:
            self._learn()
        start, end = self._index.size, self._wal.end
        groups = self._wal.groups  # after `end`: what lies before it is in them, or was dropped
        if start < (groups[0].first if groups else end):
            self._rebuild(start)
            return False
        if self._has_process(end - start):
            self._ask(start, groups)
            return True
        entries = entries_from(self._wal, start, self.pace.events)
        rows = [
            self.rows.get(number) or row_of(number, entry.leaf)
            for number, entry in enumerate(entries, start)
        ]
        move(self._payloads, self._index, entries, rows)
        return False

    def _rebuild(self, start: int) -> None:
        """Index entries that are in the log alone: the index was lost, or lost its end."""
        groups = self._wal.groups
        first = groups[0].first if groups else self._wal.end
        end = min(first, start + self._settings.round_events_max)
        leaves = self._store.entries(start, end)
        rows = [row_of(number, leaf) for number, leaf in enumerate(leaves, start)]
        places = self._payloads.locate(
            (row.number, row.tenant, row.received_us, leaf)
            for row, leaf in zip(rows, leaves, strict=True)
        )
        enter(self._index, rows, places)

    # --- the process ------------------------------------------------------------------------

    def _has_process(self, waiting: int) -> bool:
        """Whether the process is there to be asked; begin or end it by how many events wait."""
        if self.process is None:
            return False
        now_s = time.monotonic()
        if 0 < self._settings.mover_process_events <= waiting and now_s - self._ended_s > _REST_S:
            self._needed_s = now_s
            try:
                self.process.begin()
            except OSError:
                self._gone()
        elif self._rested():
            self.process.end()
        was, ready = self.process.pid, self.process.ready
        if was is not None and self.process.pid is None:
            self._gone()  # it ended before it was ready
        return ready

    def _rested(self) -> bool:
        return time.monotonic() - self._needed_s > _REST_S

    def _ask(self, start: int, groups: list[Group]) -> None:
        assert self.process is not None
        self._unsure = True
        try:
            self.process.move(start, groups_from(groups, start, self._settings.round_events_max))
        except MoverEndedError:
            self._gone()
        finally:
            self._learn()

    def _learn(self) -> None:
        self._index.refresh()
        self._unsure = False

    def _gone(self) -> None:
        """Do without it for a while."""
        self._ended_s = time.monotonic()
        counted("audit.mover_ended")
        log.warning("audit.mover_ended")
