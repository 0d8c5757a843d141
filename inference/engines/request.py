"""One request in the torch engine: what the engine's thread does to it, what its caller sees.

The engine's thread samples and turns tokens into text (`Answer`); it hands results to the caller's
event loop once a step for all requests together, where `Mailbox` keeps them until the caller asks.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inference.sampling import Sampler
from inference.text import StopScan, Utf8
from meshkit.contract import Ended, FinishReason, Generated, Refusal, Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from inference.tokenizer import ChatTokenizer
    from meshkit.contract import Parameters

__all__ = ["Answer", "Item", "Mailbox", "Request"]

Item = Generated | Ended | Refusal
"""A piece, the end, or why there is none."""


class Answer:
    """The growing answer to one prompt. Owned by the engine's thread.

    Args:
        prompt: token ids, chat template included.
        room: tokens that the context leaves for the answer; 1 or more.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        parameters: Parameters,
        tokenizer: ChatTokenizer,
        *,
        room: int,
    ) -> None:
        self.prompt = tuple(prompt)
        self.parameters = parameters
        self.tokens: list[int] = []
        self._most = min(parameters.max_tokens, room)
        self._tokenizer = tokenizer
        self._sampler = Sampler(parameters)
        self.seed = self._sampler.seed
        self._characters = Utf8()
        self._stop = StopScan(parameters.stop)

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

    def add(self, token: int) -> tuple[Generated | Ended, ...]:
        """Take a token; return what it means for the caller, `Ended` last if it is over."""
        self.tokens.append(token)
        text, stopped = self._stop.feed(self._characters.feed(self._tokenizer.raw(token)))
        if stopped:
            return Generated(text), self._ended(FinishReason.STOP)
        if token in self._tokenizer.ends:
            return Generated(text + self._stop.flush()), self._ended(FinishReason.STOP)
        if len(self.tokens) >= self._most:
            return Generated(text + self._stop.flush()), self._ended(FinishReason.LENGTH)
        return (Generated(text),)

    def _ended(self, reason: FinishReason) -> Ended:
        usage = Usage(prompt_tokens=len(self.prompt), completion_tokens=len(self.tokens))
        return Ended(finish_reason=reason, usage=usage)


class Mailbox:
    """What the engine has for one caller. All methods belong to the caller's event loop."""

    def __init__(self) -> None:
        self._items: list[Item] = []
        self._filled = asyncio.Event()

    def deliver(self, items: Sequence[Item]) -> None:
        """Add results, in order."""
        self._items += items
        self._filled.set()

    async def take(self) -> tuple[Item, ...]:
        """Wait for results; return them, text that came in several pieces as one."""
        await self._filled.wait()
        self._filled.clear()
        items, self._items = self._items, []
        pieces = [item for item in items if isinstance(item, Generated)]
        rest = tuple(item for item in items if not isinstance(item, Generated))
        if not pieces:
            return rest
        text = "".join(piece.text for piece in pieces)
        return Generated(text, sum(piece.tokens for piece in pieces)), *rest


@dataclass(slots=True, eq=False)
class Request:
    """A caller's request while the engine has it."""

    id: int
    answer: Answer
    mailbox: Mailbox
    loop: asyncio.AbstractEventLoop
