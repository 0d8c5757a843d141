"""What the inference service asks of whatever runs a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from meshkit.contract import Embedded, Ended, Generated, Message, ModelInfo, Parameters
    from meshkit.reading import Wanted

__all__ = ["ANONYMOUS", "EmbeddingEngine", "Engine", "RequestContext"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestContext:
    """What an engine may know of who asks: made from the caller's identity, never by the caller.

    salt: Prompts of one salt may share what the engine computed for them; of an empty one, none.
    deadline_s: When the answer is of no use any more, on `time.monotonic()`; None: never.
    priority: Higher is served sooner.
    wanted: What the reader of the answer waits for, if it says so: text may be gathered by it.
    """

    salt: bytes = b""
    deadline_s: float | None = None
    priority: int = 0
    wanted: Wanted | None = field(default=None, compare=False)


ANONYMOUS = RequestContext()
"""Nobody in particular: shares nothing, waits in turn, for as long as it takes."""


class Engine(Protocol):
    """Runs one model for many requests at once."""

    @property
    def info(self) -> ModelInfo:
        """The model."""
        ...

    @property
    def healthy(self) -> bool:
        """Whether a request sent now would be worked on."""
        ...

    @property
    def generated_tokens(self) -> int:
        """Tokens generated since the start, for all requests; stands still when nobody asks."""
        ...

    def generate(
        self,
        messages: Sequence[Message],
        parameters: Parameters,
        *,
        context: RequestContext = ANONYMOUS,
    ) -> AsyncGenerator[Generated | Ended, None]:
        """Answer a conversation; the last item, and only it, is `Ended`.

        Closing the iterator stops the work within one step.

        Raises:
            Refusal: INVALID_FIELD `messages` or `parameters`, OVERLOADED, OUT_OF_TIME or
                INFERENCE_DOWN.
        """
        ...

    async def close(self) -> None:
        """End every request with INFERENCE_DOWN and give back what the engine holds."""
        ...


class EmbeddingEngine(Protocol):
    """Turns texts into vectors, by one model."""

    @property
    def info(self) -> ModelInfo:
        """The model."""
        ...

    @property
    def healthy(self) -> bool:
        """Whether a call sent now would be worked on."""
        ...

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Return a vector of length 1 for each text, the same bits alone and in any batch.

        Raises:
            Refusal: INVALID_FIELD `messages` (none, too many, one empty or too long), OVERLOADED or
                INFERENCE_DOWN.
        """
        ...

    async def close(self) -> None:
        """Take no more calls and give back what the engine holds."""
        ...
