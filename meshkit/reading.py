"""How much text its reader can use at once: told to whoever writes it, within one process. PURE.

    wanted = opened()                    gateway, before it asks for an answer
    wanted.characters = 25               compliance: with fewer no segment is complete
    wanted.held = 7                      gateway: so many it has, and has not handed over
    if mine >= wanted.left: hand over    engine

Each piece of an answer wakes a chain of tasks; one that completes no segment wakes them for nothing
that anybody could see. So engine and gateway gather what compliance waits for. When text leaves is
not changed by that: what is fed below the number is kept, and looked at no sooner.

Across the wire nobody tells: there, and where nobody has said anything, pieces go by the settings
of whoever writes them, so many tokens or so much time.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

__all__ = ["Wanted", "opened", "wanted"]


@dataclass(slots=True)
class Wanted:
    """What the reader of one answer waits for. Numbers alone: any thread may look.

    characters: what must come before the reader does anything; 0: it has not said.
    held: of these, what stands between writer and reader.
    """

    characters: int = 0
    held: int = 0

    @property
    def left(self) -> int:
        """Characters that a writer should have before it hands over: 1 or more."""
        return max(1, self.characters - self.held)


_WANTED: ContextVar[Wanted | None] = ContextVar("sealgate_wanted", default=None)


def opened() -> Wanted:
    """Have readers and writers that this task calls, or starts, from here on meet in a new one."""
    fresh = Wanted()
    _WANTED.set(fresh)
    return fresh


def wanted() -> Wanted | None:
    """Return where reader and writer of this task's answer meet; None: nowhere."""
    return _WANTED.get()
