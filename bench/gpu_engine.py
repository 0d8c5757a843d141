"""The torch engine on a GPU with a real model: callers, threads, text and all, but no wire.

    python -m bench.gpu_engine --models var/models --streams 1,32,128

Needs a GPU and SmolLM2's weights (`make models`). Each caller asks for a story and reads it to the
end; the rate is of all tokens between the first caller's start and the last one's end.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

from inference.engines.load import load_engine
from inference.settings import InferenceSettings
from meshkit.contract import Ended, Message, Parameters, Role

if TYPE_CHECKING:
    from inference.engines.torch import TorchEngine
    from inference.engines.triton.engine import TritonEngine

TOKENS = 400
ASK = (Message(Role.USER, "Tell me a long story about a lighthouse keeper and the sea."),)


async def one(engine: TorchEngine | TritonEngine) -> tuple[float, int, str]:
    """Ask once; return when the first token came, how many there were, and the text."""
    began, first, text, tokens = time.perf_counter(), 0.0, "", 0
    async for item in engine.generate(ASK, Parameters(temperature=0.0, max_tokens=TOKENS)):
        first = first or time.perf_counter() - began
        if isinstance(item, Ended):
            tokens = item.usage.completion_tokens
        else:
            text += item.text
    return first, tokens, text


async def measure(settings: InferenceSettings, streams: int) -> None:
    """Load, warm up, and print the best of three rounds."""
    engine = await asyncio.to_thread(load_engine, settings)
    engine.start()
    try:
        await one(engine)
        best = (0.0, 0.0)
        texts: set[str] = set()
        for _ in range(3):
            began = time.perf_counter()
            told = await asyncio.gather(*(one(engine) for _ in range(streams)))
            took = time.perf_counter() - began
            texts |= {text for _, _, text in told}
            firsts = sorted(first for first, _, _ in told)
            best = max(best, (sum(n for _, n, _ in told) / took, firsts[len(firsts) // 2]))
    finally:
        await engine.close()
    print(
        f"streams {streams:4}  {best[0]:9,.0f} tokens/s  first token {best[1] * 1e3:6.1f} ms  "
        f"different texts {len(texts)}  {min(texts)[:60]!r}",
        flush=True,
    )


def main() -> None:
    """Measure each number of streams with as many slots."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, default=Path("var/models"))
    parser.add_argument("--streams", default="1,32,128")
    parser.add_argument("--precision", choices=["bf16", "fp8"], default="bf16")
    args = parser.parse_args()
    for streams in map(int, args.streams.split(",")):
        settings = InferenceSettings.model_validate(
            {
                "models_dir": args.models,
                "device": "cuda",
                "slots": streams,
                "context_tokens_max": 1_024,
                "gpu_precision": args.precision,
            }
        )
        asyncio.run(measure(settings, streams))


if __name__ == "__main__":
    main()
