"""An engine that repeats the prompt and adds what nobody may read.

If text that was not screened reached the model, its answer would hold it; if text that was not
released left, it would hold `reveal-…@`.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from typing import TYPE_CHECKING

from inference.engines.base import ANONYMOUS
from meshkit.contract import Ended, FinishReason, Generated, ModelInfo, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from inference.engines.base import RequestContext
    from meshkit.contract import Message, Parameters

NAME = "parrot"
PIECE_CHARS = 4
PAUSE_S = 0.002
"""Between pieces: an answer takes some tenths of a second, so that faults fall into it."""


class Parrot:
    """Implements `inference.engines.base.Engine`."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._generated = 0
        self._info = ModelInfo(
            name=NAME,
            digest=hashlib.sha256(b"sealgate/chaos-engine").digest(),
            context_tokens=1 << 20,
            licence="none",
        )

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def healthy(self) -> bool:
        return True

    @property
    def generated_tokens(self) -> int:
        return self._generated

    async def close(self) -> None:
        pass

    async def generate(
        self,
        messages: Sequence[Message],
        parameters: Parameters,
        *,
        context: RequestContext = ANONYMOUS,  # noqa: ARG002 -- it serves all alike
    ) -> AsyncGenerator[Generated | Ended, None]:
        said = messages[-1].content
        text = f"You said: {said} My own mail is reveal-{next(self._numbers):08x}@example.org."
        pieces = [text[at : at + PIECE_CHARS] for at in range(0, len(text), PIECE_CHARS)]
        for piece in pieces[: parameters.max_tokens]:
            await asyncio.sleep(PAUSE_S)
            self._generated += 1
            yield Generated(piece)
        usage = Usage(prompt_tokens=len(said) // 4, completion_tokens=len(pieces))
        yield Ended(finish_reason=FinishReason.STOP, usage=usage)
