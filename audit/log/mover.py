"""Moves durable events out of the write-ahead log into payload store and search index.

In a thread, in small slices with rests between them (pace.py); once many events wait at a time, in
a process of its own (mover_process.py), which leaves the interpreter to the event loop. That one
can be killed at any time: the thread then goes on where the index says that it ended.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from audit.log.mover_process import MoverEndedError, enter, move
from audit.log.pace import Pace, entries_from
from audit.search.rows import row_of
from meshkit.counters import counted

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor
    from typing import TypeVar

    from audit.log.mover_process import MoverProcess
    from audit.log.storage import LogStore
    from audit.log.wal import Group, Wal
    from audit.privacy.payloads import PayloadStore
    from audit.search.index import Index
    from audit.search.query import IndexRow
    from audit.settings import AuditSettings

    T = TypeVar("T")

__all__ = ["Mover"]

log = structlog.get_logger()

_REST_S = 60.0
"""The process is ended when nothing needed it for so long, and not begun again so soon after it
ended by itself."""


class Mover:
    """Belongs to one event loop; its blocking work, to one thread of `executor`."""

    def __init__(
        self,
        settings: AuditSettings,
        *,
        wal: Wal,
        store: LogStore,
        payloads: PayloadStore,
        index: Index,
        executor: Executor,
        process: MoverProcess | None = None,
    ) -> None:
        """Without a process all is done in the thread."""
        self._settings = settings
        self._wal = wal
        self._store = store
        self._payloads = payloads
        self._index = index
        self._executor = executor
        self.process = process
        """What moves under load, if there is any."""
        self._needed_s = self._ended_s = float("-inf")
        self.pace = Pace(lambda: wal.end - index.size, events_max=settings.round_events_max)
        self.rows: dict[int, IndexRow] = {}
        """Entries not yet in the search index, by number."""

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

    async def alone(self, work: Callable[[], T]) -> T:
        """Run blocking work while nothing is moved."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def taking_away(self, work: Callable[[], T]) -> T:
        """Run blocking work that takes payloads away, while nothing is moved."""

        def released() -> T:
            if self.process is not None:
                with suppress(MoverEndedError):
                    self.process.release()
            return work()

        return await self.alone(released)

    def _move(self) -> bool:
        """Move some events; return whether the process did."""
        start = self._index.size
        groups = self._wal.groups
        if start < (groups[0].first if groups else self._wal.end):
            self._rebuild(start)
            return False
        if self._has_process(self._wal.end - start):
            self._ask(start, groups)
            return True
        entries = entries_from(self._wal, start, self.pace.events)
        rows = [
            self.rows.get(number) or row_of(number, entry.leaf)
            for number, entry in enumerate(entries, start)
        ]
        move(self._payloads, self._index, entries, rows)
        self._moved(start)
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
        self._moved(start)

    def _moved(self, start: int) -> None:
        for number in range(start, self._index.size):
            self.rows.pop(number, None)

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
        elif now_s - self._needed_s > _REST_S:
            self.process.end()
        was, ready = self.process.pid, self.process.ready
        if was is not None and self.process.pid is None:
            self._gone()  # it ended before it was ready
        return ready

    def _ask(self, start: int, groups: list[Group]) -> None:
        assert self.process is not None
        end = start + self._settings.round_events_max
        try:
            self.process.move(
                start, [each for each in groups if start < each.end and each.first < end]
            )
        except MoverEndedError:
            self._gone()
        finally:
            self._index.refresh()
            self._moved(start)

    def _gone(self) -> None:
        """Do without it for a while."""
        self._ended_s = time.monotonic()
        counted("audit.mover_ended")
        log.warning("audit.mover_ended")
