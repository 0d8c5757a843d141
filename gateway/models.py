"""Which models there are, remembered for a second: inference need not be asked at each call.

Of a name several versions may get traffic. Which of them answers a call is settled here, before
anything else is done for it, so that the cache's key, the INTENT and the engine agree.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from meshkit.contract import choose

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshkit.contract import Inference, ModelInfo, Scope

__all__ = ["ModelList"]


@dataclass(slots=True)
class ModelList:
    """Models and versions, at most `memo_s` old. One question at a time goes to inference."""

    inference: Inference
    memo_s: float
    clock: Callable[[], float] = time.monotonic
    _known: dict[str, tuple[ModelInfo, ...]] = field(default_factory=dict)
    _until: float = float("-inf")
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def all(self) -> dict[str, ModelInfo]:
        """Return the live version of each. Raises Refusal: INFERENCE_DOWN."""
        return {name: versions[-1] for name, versions in (await self._fresh()).items()}

    async def choose(self, name: str, scope: Scope) -> ModelInfo | None:
        """Return the version that answers this call; None: no such model.

        Raises:
            Refusal: INFERENCE_DOWN.
        """
        versions = (await self._fresh()).get(name)
        return choose(versions, scope) if versions else None

    async def _fresh(self) -> dict[str, tuple[ModelInfo, ...]]:
        if self.clock() < self._until:
            return self._known
        async with self._asking:
            if self.clock() >= self._until:
                known: dict[str, tuple[ModelInfo, ...]] = {}
                for model in await self.inference.models():
                    known[model.name] = (*known.get(model.name, ()), model)
                self._known = known
                self._until = self.clock() + self.memo_s
        return self._known
