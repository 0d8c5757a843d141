"""Beginnings of prompts whose keys and values are kept for the next prompt that begins so. PURE.

A prompt is cut into chunks at places that depend on the tokens before them alone, so two prompts
that begin alike are cut alike there. A chunk is known by a key over the salt and all tokens up to
its end:

    key(n) = BLAKE2b-256(key = salt, key(n-1) | number of tokens, 4 bytes | tokens, 4 bytes each)

Of two salts no key is equal, so nobody is ever handed, nor can tell by the time it takes, what
another computed. Only whole chunks are reused, and the rest of the prompt runs in the very chunks
in which it would have run anyway: the same calls on the same numbers, hence the same bits.

Cuts: after so many tokens at the latest; before that, if the chunk has become long enough to be
worth it, where the first turn ends (a system message that many prompts share) and where the model
was asked to speak (the conversation up to there comes again with the next turn).
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

__all__ = ["Prefixes", "cuts", "keys_of"]

T = TypeVar("T")

_NUMBER_BYTES = 4


def cuts(
    prompt: Sequence[int], *, controls: Collection[int], chunk_tokens: int, least_tokens: int
) -> tuple[int, ...]:
    """Return where a prompt is cut: ascending, each in 1..len(prompt).

    Args:
        prompt: token ids, template included.
        controls: ids of turn marks.
        chunk_tokens: the longest chunk.
        least_tokens: the shortest that ends where a turn does; the prompt's last may be shorter.
    """
    found, start = [], 0
    for mark in (*_turns(prompt, controls), math.inf):
        while start + chunk_tokens < min(mark, len(prompt) + 1):
            start += chunk_tokens
            found.append(start)
        if mark - start >= least_tokens and mark <= len(prompt):
            start = int(mark)
            found.append(start)
    return tuple(found)


def _turns(prompt: Sequence[int], controls: Collection[int]) -> list[int]:
    """Where the first turn ends, and where the model was asked to speak: ascending."""
    marks = [place for place, token in enumerate(prompt) if token in controls]
    if not marks:
        return []
    # The template's last words, from its last mark on, ask the model to speak.
    asking = tuple(prompt[marks[-1] :])
    found = {
        place + len(asking)
        for place in marks
        if tuple(prompt[place : place + len(asking)]) == asking
    }
    seen = set()
    for place in marks:
        if prompt[place] in seen:
            # The first mark that comes again opens the second turn.
            found.add(place)
            break
        seen.add(prompt[place])
    return sorted(found - {0})


def keys_of(salt: bytes, prompt: Sequence[int], stops: Sequence[int]) -> tuple[bytes, ...]:
    """Return the key of each chunk, at its end; none without a salt.

    Args:
        salt: 64 bytes at most.
        prompt: token ids, each below 2**32.
        stops: where chunks end.
    """
    if not salt:
        return ()
    keys, start, last = [], 0, b""
    for stop in stops:
        raw = array("I", prompt[start:stop]).tobytes()
        told = last + (stop - start).to_bytes(_NUMBER_BYTES) + raw
        last = hashlib.blake2b(told, key=salt, digest_size=32).digest()
        keys.append(last)
        start = stop
    return tuple(keys)


class Prefixes(Generic[T]):
    """Values by key, the least recently used out first, never more than `room` in all.

    A chunk is of use only behind the one before it. So whenever one is used, all before it are
    used later than it: what goes first never has another behind it.

    Args:
        room: in the unit of `size`.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self._kept: OrderedDict[bytes, tuple[T, int]] = OrderedDict()
        self.size = 0

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, keys: Sequence[bytes]) -> tuple[T, ...]:
        """Return the values of the longest run of keys, from the first on, that are all kept."""
        found = []
        for key in keys:
            kept = self._kept.get(key)
            if kept is None:
                break
            found.append(kept[0])
        self._use(keys[: len(found)])
        return tuple(found)

    def count(self, keys: Sequence[bytes]) -> int:
        """Return how many keys, from the first on, are kept; that is no use of them."""
        return next((n for n, key in enumerate(keys) if key not in self._kept), len(keys))

    def makes_room(self, keys: Sequence[bytes], size: int) -> bool:
        """Let go of what is oldest until `size` more would fit.

        Args:
            keys: of the chunk to come and all before it: these stay, and are used by this.
            size: of the chunk to come.

        Returns:
            Whether the chunk may now be put; not if those before it are gone, or if it never fits.
        """
        before = keys[:-1]
        if keys[-1] in self._kept or self.count(before) < len(before):
            return False
        self._use(before)
        needed = sum(self._kept[key][1] for key in before) + size
        if needed > self.room:
            return False
        while self.size + size > self.room:
            _, (_, freed) = self._kept.popitem(last=False)
            self.size -= freed
        return True

    def put(self, keys: Sequence[bytes], value: T, size: int) -> None:
        """Keep a chunk's value, once `makes_room` has said so."""
        self._kept[keys[-1]] = (value, size)
        self.size += size
        self._use(keys)

    def clear(self) -> None:
        """Let go of everything."""
        self._kept.clear()
        self.size = 0

    def _use(self, keys: Sequence[bytes]) -> None:
        for key in reversed(keys):
            self._kept.move_to_end(key)
