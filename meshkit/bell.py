"""Wakes the one task that waits: what `asyncio.Event` does, for a fraction of its calls."""

from __future__ import annotations

import asyncio

__all__ = ["Bell"]


class Bell:
    """Rung until silenced. One task at a time may listen; all methods belong to its event loop."""

    __slots__ = ("_listener", "_rings")

    def __init__(self) -> None:
        self._rings = False
        self._listener: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Wake who listens, and whoever listens before it is silenced."""
        self._rings = True
        listener = self._listener
        if listener is not None and not listener.done():
            listener.set_result(None)

    def silence(self) -> None:
        """Have who listens next wait."""
        self._rings = False

    async def heard(self) -> None:
        """Wait until it is rung; not at all if it rings.

        Raises:
            RuntimeError: another task listens: it would not be woken any more.
        """
        if self._rings:
            return
        if self._listener is not None:
            msg = "two tasks listen to one bell"
            raise RuntimeError(msg)
        self._listener = asyncio.get_running_loop().create_future()
        try:
            await self._listener
        finally:
            self._listener = None
