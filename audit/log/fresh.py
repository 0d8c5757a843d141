"""Leaves that became durable lately, kept until they are in the tree.

They were in memory with their hashes anyhow, when their callers got their acks. To read them from
the write-ahead log again and hash them once more would take the interpreter from the event loop
for 20 ms twice a second, at 2,500 events a second. What is not here any more is read from there.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FreshLeaves"]


class _Group(NamedTuple):
    first: int
    leaves: Sequence[bytes]
    hashes: Sequence[bytes]
    octets: int

    @property
    def end(self) -> int:
        return self.first + len(self.leaves)


class FreshLeaves:
    """A queue without gaps. The event loop puts groups in, the publisher's thread takes them."""

    def __init__(self, bytes_max: int) -> None:
        """Hold leaves of `bytes_max` in all, 100 bytes more for each; beyond it the oldest go."""
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._groups: deque[_Group] = deque()
        self._octets = 0

    def put(self, first: int, leaves: Sequence[bytes], hashes: Sequence[bytes]) -> None:
        """Keep a durable group: the entries from `first` on."""
        group = _Group(first, leaves, hashes, sum(map(len, leaves)))
        with self._lock:
            if self._groups and self._groups[-1].end != first:
                self._drop(len(self._groups))
            self._groups.append(group)
            self._octets += group.octets
            while self._octets > self._bytes_max:
                self._drop(1)

    def since(self, start: int, most: int) -> tuple[list[bytes], list[bytes]]:
        """Return the leaves from entry `start` on and their hashes: about `most`, or none."""
        with self._lock:
            groups = list(self._groups)
        leaves: list[bytes] = []
        hashes: list[bytes] = []
        for group in groups:
            if group.end <= start:
                continue
            if group.first > start or len(leaves) >= most:
                break
            skipped = start - group.first
            leaves += group.leaves[skipped:]
            hashes += group.hashes[skipped:]
            start = group.end
        return leaves, hashes

    def drop_before(self, index: int) -> None:
        """Let go of the groups all of whose entries lie before `index`: they are in the tree."""
        with self._lock:
            while self._groups and self._groups[0].end <= index:
                self._drop(1)

    @property
    def octets(self) -> int:
        """Bytes of leaves that are held."""
        return self._octets

    def _drop(self, count: int) -> None:
        for _ in range(count):
            self._octets -= self._groups.popleft().octets
