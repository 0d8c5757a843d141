"""An engine without a model: prose of the workload, token by token, never the same answer twice.

It stands where a model would, behind the same protocol, so that a governed call has its whole price
but the model's.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
from typing import TYPE_CHECKING

from bench.workload import answer, tokens
from inference.engines.base import ANONYMOUS
from meshkit.contract import Ended, FinishReason, Generated, ModelInfo, Parameters, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

    from inference.engines.base import RequestContext
    from meshkit.contract import Message

NAME = "null"


class ProseEngine:
    """Implements `inference.engines.base.Engine`.

    tokens_per_s: of one stream; 0 gives them one by one as fast as they are taken.
    """

    def __init__(self, *, tokens_per_s: float = 0.0) -> None:
        self._period_s = 1 / tokens_per_s if tokens_per_s else 0.0
        self._generated = 0
        self.newest_tokens = 0
        """Tokens so far of the stream that gave one out last."""
        self._numbers = itertools.count()
        self._info = ModelInfo(
            name=NAME,
            digest=hashlib.sha256(b"sealgate/bench-engine/v1").digest(),
            context_tokens=1 << 20,
            licence="none",
        )

    @property
    def info(self) -> ModelInfo:
        """The stand-in model."""
        return self._info

    @property
    def healthy(self) -> bool:
        """Always."""
        return True

    @property
    def generated_tokens(self) -> int:
        """Tokens given out since the start."""
        return self._generated

    async def close(self) -> None:
        """Nothing is held."""

    async def generate(
        self,
        messages: Sequence[Message],
        parameters: Parameters,
        *,
        context: RequestContext = ANONYMOUS,  # noqa: ARG002 -- it serves all alike
    ) -> AsyncGenerator[Generated | Ended, None]:
        """See `Engine.generate`: as many tokens as may be, of four characters each."""
        began = time.monotonic()
        words = itertools.islice(self._prose(), parameters.max_tokens)
        for place, text in enumerate(words, 1):
            if self._period_s:
                await asyncio.sleep(max(0.0, began + place * self._period_s - time.monotonic()))
            self._generated += 1
            self.newest_tokens = place
            yield Generated(text)
        prompt = sum(len(message.content) for message in messages) // 4
        usage = Usage(prompt_tokens=prompt, completion_tokens=parameters.max_tokens)
        yield Ended(finish_reason=FinishReason.STOP, usage=usage)

    def _prose(self) -> Iterator[str]:
        while True:
            yield from tokens(answer(next(self._numbers)))


async def cost_alone_us(*, streams: int, tokens_per_s: float, seconds: float) -> float:
    """Return CPU microseconds a token of the engine by itself: the baseline of streamed figures."""
    engine = ProseEngine(tokens_per_s=tokens_per_s)
    start, before = time.process_time_ns(), engine.generated_tokens
    async with asyncio.TaskGroup() as group:
        for _ in range(streams):
            group.create_task(_listen(engine, int(tokens_per_s * seconds)))
    return (time.process_time_ns() - start) / 1_000 / (engine.generated_tokens - before)


async def _listen(engine: ProseEngine, count: int) -> None:
    async for _ in engine.generate((), Parameters(max_tokens=count)):
        pass
