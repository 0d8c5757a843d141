"""An engine that turns texts into vectors: one thread, a bounded queue, one call at a time.

A call's texts run in batches of some `batch_tokens` tokens; a caller that goes away is noticed
between two. A text that is longer than the model's context is refused, never cut: whoever has more
to say must cut it himself, where it may be cut.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import structlog
import torch

from inference.encoder import Encoder, WordPieces, bert_shape
from inference.engines.faults import log_fault, out_of_memory
from inference.model_files import must_be_architecture, needed, only_weights
from inference.registry import ModelFileError, model_info
from inference.safetensors_file import read_json, read_tensors
from inference.store.errors import Fault
from meshkit.contract import Embedded, Reason, Refusal, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from inference.engines.settings import EmbeddingLimits
    from inference.store.store import Opened
    from meshkit.contract import ModelInfo

__all__ = ["EncoderEngine", "load_embedder"]

log = structlog.get_logger()


class EncoderEngine:
    """Implements `inference.engines.base.EmbeddingEngine`.

    Args:
        encoder: only the engine's thread calls it.
        pieces: the model's tokenizer.
        info: the model's.
        limits: of calls.
        threads: of a forward pass.
    """

    def __init__(
        self,
        encoder: Encoder,
        pieces: WordPieces,
        *,
        info: ModelInfo,
        limits: EmbeddingLimits,
        threads: int,
    ) -> None:
        self._encoder, self._pieces, self._info = encoder, pieces, info
        self._limits, self._threads = limits, threads
        self._pool: ThreadPoolExecutor | None = None
        self._waiting = 0

    @property
    def info(self) -> ModelInfo:
        """The model."""
        return self._info

    @property
    def healthy(self) -> bool:
        """Whether a call sent now would be worked on."""
        return self._pool is not None

    def start(self) -> None:
        """Start the thread; once."""
        self._pool = ThreadPoolExecutor(
            1, "embedding-engine", torch.set_num_threads, (self._threads,)
        )

    async def close(self) -> None:
        """Take no more calls; wait for the one under way."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await asyncio.to_thread(pool.shutdown, cancel_futures=True)

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """See `EmbeddingEngine.embed`."""
        limits = self._limits
        if not 1 <= len(texts) <= limits.texts_max:
            raise Refusal(Reason.INVALID_FIELD, field="messages")
        if any(not 1 <= len(text) <= limits.text_characters_max for text in texts):
            raise Refusal(Reason.INVALID_FIELD, field="messages")
        if self._pool is None:
            raise Refusal(Reason.INFERENCE_DOWN)
        if self._waiting > limits.waiting_max:
            raise Refusal(Reason.OVERLOADED, retry_after_ms=limits.overloaded_retry_ms)
        gone = threading.Event()
        self._waiting += 1
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._pool, self._run, tuple(texts), gone)
        except asyncio.CancelledError:
            if self._pool is None:  # closed under the call, not cancelled by its caller
                raise Refusal(Reason.INFERENCE_DOWN) from None
            raise
        finally:
            self._waiting -= 1
            gone.set()

    # --- in the engine's thread -------------------------------------------------------------

    def _run(self, texts: Sequence[str], gone: threading.Event) -> Embedded:
        try:
            return self._embedded(texts, gone)
        except Refusal:
            raise
        except BaseException as fault:  # noqa: BLE001 -- whatever it is, the caller must hear of it
            if out_of_memory(fault):
                log.error("inference.out_of_memory", model=self._info.name)  # noqa: TRY400 -- no text
                later_ms = self._limits.overloaded_retry_ms
                raise Refusal(Reason.OVERLOADED, retry_after_ms=later_ms) from None
            log_fault(fault)
            raise Refusal(Reason.INFERENCE_DOWN) from None

    def _embedded(self, texts: Sequence[str], gone: threading.Event) -> Embedded:
        ids = []
        for text in texts:
            ids.append(self._pieces.encode(text))
            if len(ids[-1]) > self._info.context_tokens:
                raise Refusal(Reason.INVALID_FIELD, field="messages")
        vectors: list[tuple[float, ...]] = []
        with torch.inference_mode():
            for batch in self._batches(ids):
                if gone.is_set():
                    break
                found = self._encoder.vectors(batch)
                if not torch.isfinite(found).all():
                    raise Refusal(Reason.INFERENCE_DOWN)
                vectors += map(tuple, found.tolist())
        return Embedded(tuple(vectors), Usage(prompt_tokens=sum(map(len, ids))))

    def _batches(self, ids: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
        batch: list[Sequence[int]] = []
        room = self._limits.batch_tokens
        for text in ids:
            if batch and len(text) > room:
                yield batch
                batch, room = [], self._limits.batch_tokens
            batch.append(text)
            room -= len(text)
        yield batch


def load_embedder(opened: Opened, limits: EmbeddingLimits, *, threads: int) -> EncoderEngine:
    """Load an embedding model; the engine is not started. Cost: 1 s for MiniLM.

    Raises:
        ModelFileError: the files are not what the manifest says.
    """
    manifest = opened.manifest
    if manifest.kind != "embedding" or manifest.format != "safetensors":
        msg = "the manifest is of another kind of model than is asked for"
        raise ModelFileError(msg)
    config = read_json(needed(opened, "config.json"))
    must_be_architecture(manifest, config.get("model_type"))
    shape = bert_shape(config)
    if manifest.context_tokens > shape.positions:
        raise ModelFileError(Fault.CONTEXT)
    told = read_json(needed(opened, "tokenizer.json"))
    with torch.inference_mode():
        encoder = Encoder(shape, read_tensors([only_weights(opened)]))
    return EncoderEngine(
        encoder,
        WordPieces(told, vocabulary=shape.vocabulary),
        info=model_info(manifest, context_tokens=manifest.context_tokens),
        limits=limits,
        threads=threads,
    )
