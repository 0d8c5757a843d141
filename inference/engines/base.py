"""What the inference service asks of whatever runs a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from meshkit.contract import Ended, Generated, Message, ModelInfo, Parameters

__all__ = ["Engine"]


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
        self, messages: Sequence[Message], parameters: Parameters
    ) -> AsyncGenerator[Generated | Ended, None]:
        """Answer a conversation; the last item, and only it, is `Ended`.

        Closing the iterator stops the work within one step.

        Raises:
            Refusal: INVALID_FIELD `messages`, OVERLOADED or INFERENCE_DOWN.
        """
        ...

    async def close(self) -> None:
        """End every request with INFERENCE_DOWN and give back what the engine holds."""
        ...
