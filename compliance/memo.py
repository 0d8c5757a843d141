"""Remembers verdicts by a keyed digest of the text, never the text. PURE but for its random key."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from hashlib import blake2b
from typing import Generic, TypeVar

__all__ = ["Memo"]

V = TypeVar("V")

_KEY_BYTES = 32
_DIGEST_BYTES = 16


class Memo(Generic[V]):
    """A bounded map, least recently used out first.

    The key is BLAKE2b under a key made at random for this process, over a scope (tenant, policy
    digest, direction) and the text: a dump of memory holds no text, and digests cannot be guessed
    from outside. entries_max: 0 remembers nothing.
    """

    def __init__(self, entries_max: int) -> None:
        self._entries: OrderedDict[bytes, V] = OrderedDict()
        self._entries_max = entries_max
        self._key = secrets.token_bytes(_KEY_BYTES)

    def __len__(self) -> int:
        return len(self._entries)

    def key(self, scope: bytes, text: str) -> bytes:
        """Digest of a text within a scope, 16 bytes. About 1 us for 200 characters.

        Raises:
            UnicodeEncodeError: the text holds lone surrogates.
        """
        prefix = len(scope).to_bytes(4) + scope
        return blake2b(prefix + text.encode(), digest_size=_DIGEST_BYTES, key=self._key).digest()

    def get(self, key: bytes) -> V | None:
        """Return what was put under `key`, if it is still there."""
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def put(self, key: bytes, value: V) -> None:
        """Remember `value`; forget the least recently used beyond the bound."""
        if self._entries_max == 0:
            return
        self._entries[key] = value
        if len(self._entries) > self._entries_max:
            self._entries.popitem(last=False)
