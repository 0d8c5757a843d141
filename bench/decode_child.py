"""The torch engine by itself, with SmolLM2: answers lines on standard input.

    python -m bench.decode_child          started by `bench.decode` only

First line out: `{"threads"}`. Then `{"first_s", "tokens_per_s", "prompt_tokens"}` for each line in,
`{"prompt", "tokens", "streams"}`: greedy, from `generate` to the first piece, and all streams'
tokens in the time from the last stream's first piece to the first one's end.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from inference.engines.load import load_engine
from inference.settings import InferenceSettings
from meshkit.contract import Generated, Message, Parameters, Role

if TYPE_CHECKING:
    from typing import TextIO

    from inference.engines.base import Engine


async def main(parent: TextIO) -> None:
    """Load the model, then answer until standard input ends."""
    # Each turn asks the same: what was kept of the turn before would answer for it.
    settings = InferenceSettings.load().model_copy(update={"prefix_memory_mib": 0})
    engine = load_engine(settings)
    engine.start()
    tell(parent, {"threads": settings.threads})
    try:
        while line := await asyncio.to_thread(sys.stdin.readline):
            asked = json.loads(line)
            prompts = [asked["prompt"] + " " * stream for stream in range(asked["streams"])]
            answers = await asyncio.gather(
                *(_answer(engine, prompt, asked["tokens"]) for prompt in prompts)
            )
            tell(parent, _summed(answers))
    finally:
        await engine.close()


@dataclass
class _Heard:
    """One answer: when it was asked for, and when how many tokens of it came."""

    began: float
    prompt_tokens: int = 0
    pieces: list[tuple[float, int]] = field(default_factory=list)


async def _answer(engine: Engine, prompt: str, tokens: int) -> _Heard:
    heard = _Heard(time.perf_counter())
    async for item in engine.generate((Message(Role.USER, prompt),), Parameters(max_tokens=tokens)):
        if isinstance(item, Generated):
            heard.pieces.append((time.perf_counter(), item.tokens))
        else:
            heard.prompt_tokens = item.usage.prompt_tokens
    return heard


def _summed(answers: list[_Heard]) -> dict[str, float]:
    start = max(answer.pieces[0][0] for answer in answers)
    stop = min(answer.pieces[-1][0] for answer in answers)
    counts = (
        count for answer in answers for moment, count in answer.pieces if start < moment <= stop
    )
    return {
        "first_s": answers[0].pieces[0][0] - answers[0].began,
        "tokens_per_s": sum(counts) / (stop - start),
        "prompt_tokens": answers[0].prompt_tokens,
    }


def tell(parent: TextIO, what: dict[str, Any]) -> None:
    """Write a line."""
    parent.write(json.dumps(what) + "\n")


if __name__ == "__main__":
    # Standard output is the parent's; whatever logs goes where messages go.
    with os.fdopen(os.dup(1), "w", buffering=1) as lines:
        os.dup2(2, 1)
        asyncio.run(main(lines))
