"""A real allocation failure on a GPU: who asks is told OVERLOADED, and the same engine goes on.

    python -m bench.gpu_faults --models var/models

Needs a GPU and SmolLM2's weights (`make models`). Each round fills the card to the last 2 MiB or
so (2,240 KiB were left, as the driver told), asks for more than the captured graphs hold, frees the
card and asks again: the answers must be those of before, from the thread of before. The first round
comes before the engine's thread has run any product that is not captured. OVERLOADED is
RESOURCE_EXHAUSTED on the wire (`meshkit.status`). Ends with status 1 if anything was
otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from inference.engines.load import load_engine
from inference.engines.torch import TorchEngine
from inference.settings import InferenceSettings
from meshkit.contract import Ended, Message, Parameters, Reason, Refusal, Role

STORY = "Tell me a long story about a lighthouse keeper and the sea."
LONG = "The keeper counts the ships that pass. " * 90
"""Some 700 tokens: more than the longest prompt that runs as one graph."""
STORIES_MAX = 100
LARGEST, SMALLEST = 1 << 34, 512
"""Bytes of the blocks that fill a card; PyTorch hands out multiples of 512."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a caller got: text, or a refusal's reason and when to come back."""

    text: str
    reason: Reason | None
    retry_after_ms: int | None
    took_s: float

    def __str__(self) -> str:
        """Tell what happened."""
        if self.reason is None:
            return f"answered in {self.took_s * 1e3:.0f} ms"
        return (
            f"{self.reason.name} in {self.took_s * 1e3:.0f} ms, after {len(self.text)} characters"
        )


async def ask(engine: TorchEngine, text: str, tokens: int) -> Told:
    """Ask once, greedily."""
    began, answer = time.perf_counter(), ""
    parameters = Parameters(temperature=0.0, max_tokens=tokens)
    try:
        async for item in engine.generate((Message(Role.USER, text),), parameters):
            answer += "" if isinstance(item, Ended) else item.text
    except Refusal as refusal:
        return Told(answer, refusal.reason, refusal.retry_after_ms, time.perf_counter() - began)
    return Told(answer, None, None, time.perf_counter() - began)


def filled() -> list[torch.Tensor]:
    """Take what is left of the card, down to the smallest block."""
    torch.cuda.empty_cache()
    blocks, size = [], LARGEST
    while size >= SMALLEST:
        try:
            blocks.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
        except torch.OutOfMemoryError:
            size //= 2
    return blocks


async def busy(engine: TorchEngine) -> Told:
    """Ask for one story after the other until one is refused."""
    for _ in range(STORIES_MAX):
        told = await ask(engine, STORY, 900)
        if told.reason is not None:
            break
    return told


async def full(engine: TorchEngine) -> list[Told]:
    """Fill the card while a story is told, ask for something long, twice; free the card again."""
    story = asyncio.create_task(busy(engine))
    blocks = await asyncio.to_thread(filled)
    print(f"  the card is full: {torch.cuda.mem_get_info()[0] >> 10} KiB are left")
    long = await ask(engine, LONG, 20)
    again = await ask(engine, LONG, 20)
    told = [long, again, await story]
    print(f"  a long prompt: {long}; again: {again}; the story under way: {told[-1]}")
    print(f"  a short prompt, whose step is captured: {await ask(engine, STORY, 20)}")
    del blocks
    torch.cuda.empty_cache()
    return told


async def rounds(engine: TorchEngine, count: int) -> bool:
    """Run the rounds; return whether all was as the module says."""
    engine.start()
    fine = True
    before = await ask(engine, STORY, 60)
    wanted: list[str] = []
    for number in range(1, count + 1):
        print(f"round {number}")
        refusals = await full(engine)
        fine &= all(one.reason is Reason.OVERLOADED and one.retry_after_ms for one in refusals)
        after = [await ask(engine, STORY, 60), await ask(engine, LONG, 20)]
        texts = [one.text for one in after]
        wanted = wanted or [before.text, texts[1]]
        same = texts == wanted and engine.healthy and not any(one.reason for one in after)
        fine &= same
        print(
            f"  freed: {after[0]}, {after[1]}; the same texts: {texts == wanted}; "
            f"healthy: {engine.healthy}"
        )
    await engine.close()
    return fine


def main() -> None:
    """Load SmolLM2 and run the rounds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, default=Path("var/models"))
    parser.add_argument("--rounds", type=int, default=6, help="more than an engine may fail at")
    args = parser.parse_args()
    engine = load_engine(
        InferenceSettings.model_validate(
            {
                "models_dir": args.models,
                "device": "cuda",
                "slots": 8,
                "context_tokens_max": 1_024,
            }
        )
    )
    assert isinstance(engine, TorchEngine)
    if not asyncio.run(rounds(engine, args.rounds)):
        raise SystemExit(1)
    print("as it should be")


if __name__ == "__main__":
    main()
