"""An engine for load tests: a fixed text at a fixed rate, no model.

It lets a benchmark put the whole price of a governed call on everything but the model. It is never
chosen by a setting: a composition root has to construct it.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

from inference.engines.base import ANONYMOUS
from meshkit.contract import Document, Ended, FinishReason, Generated, ModelInfo, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

    from inference.engines.base import RequestContext
    from meshkit.contract import Message, Parameters

__all__ = ["NullEngine"]

_CHARACTERS_PER_TOKEN = 4
_MS_PER_S = 1_000


class NullEngine:
    """Implements `inference.engines.base.Engine`.

    Args:
        text: every answer; four characters count as one token, cut off at `max_tokens`.
        tokens_per_s: per stream; 0 gives the answer at once, as one piece.
        flush_ms: at a rate, tokens that fall due within this time come as one piece.
        name: the model's, in requests and records.
    """

    def __init__(
        self, text: str, *, tokens_per_s: float = 0, flush_ms: int = 20, name: str = "null"
    ) -> None:
        step = _CHARACTERS_PER_TOKEN
        self._tokens = [text[at : at + step] for at in range(0, len(text), step)]
        self._period_s = 1 / tokens_per_s if tokens_per_s else 0.0
        self._flush_s = flush_ms / _MS_PER_S
        self._generated = 0
        manifest = Document(
            "model.manifest",
            json.dumps({"name": name, "schema": "sealgate/null-engine/v2", "text": text}).encode(),
        )
        self._info = ModelInfo(
            name=name,
            digest=manifest.digest,
            documents=(manifest,),
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
        """See `Engine.generate`."""
        tokens = self._tokens[: parameters.max_tokens]
        cut = len(tokens) < len(self._tokens)
        began = time.monotonic()
        for at, size in self._pieces(len(tokens)):
            if self._period_s:
                due = began + (at + size) * self._period_s
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            self._generated += size
            yield Generated("".join(tokens[at : at + size]), size)
        prompt = sum(len(message.content) for message in messages) // _CHARACTERS_PER_TOKEN
        yield Ended(
            finish_reason=FinishReason.LENGTH if cut else FinishReason.STOP,
            usage=Usage(prompt_tokens=prompt, completion_tokens=len(tokens)),
        )

    def _pieces(self, count: int) -> Iterator[tuple[int, int]]:
        """Where pieces begin and how many tokens they hold: the first at once, then by time."""
        if not self._period_s:
            return iter([(0, count)] if count else [])
        size = max(1, int(self._flush_s / self._period_s))
        starts = [0, *range(1, count, size)]
        return ((at, min(size if at else 1, count - at)) for at in starts if at < count)
