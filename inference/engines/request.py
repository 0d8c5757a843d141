"""One request in the torch engine: what the engine's thread does to it, what its caller sees.

The engine's thread samples and turns tokens into text (`Answer`); it hands results to the caller's
event loop once a step for all requests together, where `Mailbox` keeps them until the caller asks.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from inference.sampling import Sampler
from inference.speculation import Guesser
from inference.text import EACH_TOKEN, Pieces, StopScan, Utf8
from meshkit.bell import Bell
from meshkit.contract import Ended, FinishReason, Generated, Reason, Refusal, Usage

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from inference.engines.base import RequestContext
    from inference.tokenizer import Tokenizing
    from meshkit.contract import Parameters
    from meshkit.reading import Wanted

__all__ = ["Answer", "Item", "Mailbox", "Request"]

Item = Generated | Ended | Refusal
"""A piece, the end, or why there is none."""


class Answer:
    """The growing answer to one prompt. Owned by the engine's thread.

    Args:
        prompt: token ids, chat template included.
        room: tokens that the context leaves for the answer; 1 or more.
        pieces: how text is handed over.
        stops, keys: where the prompt is cut, and by what each chunk is known: `inference.prefix`.
        wanted: what the reader waits for; where it says so, text may wait for that, not for time.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        parameters: Parameters,
        tokenizer: Tokenizing,
        *,
        room: int,
        pieces: Pieces = EACH_TOKEN,
        stops: tuple[int, ...] = (),
        keys: tuple[bytes, ...] = (),
        wanted: Wanted | None = None,
    ) -> None:
        self.prompt = tuple(prompt)
        self.parameters = parameters
        self.tokens: list[int] = []
        self.stops, self.keys = stops, keys
        self.most = min(parameters.max_tokens, room)
        """Tokens that it may have."""
        self._guesser: Guesser | None = None
        self._tokenizer = tokenizer
        self._sampler = Sampler(parameters)
        self.seed = self._sampler.seed
        self._characters = Utf8()
        self._stop = StopScan(parameters.stop)
        self._pieces = pieces
        self._wanted = wanted
        self._waiting = 0
        self._told_s = 0.0

    @property
    def last_token(self) -> int:
        """What the next decode step reads."""
        return self.tokens[-1]

    @property
    def position(self) -> int:
        """Where `last_token` stands."""
        return len(self.prompt) + len(self.tokens) - 1

    def draw(self, logits: NDArray[np.float32]) -> int:
        """Sample the next token, where the device has not.

        Raises:
            BadLogitsError: see `Sampler.draw`.
        """
        return self._sampler.draw(logits)

    def guess(self, limit: int) -> tuple[int, ...]:
        """Return `limit` tokens at most that may come next; all of them would be in the answer."""
        limit = min(limit, self.most - len(self.tokens) - 1)
        if limit <= 0:
            return ()
        if self._guesser is None:
            self._guesser = Guesser((*self.prompt, *self.tokens))
        return self._guesser.guess(limit)

    def told(self, held: int) -> None:
        """Hear how many tokens of the last guess were right."""
        if self._guesser is not None:
            self._guesser.told(held)

    def add(self, token: int, now_s: float = 0.0) -> tuple[Generated | Ended, ...]:
        """Take a token; return what it means for the caller, `Ended` last if it is over.

        Nothing, if its text waits for that of the next ones: see `inference.text.Pieces`.

        Raises:
            IndexError: the tokenizer does not know the token.
        """
        self.tokens.append(token)
        if self._guesser is not None:
            self._guesser.add(token)
        self._waiting += 1
        ends = token in self._tokenizer.ends
        if not (ends or len(self.tokens) >= self.most or self._due(now_s)):
            return ()
        waiting, self._waiting, self._told_s = self._waiting, 0, now_s
        raw = b"".join(map(self._tokenizer.raw, self.tokens[-waiting:]))
        text, stopped = self._stop.feed(self._characters.feed(raw))
        if stopped:
            return Generated(text, waiting), self._ended(FinishReason.STOP)
        if ends:
            return Generated(text + self._stop.flush(), waiting), self._ended(FinishReason.STOP)
        if len(self.tokens) >= self.most:
            return Generated(text + self._stop.flush(), waiting), self._ended(FinishReason.LENGTH)
        return (Generated(text, waiting),)

    def _due(self, now_s: float) -> bool:
        """Whether text may not wait: the first, enough of it, or that which may hold a stop."""
        if (
            self._waiting >= self._pieces.tokens
            or len(self.tokens) == 1
            or bool(self.parameters.stop)
        ):
            return True
        if self._wanted is not None and self._wanted.characters:
            # Bytes are as many as characters, or more: what is enough is never held.
            held = sum(len(self._tokenizer.raw(token)) for token in self.tokens[-self._waiting :])
            return held >= self._wanted.left
        return now_s - self._told_s >= self._pieces.seconds

    def _ended(self, reason: FinishReason) -> Ended:
        usage = Usage(prompt_tokens=len(self.prompt), completion_tokens=len(self.tokens))
        return Ended(finish_reason=reason, usage=usage)


class Mailbox:
    """What the engine has for one caller. All methods belong to the caller's event loop."""

    def __init__(self) -> None:
        self._items: list[Item] = []
        self._filled = Bell()

    def deliver(self, items: Sequence[Item]) -> None:
        """Add results, in order."""
        self._items += items
        self._filled.ring()

    async def take(self) -> tuple[Item, ...]:
        """Wait for results; return them, text that came in several pieces as one."""
        await self._filled.heard()
        self._filled.silence()
        items, self._items = self._items, []
        if len(items) == 1:
            return (items[0],)
        pieces = [item for item in items if isinstance(item, Generated)]
        rest = tuple(item for item in items if not isinstance(item, Generated))
        if not pieces:
            return rest
        text = "".join(piece.text for piece in pieces)
        return Generated(text, sum(piece.tokens for piece in pieces)), *rest


@dataclass(slots=True, eq=False)
class Request:
    """A caller's request while the engine has it.

    Its deadline, and an engine that hangs, are told to the caller by its own event loop: the
    engine's thread may be the one that does not answer.
    """

    id: int
    answer: Answer
    context: RequestContext
    mailbox: Mailbox
    loop: asyncio.AbstractEventLoop
    _timers: list[asyncio.TimerHandle] = field(default_factory=list)

    def told_in_time(self) -> None:
        """Have the caller refused with OUT_OF_TIME once its deadline is there."""
        if self.context.deadline_s is not None:
            left_s = self.context.deadline_s - time.monotonic()
            late = (Refusal(Reason.OUT_OF_TIME),)
            self._timers.append(self.loop.call_later(left_s, self.mailbox.deliver, late))

    def told_if(self, hangs: Callable[[], bool], every_s: float) -> None:
        """Have the caller refused with INFERENCE_DOWN once the engine is found to hang."""

        def look() -> None:
            self._timers.remove(timer)
            if hangs():
                self.mailbox.deliver((Refusal(Reason.INFERENCE_DOWN),))
            else:
                self.told_if(hangs, every_s)

        timer = self.loop.call_later(every_s, look)
        self._timers.append(timer)

    def over(self) -> None:
        """Stop looking."""
        for timer in self._timers:
            timer.cancel()
