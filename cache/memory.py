"""L1: sealed values in this process, the least recently used go first. PURE: the clock is given.

Bounded in bytes. An entry serves for the TTL less a random share, so that entries made together do
not end together; those that are over are dropped within a second of the next call, used or not.
"""

from __future__ import annotations

import random
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from math import ceil

__all__ = ["ENTRY_OVERHEAD_BYTES", "MemoryTier"]

ENTRY_OVERHEAD_BYTES = 512
"""What an entry takes besides its value: key, entry, and its places in three indexes."""


@dataclass(slots=True)
class _Entry:
    value: bytes
    tenant: str
    over_at_s: float
    tags: tuple[str, ...]


class MemoryTier:
    """A byte-bounded LRU with expiry.

    Args:
        bytes_max: for values and overhead together.
        ttl_s: how long an entry serves at most.
        jitter: share of `ttl_s`, in [0, 1), up to which it is cut short at random.
    """

    def __init__(self, *, bytes_max: int, ttl_s: float, jitter: float) -> None:
        self._bytes_max = bytes_max
        self._ttl_s = ttl_s
        self._jitter = jitter
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._tenants: defaultdict[str, set[bytes]] = defaultdict(set)
        self._over: OrderedDict[int, list[bytes]] = OrderedDict()
        self._swept_s = 0
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size_bytes(self) -> int:
        """Room taken, overhead included; never above `bytes_max`."""
        return self._bytes

    @property
    def tenants(self) -> set[str]:
        """Those that have entries."""
        return set(self._tenants)

    def get(self, key: bytes, *, now_s: float) -> bytes | None:
        """Return a value that still serves, and count it as used."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if now_s >= entry.over_at_s:
            self.remove(key)
            return None
        self._entries.move_to_end(key)
        return entry.value

    def put(
        self, key: bytes, value: bytes, *, tenant: str, now_s: float, tags: tuple[str, ...] = ()
    ) -> bool:
        """Keep a value in place of any other under that key; False if it is too large."""
        self._sweep(now_s)
        self.remove(key)
        if _room(value) > self._bytes_max:
            return False
        share = 1 - self._jitter * random.random()  # noqa: S311 -- spreads load, guards nothing
        entry = _Entry(value, tenant, now_s + self._ttl_s * share, tags)
        self._entries[key] = entry
        self._tenants[tenant].add(key)
        self._over.setdefault(ceil(entry.over_at_s), []).append(key)
        self._bytes += _room(value)
        while self._bytes > self._bytes_max:
            self.remove(next(iter(self._entries)))
        return True

    def remove(self, key: bytes) -> None:
        """Forget one entry, if it is there."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        self._bytes -= _room(entry.value)
        keys = self._tenants[entry.tenant]
        keys.discard(key)
        if not keys:
            del self._tenants[entry.tenant]

    def purge(self, tenant: str, tag: str = "") -> int:
        """Forget all of a tenant, or what bears a tag; return how many entries went."""
        keys = [
            key
            for key in self._tenants.get(tenant, ())
            if not tag or tag in self._entries[key].tags
        ]
        for key in keys:
            self.remove(key)
        return len(keys)

    def _sweep(self, now_s: float) -> None:
        """Drop what is over, once a second: each entry is looked at once, when it is due."""
        if int(now_s) == self._swept_s:
            return
        self._swept_s = int(now_s)
        for due_s in sorted(second for second in self._over if second <= now_s):
            for key in self._over.pop(due_s):
                entry = self._entries.get(key)
                if entry is not None and now_s >= entry.over_at_s:
                    self.remove(key)


def _room(value: bytes) -> int:
    return len(value) + ENTRY_OVERHEAD_BYTES
