"""Group commit: many callers' events, one fsync. The only place where indexes are given.

One group at a time takes all that waits, gives each event its index, is made durable in the
write-ahead log (in a thread) and only then answered. While the disk works, the event loop hashes
the leaves and signs the receipts of that same group, and takes in the next one.

Whatever ends goes before whatever begins: a group's answers, and the group behind it, do not queue
up for a turn of the event loop, for in each turn a batch of events is let in, which takes
milliseconds.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from contextlib import contextmanager
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
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from audit.keys.pseudonyms import EventNames
    from audit.log.fresh import FreshLeaves
    from audit.log.receipts import ReceiptMaker
    from audit.log.wal import Wal
    from audit.search.query import IndexRow
    from audit.search.rows import Who
    from audit.settings import AuditSettings
    from meshkit.contract import Commitment, Event
    from meshkit.work_threads import WorkThreads

__all__ = ["Committer", "Intent", "Waiting"]

log = structlog.get_logger()

_TURNS_MAX = 8
"""Turns of the event loop that a group waits for at most, and only as long as it grows."""
_GATHERED_MAX = 16
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


@dataclass(slots=True, eq=False)
class _Group:
    """Events on their way to the disk together: entries `first` and following."""

    first: int
    events: list[Waiting]
    received_us: int
    began_s: float = 0.0
    """By the performance counter: when it was handed to the disk's thread."""
    intents: list[Intent | None] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    answers: list[Appended] = field(default_factory=list)
    opened: list[bytes] = field(default_factory=list)
    """Calls whose INTENT is among them."""


def _refuse(futures: Iterable[asyncio.Future[Appended]], reason: Reason) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(Refusal(reason))
            future.exception()  # seen: a caller that went away does not fetch it


class Committer:
    """Owns the queue, and says when a group of it goes to the disk.

    fresh: given each group's leaves, in order, once they are durable.
    on_durable: told each group's index rows, likewise.
    on_settled: told each event of a group when it is durable or has failed.
    """

    def __init__(
        self,
        settings: AuditSettings,
        wal: Wal,
        receipts: ReceiptMaker,
        thread: WorkThreads,
        *,
        fresh: FreshLeaves,
        on_durable: Callable[[Sequence[IndexRow]], None],
        on_settled: Callable[[Waiting], None],
    ) -> None:
        self._settings = settings
        self._wal = wal
        self._receipts = receipts
        self._thread = thread
        self._fresh = fresh
        self._on_durable = on_durable
        self._on_settled = on_settled
        self._queue: deque[Waiting] = deque()
        self._wake = asyncio.Event()
        self._under_way = False
        self._bug: BaseException | None = None
        self.open_calls: OrderedDict[bytes, Intent] = OrderedDict()
        """Calls whose OUTCOME has not come, oldest first; bounded by `open_calls_max`."""

    def put(self, waiting: Waiting) -> None:
        """Queue an event, which is answered through its future. After the last, `ready`."""
        self._queue.append(waiting)

    def ready(self) -> None:
        """Commit what is queued: enough of it at once, less with what is about to come."""
        if len(self._queue) >= _GATHERED_MAX:
            self._begin()
        else:
            self._wake.set()

    async def run(self) -> None:
        """Begin groups until cancelled; the one under way ends by itself.

        Raises:
            BaseException: a bug's. Nothing is committed any more.
        """
        while self._bug is None:
            await self._wake.wait()
            self._wake.clear()
            await self._gather()
            self._begin()
        raise self._bug

    async def _gather(self) -> None:
        """Let those who are about to append join the group: an fsync costs the same for all."""
        waiting = 0
        for _ in range(_TURNS_MAX):
            if not waiting < len(self._queue) < _GATHERED_MAX:
                break
            waiting = len(self._queue)
            await asyncio.sleep(0)

    def _begin(self) -> None:
        """Send the next group to the disk; if one is under way, this is done when it ends."""
        if self._under_way or self._bug is not None or not self._queue:
            return
        self._under_way = True
        with self._guarded():
            first = self._wal.end
            self._commit(_Group(first, self._next_group(), time.time_ns() // 1_000))

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Have `run` raise what is raised in here: whoever happened to call is not to blame."""
        try:
            yield
        except BaseException as bug:  # noqa: BLE001 -- nothing may be committed behind it
            self._bug = bug
            self._wake.set()

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

    def _commit(self, group: _Group) -> None:
        for index, waiting in enumerate(group.events, group.first):
            group.intents.append(self._match(waiting, index, group.opened))
            group.entries.append(self._entry(waiting, group.received_us, group.intents[-1]))
        loop = asyncio.get_running_loop()

        def write() -> None:
            failure: BaseException | None = None
            try:
                self._wal.append(group.entries)
            except BaseException as caught:  # noqa: BLE001 -- raised again in the event loop
                failure = caught
            # To wait for the thread would cost every answer one more turn of the event loop.
            loop.call_soon_threadsafe(self._landed, group, failure)

        group.began_s = time.perf_counter()
        self._thread.begin(write)
        parts = zip(group.events, group.entries, group.intents, strict=True)
        group.answers += [
            self._appended(waiting, index, entry.leaf, intent)
            for index, (waiting, entry, intent) in enumerate(parts, group.first)
        ]

    def _landed(self, group: _Group, failure: BaseException | None) -> None:
        """Answer a group that is durable, or has failed; then the next one may begin."""
        self._under_way = False
        with self._guarded():
            if self._bug is not None:
                return  # without its receipts, perhaps; `abandon` tells all who wait
            if failure is None:
                self._settle(group)
            elif isinstance(failure, OSError):
                counted("audit.not_durable")
                log.critical("audit.not_durable", errno=failure.errno, events=len(group.events))
                self._undo(group)
            else:
                raise failure
        if self._queue:
            self.ready()

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

    def _undo(self, group: _Group) -> None:
        for call_id in group.opened:
            self.open_calls.pop(call_id, None)
        for waiting in group.events:
            self._on_settled(waiting)
            waiting.refuse(Reason.AUDIT_DOWN)

    def _settle(self, group: _Group) -> None:
        observed("audit.fsync", time.perf_counter() - group.began_s)
        counted("audit.appended", len(group.events))
        leaves = [entry.leaf for entry in group.entries]
        self._fresh.put(group.first, leaves, [one.leaf_hash for one in group.answers])
        numbered = enumerate(group.events, group.first)
        self._on_durable(
            [row_of_event(index, one.event, one.who, group.received_us) for index, one in numbered]
        )
        for waiting, appended in zip(group.events, group.answers, strict=True):
            if waiting.event.phase is Phase.OUTCOME:
                self.open_calls.pop(waiting.event.call_id, None)
            self._on_settled(waiting)
            waiting.answer(appended)
        while len(self.open_calls) > self._settings.open_calls_max:
            self.open_calls.popitem(last=False)
