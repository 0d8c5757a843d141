"""Events on their way to the audit service: what was sent, what has its ack, what waits. No I/O.

    add ──▶ waiting ──take──▶ sent, no ack ──settle──▶ the appender hears
               ▲                   │
               └──────rewind───────┘   the stream broke: what has no ack is sent again, unchanged

The idempotency key is (call id, phase), so sending again is safe. An event is kept for as long as
somebody waits for its ack; the number kept is bounded, and beyond it an appender hears OVERLOADED.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from meshkit.contract import Phase, Reason, Refusal

if TYPE_CHECKING:
    from meshkit.contract import Appended, Event

__all__ = ["Appends", "Key", "Pending"]

Key = tuple[bytes, Phase]


@dataclass(slots=True, eq=False)
class Pending:
    """An event without an ack."""

    event: Event
    sampled: bool
    """Whether the call's trace is being exported."""
    done: asyncio.Future[Appended | Refusal]
    waiters: int = 0

    @property
    def key(self) -> Key:
        """What its ack will name."""
        return self.event.call_id, self.event.phase


@dataclass(slots=True)
class Appends:
    """All events of this process that have no ack yet; for one event loop.

    events_max: how many are kept.
    retry_after_ms: what an appender is told beyond that.
    changed: set whenever there may be something to send.
    """

    events_max: int
    retry_after_ms: int
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    _kept: dict[Key, Pending] = field(default_factory=dict)
    _waiting: dict[Key, None] = field(default_factory=dict)
    """What is to be sent, in order, each once."""

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, event: Event, *, sampled: bool) -> Pending:
        """Keep an event until its ack comes; each `add` wants a `leave`.

        Raises:
            Refusal: OVERLOADED, no room; CONFLICT, the same key with other content is on its way.
        """
        known = self._kept.get((event.call_id, event.phase))
        if known is not None:
            if known.event != event:
                raise Refusal(Reason.CONFLICT)
            known.waiters += 1
            return known
        if len(self._kept) >= self.events_max:
            raise Refusal(Reason.OVERLOADED, retry_after_ms=self.retry_after_ms)
        pending = Pending(event, sampled, asyncio.get_running_loop().create_future(), waiters=1)
        self._kept[pending.key] = pending
        self._waiting[pending.key] = None
        self.changed.set()
        return pending

    def leave(self, pending: Pending) -> None:
        """Say that one appender waits no more; an event nobody waits for is not sent again."""
        pending.waiters -= 1
        if pending.waiters == 0 and self._kept.get(pending.key) is pending:
            del self._kept[pending.key]
            self._waiting.pop(pending.key, None)

    def take(self, most: int) -> list[Pending]:
        """Take what is to be sent now, oldest first, at most so many."""
        keys = list(islice(self._waiting, most))
        for key in keys:
            del self._waiting[key]
        return [self._kept[key] for key in keys]

    def sent(self) -> list[Pending]:
        """Return what was taken and has no ack yet."""
        return [pending for key, pending in self._kept.items() if key not in self._waiting]

    def settle(self, key: Key, result: Appended | Refusal) -> None:
        """Tell the appenders of an event; an ack that nobody waits for is dropped."""
        self._waiting.pop(key, None)
        pending = self._kept.pop(key, None)
        if pending is not None and not pending.done.done():
            pending.done.set_result(result)

    def rewind(self) -> None:
        """Have everything sent again that has no ack: the stream it went by is gone."""
        self._waiting = dict.fromkeys(self._kept)
        self.changed.set()
