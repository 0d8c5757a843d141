"""Vectors for texts that compliance let in: the service's side of `rpc Embed`.

The texts come as the messages of a screened prompt, each of role user, so the screening MAC covers
every one of them and their order, for this tenant and this call.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from inference.engines.embedding import load_embedder
from inference.release.loading import why_not
from inference.release.states import Note
from inference.release.warming import answers_beside, fault_in_warming
from inference.store.errors import ModelFileError
from meshkit.contract import Embedded, Reason, Refusal, Role

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from inference.engines.base import EmbeddingEngine
    from inference.engines.embedding import EncoderEngine
    from inference.release.settings import ReleaseSettings
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
async def embedders_of(
    settings: InferenceSettings, store: ModelStore, tell: Callable[[Note], None] = lambda _: None
) -> AsyncIterator[Embedders]:
    """Load the configured embedding model, if one is, warm it up, and run it while the block runs.

    Args:
        settings: The service's.
        store: Where it lies.
        tell: Told if it is refused.

    Raises:
        ModelFileError: it is not there, not what its manifest says, or does not embed the same text
            alike twice.
        Refusal: KEYS_DOWN.
    """
    if not settings.embedding.model:
        yield Embedders()
        return

    async with AsyncExitStack() as owned:
        name = settings.embedding.model
        try:
            engine = await asyncio.to_thread(_loaded, settings, store)
            engine.start()
            owned.push_async_callback(engine.close)
            fault = await _fault_in_warming(engine, settings.release)
        except Exception as error:
            tell(_refused(name, why_not(error)))
            raise
        if fault:
            tell(_refused(name, fault))
            msg = f"the model did not warm up: {fault}"
            raise ModelFileError(msg)
        yield Embedders((engine,))


def _loaded(settings: InferenceSettings, store: ModelStore) -> EncoderEngine:
    with store.open(settings.embedding.model) as opened:
        return load_embedder(opened, settings.embedding, threads=settings.threads)


def _refused(name: str, rule: str) -> Note:
    return Note("model.refuse", name, "", {"model": name, "rule": rule})


async def _fault_in_warming(engine: EmbeddingEngine, settings: ReleaseSettings) -> str:
    return await fault_in_warming(
        engine,
        tokens=settings.warm_tokens,
        timeout_s=settings.warm_timeout_ms / 1_000,
        state=answers_beside(settings.state_file),
    )
