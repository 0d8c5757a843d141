"""Group commit: many callers' events, one fsync. The only place where indexes are given.

One writer task takes all that waits, gives each event its index, makes the group durable in the
write-ahead log (in a thread) and only then answers. While the disk works, the event loop hashes the
leaves and signs the receipts of that same group, and takes in the next one.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from audit.log.wal import Entry
from audit.records.events import LogPart, leaf_bytes
from audit.search.rows import row_of_event
from meshkit.contract import Appended, Phase, Reason, Refusal
from meshkit.counters import counted, observed
from meshkit.tlog import leaf_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from concurrent.futures import Executor

    from audit.keys.pseudonyms import EventNames
    from audit.log.fresh import FreshLeaves
    from audit.log.receipts import ReceiptMaker
    from audit.log.wal import Wal
    from audit.search.query import IndexRow
    from audit.search.rows import Who
    from audit.settings import AuditSettings
    from meshkit.contract import Commitment, Event

__all__ = ["Committer", "Intent", "Waiting"]

log = structlog.get_logger()

_TURNS_MAX = 8
"""Turns of the event loop that a group waits for at most, and only as long as it grows."""
_GATHERED_MAX = 32
"""A group of so many waits for nobody: those in it would wait longer than an fsync takes."""


@dataclass(frozen=True, slots=True)
class Intent:
    """Where a call's INTENT is, and its commitment to the prompt received."""

    index: int
    prompt: Commitment | None


@dataclass(slots=True, eq=False)
class Waiting:
    """An event on its way to the disk."""

    event: Event
    body: bytes
    """`event_bytes` of it, under `names`."""
    names: EventNames
    who: Who
    """The pseudonyms in `body`."""
    producer: str
    retention: str
    """Class: how long its payload is kept."""
    done: asyncio.Future[Appended]
    sealed: bytes = b""
    sealed_sha256: str = ""
    payload_bytes: int = 0
    intent: Intent | None = None
    """OUTCOME: what the index knew; the committer knows the newer ones."""
    followers: list[asyncio.Future[Appended]] = field(default_factory=list)
    """Callers that sent the same event again meanwhile."""
    rivals: list[asyncio.Future[Appended]] = field(default_factory=list)
    """Callers that sent other content under its key: a conflict only once it is durable."""

    def answer(self, appended: Appended) -> None:
        """Tell all who wait."""
        for future in (self.done, *self.followers):
            if not future.done():
                future.set_result(appended)
        _refuse(self.rivals, Reason.CONFLICT)

    def refuse(self, reason: Reason) -> None:
        """Tell all who wait that it is not durable."""
        _refuse((self.done, *self.followers, *self.rivals), reason)


def _refuse(futures: Iterable[asyncio.Future[Appended]], reason: Reason) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(Refusal(reason))
            future.exception()  # seen: a caller that went away does not fetch it


