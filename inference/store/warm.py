"""The first prompts of an engine: it is warm after them, and has shown whether it answers the same.

    report = await warm(engine)
    report.repeats, report.in_a_batch, report.answer_sha256

The same short prompt is asked twice alone, and once beside others; greedily, so that the answers
must agree. Cost: under a second for SmolLM2-135M on two cores. What to do about an engine that does
not agree with itself is for the caller to say: kernels that are chosen by the number of rows may
round otherwise in a batch, and then a later token may differ.

The answer's digest is kept beside the store (`Remembered`), by the model's digest: the same model
that answers otherwise than last time on the same host is worth a look.
"""

from __future__ import annotations

import asyncio
import json
import struct
import time
from contextlib import aclosing
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import structlog

from meshkit.contract import Generated, Message, Parameters, Reason, Refusal, Role
from meshkit.files import read_or_none, write_private

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

    from meshkit.contract import Embedded, Ended, ModelInfo

__all__ = ["Remembered", "WarmReport", "warm"]

log = structlog.get_logger()

_PROMPT = "Name the three primary colours."
_OTHERS = ("Count from one to five.", "What is a ledger?")


class _Answering(Protocol):
    @property
    def info(self) -> ModelInfo: ...

    def generate(
        self, messages: Sequence[Message], parameters: Parameters
    ) -> AsyncGenerator[Generated | Ended, None]: ...


@runtime_checkable
class _Embedding(Protocol):
    @property
    def info(self) -> ModelInfo: ...

    async def embed(self, texts: Sequence[str]) -> Embedded: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmReport:
    """What an engine's first prompts showed.

    answer_sha256: of the answer's UTF-8 and its number of tokens, or of the embedding.
    tokens: of the answer; of an embedding, its numbers.
    repeats: Whether the same prompt got the same answer twice, alone.
    in_a_batch: Whether it did beside other prompts, too.
    as_before: Whether that is the answer of last time; None: there was none, or nobody asked.
    """

    answer_sha256: bytes
    tokens: int
    repeats: bool
    in_a_batch: bool
    seconds: float
    as_before: bool | None = None

    @property
    def deterministic(self) -> bool:
        """Whether all answers were the same."""
        return self.repeats and self.in_a_batch


async def warm(
    engine: _Answering | _Embedding, *, tokens: int = 8, state: Remembered | None = None
) -> WarmReport:
    """Ask a started engine its first prompts.

    Args:
        engine: Answers, or embeds.
        tokens: How long an answer may be.
        state: Where the answer of last time is kept, and this one's will be.

    Raises:
        Refusal: the engine cannot answer: INFERENCE_DOWN, OUT_OF_TIME, OVERLOADED.
    """
    began_s = time.perf_counter()
    (first,) = await _asked(engine, tokens, _PROMPT)
    (again,) = await _asked(engine, tokens, _PROMPT)
    beside = await _beside_others(engine, tokens) or first
    report = WarmReport(
        answer_sha256=first.digest,
        tokens=first.tokens,
        repeats=first == again,
        in_a_batch=first == beside,
        seconds=time.perf_counter() - began_s,
        as_before=None if state is None else state.compared(engine.info.digest, first.digest),
    )
    status = "same" if report.deterministic else "differs"
    log.info("inference.warm", seconds=round(report.seconds, 2), status=status)
    return report


async def _beside_others(engine: _Answering | _Embedding, tokens: int) -> _Answer | None:
    """Ask it in a batch; None: it has no room for one."""
    try:
        _, beside, _ = await _asked(engine, tokens, _OTHERS[0], _PROMPT, _OTHERS[1])
    except Refusal as refusal:
        # An engine that embeds may be set up for fewer texts at once.
        if refusal.reason not in {Reason.OVERLOADED, Reason.INVALID_FIELD}:
            raise
        return None
    return beside


@dataclass(frozen=True, slots=True)
class _Answer:
    digest: bytes
    tokens: int


async def _asked(engine: _Answering | _Embedding, tokens: int, *prompts: str) -> list[_Answer]:
    """Ask all at once."""
    # An engine that embeds may have `generate` as well, to refuse it.
    if isinstance(engine, _Embedding):
        embedded = await engine.embed(prompts)
        return [_of_vector(vector) for vector in embedded.vectors]
    return await asyncio.gather(*(_answer(engine, tokens, prompt) for prompt in prompts))


async def _answer(engine: _Answering, tokens: int, prompt: str) -> _Answer:
    messages = (Message(Role.USER, prompt),)
    text, count = "", 0
    async with aclosing(engine.generate(messages, Parameters(max_tokens=tokens))) as items:
        async for item in items:
            if isinstance(item, Generated):
                text, count = text + item.text, count + item.tokens
    return _Answer(sha256(struct.pack(">I", count) + text.encode()).digest(), count)


def _of_vector(vector: Sequence[float]) -> _Answer:
    size = len(vector)
    return _Answer(sha256(struct.pack(f">{size}f", *vector)).digest(), size)


@dataclass(frozen=True, slots=True)
class Remembered:
    """A folder of answers' digests, a file for each model's."""

    folder: Path

    def compared(self, model_digest: bytes, answer: bytes) -> bool | None:
        """Tell whether it is the answer of last time, and keep this one.

        A folder that cannot be read or written is logged, and remembers nothing.
        """
        path = self.folder / f"{model_digest.hex()}.json"
        try:
            known = read_or_none(path)
            self.folder.mkdir(parents=True, exist_ok=True)
            write_private(path, json.dumps({"answer_sha256": answer.hex()}).encode())
            if known is None:
                return None
            return bytes.fromhex(json.loads(known)["answer_sha256"]) == answer
        except (OSError, KeyError, TypeError, ValueError):
            log.warning("inference.warm_state_lost")
            return None
