"""From the model's tokens to the chunks that compliance sees: paced, counted, paid for.

A task of its own reads the engine, so that tokens gather while a chunk is being released. The
first chunks pass at once; once something was delivered they gather, `tokens` of them or `ms` long.
Where compliance says how much it waits for (`meshkit.reading`), that much is gathered instead: less
would be kept there, and nothing leave. Leaving the block cancels that task, and with it the engine.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self, cast

from meshkit.bell import Bell
from meshkit.contract import Ended, Generated, Usage
from meshkit.reading import Wanted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

__all__ = ["Pace", "TokenStream"]


@dataclass(frozen=True, slots=True)
class Pace:
    """When a chunk is full: so many tokens, or so many milliseconds (0: only tokens count).

    eager: pass every piece at once until the first delivery.
    """

    tokens: int
    ms: int = 0
    eager: bool = False


@dataclass(slots=True)
class TokenStream:
    """An engine being read. `async with` starts and stops it.

    allowed: tokens that are paid for.
    more: pays for more; returns how many, 0 if the limit is used up.
    first: told when the first piece of the answer has come.
    wanted: what the reader of the chunks waits for, if it says so.
    """

    source: AsyncIterator[Generated | Ended]
    pace: Pace
    allowed: int
    more: Callable[[], Awaitable[int]]
    first: Callable[[], None] = lambda: None
    wanted: Wanted = field(default_factory=Wanted)
    ended: Ended | None = None
    limited: bool = False
    failure: Exception | None = None
    tokens: int = 0
    _texts: list[str] = field(default_factory=list)
    _gathered: int = 0
    _characters: int = 0
    _gather: bool = False
    _over: bool = False
    _ready: Bell = field(default_factory=Bell)
    _timer: asyncio.TimerHandle | None = None
    _pump: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Start the engine."""
        self._gather = not self.pace.eager
        self._pump = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the engine, and wait until it has stopped."""
        if self._timer is not None:
            self._timer.cancel()
        if self._pump is not None and not self._pump.done():
            self._pump.cancel()
            await asyncio.wait([self._pump])

    @property
    def usage(self) -> Usage:
        """What was used; of an engine that did not end by itself, the prompt's tokens are 0."""
        return self.ended.usage if self.ended else Usage(completion_tokens=self.tokens)

    def delivered(self) -> None:
        """Say that something has left: from now on tokens gather."""
        self._gather = True

    async def deltas(self) -> AsyncIterator[str]:
        """Yield the answer in chunks, none empty. Raises what the engine raised."""
        while True:
            if self._full():  # what is wanted may be less by now
                self._ready.ring()
            await self._ready.heard()
            text = self._take()
            if text:
                yield text
            elif self._over:
                break
        if self.failure is not None:
            raise self.failure

    def _take(self) -> str:
        text = "".join(self._texts)
        self._texts.clear()
        self._gathered = self._characters = self.wanted.held = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._over:
            self._ready.silence()
        return text

    async def _read(self) -> None:
        try:
            source = cast("AsyncGenerator[Generated | Ended, None]", self.source)
            async with aclosing(source):
                async for item in source:
                    if isinstance(item, Ended):
                        self.ended = item
                        break
                    if not self.tokens:
                        self.first()
                    self.tokens += item.tokens
                    if self.tokens > self.allowed and not await self._pay():
                        self.limited = True
                        break
                    self._gather_in(item)
        except Exception as error:  # noqa: BLE001 -- raised again by `deltas`, in the call's task
            self.failure = error
        finally:
            self._over = True
            self._ready.ring()

    async def _pay(self) -> bool:
        while self.tokens > self.allowed:
            more = await self.more()
            if more == 0:
                return False
            self.allowed += more
        return True

    def _gather_in(self, item: Generated) -> None:
        self._texts.append(item.text)
        self._gathered += item.tokens
        self._characters += len(item.text)
        if self.pace.eager:
            self.wanted.held = self._characters
        if self._characters < self.wanted.characters:
            return  # most pieces end here
        if self._full():
            self._ready.ring()
        elif self._timer is None and self.pace.ms and not self.wanted.characters:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self.pace.ms / 1_000, self._ready.ring)

    def _full(self) -> bool:
        """Whether what was gathered is to be handed over."""
        if not self._gathered or self._characters < self.wanted.characters:
            return False
        enough = self.pace.eager if self.wanted.characters else not self._gather
        return enough or self._gathered >= self.pace.tokens
