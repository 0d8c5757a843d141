"""Which models there are, remembered for a second: inference need not be asked at each call."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from meshkit.contract import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshkit.contract import Inference, ModelInfo

__all__ = ["ModelList"]


@dataclass(slots=True)
class ModelList:
    """The models by name, at most `memo_s` old. One question at a time goes to inference."""

    inference: Inference
    memo_s: float
    clock: Callable[[], float] = time.monotonic
    _known: dict[str, ModelInfo] = field(default_factory=dict)
    _until: float = float("-inf")
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def all(self) -> dict[str, ModelInfo]:
        """Return them. Raises Refusal: INFERENCE_DOWN."""
        if self.clock() < self._until:
            return self._known
        async with self._asking:
            if self.clock() >= self._until:
                models = await self.inference.models()
                self._known = {model.name: model for model in models}
                self._until = self.clock() + self.memo_s
        return self._known

    async def find(self, name: str) -> ModelInfo:
        """Return a model. Raises Refusal: NOT_FOUND, INFERENCE_DOWN."""
        found = (await self.all()).get(name)
        if found is None:
            raise Refusal(Reason.NOT_FOUND)
        return found
