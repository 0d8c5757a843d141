"""Single flight: one asker of a question answers it, the others wait. PURE, but for futures.

lead        the first asker gets a lease; it is the flight's leader
landed      the answer is kept: everyone who waits may look it up
handed on   the leader gave up: the first who waits becomes the leader, the others go on waiting
lapsed      the leader was not heard of for `lease_s`: whoever asks or waits next takes over
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from dataclasses import dataclass, field
from hmac import compare_digest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Flights"]

_LEASE_BYTES = 16


@dataclass(slots=True)
class _Flight:
    tenant: str
    lease: bytes
    lapses_at_s: float
    waiters: deque[asyncio.Future[bytes]] = field(default_factory=deque)


class Flights:
    """The questions under way. For one event loop.

    Args:
        lease_s: how long a leader may take.
        clock: seconds, steady.
    """

    def __init__(self, *, lease_s: float, clock: Callable[[], float]) -> None:
        self._lease_s = lease_s
        self._clock = clock
        self._flights: dict[bytes, _Flight] = {}

    def __len__(self) -> int:
        return len(self._flights)

    @property
    def tenants(self) -> set[str]:
        """Those whose questions are under way."""
        return {flight.tenant for flight in self._flights.values()}

    def lead(self, key: bytes, *, tenant: str) -> bytes:
        """Return a lease if nobody has a valid one for this key; else no bytes."""
        now_s = self._clock()
        self._forget_lapsed(now_s)
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight(tenant, b"", 0.0)
        elif now_s < flight.lapses_at_s:
            return b""
        return self._lease(key, flight)

    async def wait(self, key: bytes, *, most_s: float) -> bytes:
        """Wait until the flight of this key is over, its leader is late, or `most_s` is up.

        Returns:
            A lease, if it was handed on to us. Otherwise no bytes: look again.
        """
        flight = self._flights.get(key)
        if flight is None:
            return b""
        turn: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        flight.waiters.append(turn)
        most_s = max(0.0, min(most_s, flight.lapses_at_s - self._clock()))
        try:
            await asyncio.wait((turn,), timeout=most_s)
        except asyncio.CancelledError:
            # Perhaps it became our turn in the very moment we were cancelled.
            if turn.done():
                self.hand_on(key, turn.result())
            raise
        finally:
            if turn in flight.waiters:
                flight.waiters.remove(turn)
        return turn.result() if turn.done() else b""

    def holds(self, key: bytes, lease: bytes) -> bool:
        """Whether `lease` is the valid one for this key."""
        flight = self._flights.get(key)
        return flight is not None and bool(lease) and compare_digest(flight.lease, lease)

    def land(self, key: bytes, lease: bytes) -> None:
        """The leader's answer is kept: wake everyone."""
        if self.holds(key, lease):
            _wake_all(self._flights.pop(key))

    def hand_on(self, key: bytes, lease: bytes) -> None:
        """The leader gives up: the first who waits is the next leader."""
        if not self.holds(key, lease):
            return
        flight = self._flights[key]
        while flight.waiters:
            turn = flight.waiters.popleft()
            if not turn.done():
                turn.set_result(self._lease(key, flight))
                return
        del self._flights[key]

    def purge(self, tenant: str) -> None:
        """No lease of this tenant holds any more: what is on its way must not be kept."""
        for key in [key for key, flight in self._flights.items() if flight.tenant == tenant]:
            _wake_all(self._flights.pop(key))

    def _lease(self, key: bytes, flight: _Flight) -> bytes:
        flight.lease = secrets.token_bytes(_LEASE_BYTES)
        flight.lapses_at_s = self._clock() + self._lease_s
        # Renewed leases go to the end: the dict stays in order of lapsing.
        self._flights.pop(key, None)
        self._flights[key] = flight
        return flight.lease

    def _forget_lapsed(self, now_s: float) -> None:
        """Leaders that crashed and that nobody waited for would pile up."""
        while self._flights:
            key, oldest = next(iter(self._flights.items()))
            if now_s < oldest.lapses_at_s or oldest.waiters:
                return
            del self._flights[key]


def _wake_all(flight: _Flight) -> None:
    for turn in flight.waiters:
        if not turn.done():
            turn.set_result(b"")
