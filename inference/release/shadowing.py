"""Calls repeated on a version whose answers nobody gets: compared, and forgotten.

The first to go when there is much to do: with more than `busy_max` real calls none begins, and
those under way are given up. At most `running_max` run at once, of texts of bounded length. What a
shadow says stays here: it is neither released, nor cached, nor logged.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING

import structlog

from inference.release.comparison import CHARACTERS_MAX, compare
from meshkit.contract import PER_WHOLE, Ended, Refusal
from meshkit.counters import counted
from meshkit.logs import frames_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from inference.engines.base import Engine, RequestContext
    from inference.release.windows import Comparison
    from meshkit.contract import Message, Parameters

__all__ = ["Answered", "Shadows", "is_sampled"]

log = structlog.get_logger()

_PRIORITY = -1


@dataclass(slots=True)
class Answered:
    """A real call whose answer is to be compared. took_s: how long it took."""

    messages: tuple[Message, ...]
    parameters: Parameters
    context: RequestContext
    text: str = ""
    took_s: float = 0.0

    def add(self, text: str) -> None:
        """Keep a piece of the answer, as far as it is compared."""
        if len(self.text) < CHARACTERS_MAX:
            self.text += text


def is_sampled(call_id: bytes, share: int) -> bool:
    """Whether a call is among `share` per ten thousand: the same for the same call."""
    return int.from_bytes(sha256(call_id).digest()[:8]) % PER_WHOLE < share


@dataclass(slots=True)
class Shadows:
    """Runs them."""

    running_max: int
    busy_max: int
    timeout_s: float
    _running: set[asyncio.Task[None]] = field(default_factory=set)

    def make_way(self, real_calls: int) -> None:
        """A real call begins: shadows give up if it is one too many."""
        if real_calls > self.busy_max and self._running:
            for task in self._running:
                task.cancel()

    def follow(
        self, answered: Answered, engine: Engine, tell: Callable[[Comparison], None], real: int
    ) -> None:
        """Repeat a call on `engine` in the background, if there is room.

        Args:
            answered: What the live version said.
            engine: The candidate's.
            tell: Gets the comparison, if it comes to one.
            real: How many real calls are under way.
        """
        if real > self.busy_max or len(self._running) >= self.running_max:
            counted("release.shadow.dropped")
            return
        task = asyncio.create_task(self._run(answered, engine, tell), name="shadow")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def settled(self) -> None:
        """Wait for those under way."""
        if self._running:
            await asyncio.wait(self._running)

    async def close(self) -> None:
        """Give all up."""
        for task in self._running:
            task.cancel()
        await self.settled()

    async def _run(
        self, answered: Answered, engine: Engine, tell: Callable[[Comparison], None]
    ) -> None:
        began_s = time.perf_counter()
        try:
            async with asyncio.timeout(self.timeout_s):
                text = await self._said(answered, engine)
        except (Refusal, TimeoutError):
            counted("release.shadow.failed")
            return
        except asyncio.CancelledError:
            counted("release.shadow.dropped")
            raise
        except Exception as bug:  # noqa: BLE001 -- asyncio would log it, and it may hold a prompt
            counted("release.shadow.failed")
            kind, frames = type(bug).__name__, frames_of(bug)
            log.error("releases.shadow_bug", kind=kind, frames=frames)  # noqa: TRY400 -- no text
            return
        took_s = time.perf_counter() - began_s
        counted("release.shadow.compared")
        tell(compare(answered.text, text, live_s=answered.took_s, candidate_s=took_s))

    async def _said(self, answered: Answered, engine: Engine) -> str:
        ends_s = time.monotonic() + self.timeout_s
        context = replace(answered.context, deadline_s=ends_s, priority=_PRIORITY)
        text = ""
        source = engine.generate(answered.messages, answered.parameters, context=context)
        async with aclosing(source) as items:
            async for item in items:
                if isinstance(item, Ended) or len(text) >= CHARACTERS_MAX:
                    break
                text += item.text
        return text
