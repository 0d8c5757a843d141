"""One engine of a comparison, in a process of its own: its memory is then its own, too.

    python -m inference.tensorrt.answering < JOB > RESULT

JOB: {"models_dir", "model", "threads", "max_tokens", "prompts"}. RESULT: the fields of
`inference.tensorrt.comparison.Ran`, or {"fault": text}. One prompt after the other, greedily, after
one more that warms up.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from inference.engines.load import load_engine
from inference.engines.torch import TorchEngine
from inference.registry import ModelFileError
from inference.settings import InferenceSettings
from inference.store.rules import Rules
from inference.store.store import ModelStore
from inference.tensorrt.comparison import Answered, Ran
from meshkit.contract import Generated, Message, Parameters, Refusal, Role

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference.engines.base import Engine

__all__ = ["ask_engine"]

_BYTES_PER_KIB = 1_024
_WARM = "Say hello."


async def ask_engine(
    settings: InferenceSettings, prompts: Sequence[str], *, max_tokens: int
) -> Ran:
    """Load the configured model and have it answer.

    Raises:
        ModelFileError, Refusal: it cannot be loaded, or does not answer.
    """
    began = time.perf_counter()
    # A trial on the host of the store, asked by nobody else: digests hold, signatures may lack.
    store = ModelStore(settings.models_dir, rules=Rules(signed="off"))
    with store.open(settings.model) as opened:
        engine = load_engine(settings, opened)
    loaded_s = time.perf_counter() - began
    assert isinstance(engine, TorchEngine)
    engine.start()
    try:
        await _answer(engine, _WARM, 4)
        answers = [await _answer(engine, prompt, max_tokens) for prompt in prompts]
    finally:
        await engine.close()
    return Ran(
        name=settings.model,
        precision=opened.manifest.precision,
        format=opened.manifest.format,
        load_s=loaded_s,
        memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _BYTES_PER_KIB,
        answers=tuple(answers),
    )


async def _answer(engine: Engine, prompt: str, max_tokens: int) -> Answered:
    asked = engine.generate((Message(Role.USER, prompt),), Parameters(max_tokens=max_tokens))
    began, first = time.perf_counter(), 0.0
    texts, tokens = [], 0
    async for item in asked:
        if isinstance(item, Generated):
            first = first or time.perf_counter()
            texts.append(item.text)
            tokens += item.tokens
    ended = time.perf_counter()
    return Answered(text="".join(texts), tokens=tokens, first_s=first - began, rest_s=ended - first)


def _main(job: dict[str, Any]) -> dict[str, Any]:
    settings = InferenceSettings.model_validate(
        {
            "models_dir": Path(job["models_dir"]),
            "model": job["model"],
            "threads": job["threads"],
            "slots": 1,
            "device": "cpu",
            # What an engine does by itself, not what the prompt's words give away.
            "guess_tokens": 0,
        }
    )
    try:
        ran = asyncio.run(ask_engine(settings, job["prompts"], max_tokens=job["max_tokens"]))
    except ModelFileError as error:
        return {"fault": str(error)}
    except Refusal as refusal:
        return {"fault": refusal.reason.value}
    return asdict(ran)


if __name__ == "__main__":
    # What is logged is no result.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    json.dump(_main(json.load(sys.stdin)), sys.stdout)