class Committer:
    """Owns the queue and the writer task.

    fresh: given each group's leaves, in order, once they are durable.
    on_durable: told each group's index rows, likewise.
    on_settled: told each event of a group when it is durable or has failed.
    """

    def __init__(
        self,
        settings: AuditSettings,
        wal: Wal,
        receipts: ReceiptMaker,
        executor: Executor,
        *,
        fresh: FreshLeaves,
        on_durable: Callable[[Sequence[IndexRow]], None],
        on_settled: Callable[[Waiting], None],
    ) -> None:
        self._settings = settings
        self._wal = wal
        self._receipts = receipts
        self._executor = executor
        self._fresh = fresh
        self._on_durable = on_durable
        self._on_settled = on_settled
        self._queue: deque[Waiting] = deque()
        self._wake = asyncio.Event()
        self.open_calls: OrderedDict[bytes, Intent] = OrderedDict()
        """Calls whose OUTCOME has not come, oldest first; bounded by `open_calls_max`."""

    def put(self, waiting: Waiting) -> None:
        """Queue an event; it is answered through its future."""
        self._queue.append(waiting)
        self._wake.set()

    async def run(self) -> None:
        """Commit groups until cancelled; the group under way is finished first."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                await self._gather()
                await self._commit(self._next_group())

    async def _gather(self) -> None:
        """Let those who are about to append join the group: an fsync costs the same for all."""
        waiting = 0
        for _ in range(_TURNS_MAX):
            if not waiting < len(self._queue) < _GATHERED_MAX:
                break
            waiting = len(self._queue)
            await asyncio.sleep(0)

    def _next_group(self) -> list[Waiting]:
        group: list[Waiting] = []
        size = 0
        while (
            self._queue
            and len(group) < self._settings.group_events_max
            and size < self._settings.group_bytes_max
        ):
            group.append(self._queue.popleft())
            size += len(group[-1].sealed)
        return group

    async def _commit(self, group: list[Waiting]) -> None:
        now_us = time.time_ns() // 1_000
        first = self._wal.end
        opened: list[bytes] = []
        intents: list[Intent | None] = []
        entries: list[Entry] = []
        for index, waiting in enumerate(group, first):
            intents.append(self._match(waiting, index, opened))
            entries.append(self._entry(waiting, now_us, intents[-1]))
        loop, began_s = asyncio.get_running_loop(), time.perf_counter()
        durable = loop.run_in_executor(self._executor, self._wal.append, entries)
        answers = [
            self._appended(waiting, index, entry.leaf, intent)
            for index, (waiting, entry, intent) in enumerate(
                zip(group, entries, intents, strict=True), first
            )
        ]
        try:
            await durable
        except OSError as failure:
            counted("audit.not_durable")
            log.critical("audit.not_durable", errno=failure.errno, events=len(group))
            self._undo(group, opened)
            return
        observed("audit.fsync", time.perf_counter() - began_s)
        counted("audit.appended", len(group))
        leaves, hashes = [one.leaf for one in entries], [one.leaf_hash for one in answers]
        self._fresh.put(first, leaves, hashes)
        self._settle(group, answers, now_us, first)

    def _match(self, waiting: Waiting, index: int, opened: list[bytes]) -> Intent | None:
        """Note a call's INTENT, or find it for its OUTCOME."""
        event = waiting.event
        if event.phase is Phase.INTENT:
            self.open_calls[event.call_id] = Intent(index, event.prompt_received)
            opened.append(event.call_id)
        elif event.phase is Phase.OUTCOME:
            return self.open_calls.get(event.call_id) or waiting.intent
        return None

    def _entry(self, waiting: Waiting, now_us: int, intent: Intent | None) -> Entry:
        skew_us = abs(now_us - waiting.event.occurred_at_us)
        skewed = skew_us > self._settings.skew_max_ms * 1_000
        if skewed:
            counted("audit.skewed")
        part = LogPart(
            producer=waiting.producer,
            received_us=now_us,
            retention=waiting.retention,
            intent=None if intent is None else intent.index,
            payload_sha256=waiting.sealed_sha256,
            skewed=skewed,
        )
        return Entry(leaf_bytes(waiting.body, part), waiting.sealed)

    def _appended(
        self, waiting: Waiting, index: int, leaf: bytes, intent: Intent | None
    ) -> Appended:
        hashed = leaf_hash(leaf)
        receipt = None
        if waiting.event.phase is Phase.OUTCOME:
            prompt = None if intent is None else intent.prompt
            receipt = self._receipts.make(waiting.event, index, hashed, prompt)
        return Appended(index=index, leaf_hash=hashed, receipt=receipt)

    def _undo(self, group: list[Waiting], opened: list[bytes]) -> None:
        for call_id in opened:
            self.open_calls.pop(call_id, None)
        for waiting in group:
            self._on_settled(waiting)
            waiting.refuse(Reason.AUDIT_DOWN)

    def _settle(
        self, group: list[Waiting], answers: list[Appended], now_us: int, first: int
    ) -> None:
        self._on_durable(
            [row_of_event(index, w.event, w.who, now_us) for index, w in enumerate(group, first)]
        )
        for waiting, appended in zip(group, answers, strict=True):
            if waiting.event.phase is Phase.OUTCOME:
                self.open_calls.pop(waiting.event.call_id, None)
            self._on_settled(waiting)
            waiting.answer(appended)
        while len(self.open_calls) > self._settings.open_calls_max:
            self.open_calls.popitem(last=False)
