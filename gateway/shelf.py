"""The cache, as a call meets it: whatever goes wrong there is a miss, and counted."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshkit.contract import CachedAnswer, CacheMiss, Direction, Ended, FinishReason, Refusal
from meshkit.counters import counted
from meshkit.telemetry import step

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from typing import TypeVar

    from gateway.run import Run
    from meshkit.contract import Cache, Question, Released

    T = TypeVar("T")

__all__ = ["Shelf"]

_WHOLE = frozenset({FinishReason.STOP, FinishReason.LENGTH})
"""Ends of an answer that an equal question would get again."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """Looks up, keeps, gives back. A lease that was taken is put or abandoned, once.

    budget_s: a cache that has not answered by then has failed.
    """

    cache: Cache
    budget_s: float

    async def look_up(self, run: Run, question: Question) -> CachedAnswer | CacheMiss:
        """Find an answer, or become the one who makes it."""
        if not (run.call.cache_ok and run.call.parameters.deterministic):
            return CacheMiss()
        with step("cache.get"):
            found = await self._tried(self.cache.get(question))
        if found is None:
            run.tier = "down"
            return CacheMiss()
        if isinstance(found, CacheMiss):
            run.tier, run.lease = "miss", found.lease
        return found

    async def keep(self, run: Run, question: Question) -> None:
        """Keep a whole answer for those who ask the same; else the lease goes back at the end."""
        released, finish = run.released, run.finish
        if not run.lease or released is None or finish not in _WHOLE or _is_of_session(released):
            return
        ended = Ended(finish_reason=finish, usage=run.usage)
        with step("cache.put"):
            if await self._tried(self._put(run, question, ended)):
                run.lease = b""

    async def give_back(self, run: Run) -> None:
        """Let another make the answer, if this call has not."""
        if run.lease and run.question is not None:
            lease, run.lease = run.lease, b""
            await self._tried(self.cache.abandon(run.question, lease))

    async def _put(self, run: Run, question: Question, ended: Ended) -> bool:
        assert run.released is not None
        await self.cache.put(question, run.lease, run.released, ended)
        return True

    async def _tried(self, asked: Awaitable[T]) -> T | None:
        try:
            async with asyncio.timeout(self.budget_s):
                return await asked
        except (Refusal, TimeoutError):
            counted("cache.down")
            return None


def _is_of_session(released: Released) -> bool:
    """Whether tokens were put into the answer: no other session could have them restored.

    Those that came in with the prompt are no matter: no other session's prompt has them.
    """
    return any(
        each.action == "tokenise" and each.direction is Direction.ANSWER
        for each in released.verdict.counts
    )
