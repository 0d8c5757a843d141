"""One batch of events is let in each turn of the event loop, in the order in which they came.

Reading, checking and sealing a batch takes milliseconds in one piece. Were all that arrive together
let in at once, what is durable already would wait behind them for its acks.
"""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["Turns"]


class Turns:
    """A turnstile; for one event loop."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._taken = False

    async def take(self) -> None:
        """Wait for a turn of one's own: at once, if nobody else came in this one."""
        loop = asyncio.get_running_loop()
        if not self._taken:
            self._taken = True
            loop.call_soon(self._give, loop)
            return
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _give(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # else it was cancelled: its stream broke
                turn.set_result(None)
                loop.call_soon(self._give, loop)
                return
        self._taken = False
