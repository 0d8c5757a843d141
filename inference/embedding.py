"""Vectors for texts that compliance let in: the service's side of `rpc Embed`.

The texts come as the messages of a screened prompt, each of role user, so the screening MAC covers
every one of them and their order, for this tenant and this call.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from inference.engines.embedding import load_embedder
from meshkit.contract import Embedded, Reason, Refusal, Role

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from inference.engines.base import EmbeddingEngine
    from inference.engines.embedding import EncoderEngine
    from inference.settings import InferenceSettings
    from inference.store.store import ModelStore
    from meshkit.contract import Scope, Screened
    from meshkit.screening_mac import Verify

__all__ = ["Embedders", "embedders_of"]


class Embedders:
    """Embedding models by name; none unless some are given."""

    def __init__(self, engines: Sequence[EmbeddingEngine] = ()) -> None:
        self.engines = {engine.info.name: engine for engine in engines}

    @property
    def healthy(self) -> bool:
        """Whether every one can be asked."""
        return all(engine.healthy for engine in self.engines.values())

    async def embed(self, scope: Scope, model: str, screened: Screened, verify: Verify) -> Embedded:
        """See `meshkit.contract.Inference.embed`."""
        engine = self.engines.get(model)
        if engine is None:
            raise Refusal(Reason.NOT_FOUND)
        if not verify(scope, screened):
            raise Refusal(Reason.INVALID_FIELD, field="messages")
        if any(message.role is not Role.USER for message in screened.messages):
            raise Refusal(Reason.INVALID_FIELD, field="messages")
        return await engine.embed([message.content for message in screened.messages])


@asynccontextmanager
async def embedders_of(settings: InferenceSettings, store: ModelStore) -> AsyncIterator[Embedders]:
    """Load the configured embedding model, if one is, and run it while the block runs.

    Raises:
        ModelFileError: it is not there, or not what its manifest says.
        Refusal: KEYS_DOWN.
    """
    if not settings.embedding.model:
        yield Embedders()
        return

    def load() -> EncoderEngine:
        with store.open(settings.embedding.model) as opened:
            return load_embedder(opened, settings.embedding, threads=settings.threads)

    engine = await asyncio.to_thread(load)
    engine.start()
    try:
        yield Embedders((engine,))
    finally:
        await engine.close()
