"""How work in the background leaves the interpreter to those who wait for acks.

Moving a second's payloads, indexing them and hashing them into the tree takes a tenth of a second
of CPU. In one piece it would halve for as long what the event loop gets done, and acks queue up. So
it is done in small slices, each followed by a rest, as long as little is behind; whatever is far
behind (after an outage, or under more load than this) is caught up with as fast as can be.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from audit.log.wal import Entry, Group, Wal

__all__ = ["Pace", "entries_from", "groups_from"]

_SLICE_EVENTS = 128
_HURRY_EVENTS = 2_048
"""Who is so far behind hurries: what is durable shall be public within a second."""
_REST = 1.0
"""Rests are so many times as long as the work before them."""
_REST_MAX_S = 0.005
_WORK_S = 0.003
"""Blocking work does not rest before so much of it is done."""
_BYTES_MAX = 64 << 20
"""Of payloads and leaves taken at a time, about: however large they are, they are in memory."""


class Pace:
    """Slices and rests, by how many durable events are `behind`."""

    def __init__(self, behind: Callable[[], int], *, events_max: int) -> None:
        """Begin hurrying; whoever hurries takes up to `events_max` at a time."""
        self._behind = behind
        self._events_max = events_max
        self.hurried = True

    @property
    def events(self) -> int:
        """How many events to take at a time."""
        return self._events_max if self._hurries() else min(_SLICE_EVENTS, self._events_max)

    def rest_s(self, worked_s: float) -> float:
        """Return how long to rest after so much work."""
        return 0.0 if self._hurries() else min(_REST * worked_s, _REST_MAX_S)

    def _hurries(self) -> bool:
        return self.hurried or self._behind() >= _HURRY_EVENTS

    def sliced(self) -> Callable[[], None]:
        """Return what blocking work calls between its slices: it rests there."""
        began_s = time.perf_counter()

        def rest() -> None:
            nonlocal began_s
            worked_s = time.perf_counter() - began_s
            if worked_s >= _WORK_S:
                time.sleep(self.rest_s(worked_s))
                began_s = time.perf_counter()

        return rest


def _on() -> None:
    """Go on without a rest."""


def entries_from(wal: Wal, start: int, most: int, rest: Callable[[], None] = _on) -> list[Entry]:
    """Read durable entries from `start` on: about `most`, to the end of a group. Blocks.

    `rest` is called behind each group.
    """
    entries: list[Entry] = []
    for group in groups_from(wal.groups, start, most):
        entries += wal.read(group)[max(0, start - group.first) :]
        rest()
    return entries


def groups_from(groups: Iterable[Group], start: int, most: int) -> Iterator[Group]:
    """Yield groups with about `most` entries from `start` on, or fewer if they are large."""
    taken = size = 0
    for group in groups:
        if taken >= most or size >= _BYTES_MAX:
            break
        if group.end > start:
            yield group
            taken += group.end - max(start, group.first)
            size += group.length
