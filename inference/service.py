"""The inference service: `meshkit.contract.Inference` over engines.

    async with open_inference(settings, verify=mac_verifier(lambda: keys)) as inference:
        async for item in inference.generate(scope, "smollm2-135m-instruct", screened, parameters):
            ...

Nothing reaches a model whose screening MAC does not hold for this tenant and call.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

from inference.contexts import Contexts
from inference.engines.load import load_engine
from meshkit.contract import Ended, Reason, Refusal
from meshkit.counters import observed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    from inference.engines.base import Engine
    from inference.settings import InferenceSettings
    from meshkit.contract import Generated, ModelInfo, Parameters, Scope, Screened
    from meshkit.screening_mac import Verify

__all__ = ["InferenceService", "open_inference"]


class InferenceService:
    """Implements `meshkit.contract.Inference`."""

    def __init__(
        self, engines: Sequence[Engine], *, verify: Verify, contexts: Contexts | None = None
    ) -> None:
        self._engines = {engine.info.name: engine for engine in engines}
        self._verify = verify
        self._contexts = contexts or Contexts()

    @property
    def healthy(self) -> bool:
        """Whether every model can be asked."""
        return all(engine.healthy for engine in self._engines.values())

    @property
    def generated_tokens(self) -> int:
        """Tokens generated since the start, by all engines."""
        return sum(engine.generated_tokens for engine in self._engines.values())

    async def models(self) -> tuple[ModelInfo, ...]:
        """List what is loaded and ready."""
        return tuple(engine.info for engine in self._engines.values() if engine.healthy)

    async def generate(
        self,
        scope: Scope,
        model: str,
        screened: Screened,
        parameters: Parameters,
        *,
        digest: bytes = b"",
    ) -> AsyncGenerator[Generated | Ended, None]:
        """See `meshkit.contract.Inference.generate`."""
        engine = self._engines.get(model)
        if engine is None:
            raise Refusal(Reason.NOT_FOUND)
        if digest not in {b"", engine.info.digest}:
            raise Refusal(Reason.INFERENCE_DOWN)
        if not self._verify(scope, screened):
            raise Refusal(Reason.INVALID_FIELD, field="messages")
        began_s, first, ended = time.perf_counter(), True, Reason.CANCELLED.name
        try:
            context = self._contexts.of(scope)
            source = engine.generate(screened.messages, parameters, context=context)
            async with aclosing(source) as items:
                async for item in items:
                    if first:
                        observed(f"gen_ai.first_token.{model}", time.perf_counter() - began_s)
                    first, ended = False, "" if isinstance(item, Ended) else ended
                    yield item
        except Refusal as refusal:
            ended = refusal.reason.name
            raise
        finally:
            observed(f"gen_ai.request.{ended}.{model}", time.perf_counter() - began_s)


@asynccontextmanager
async def open_inference(
    settings: InferenceSettings, *, verify: Verify
) -> AsyncIterator[InferenceService]:
    """Load the configured model and serve it for as long as the block runs.

    Raises:
        ModelFileError: weights missing or not the pinned ones.
    """
    engine = await asyncio.to_thread(load_engine, settings)
    engine.start()
    try:
        contexts = Contexts(share=settings.prefix_share, priorities=settings.tenant_priorities)
        yield InferenceService((engine,), verify=verify, contexts=contexts)
    finally:
        await engine.close()
