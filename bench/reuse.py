"""`python -m bench.reuse`: what guesses from the prompt and kept beginnings are worth on this CPU.

Each prompt is answered by turns with and without, medians of interleaved pairs; the answers are
compared to the last token. Not part of `make bench`: a minute on two idle cores.
"""

from __future__ import annotations

import asyncio
import sys
import time
from statistics import median
from typing import TYPE_CHECKING

from inference.engines.base import ANONYMOUS, RequestContext
from inference.engines.load import load_engine
from inference.settings import InferenceSettings
from meshkit.contract import Generated, Message, Parameters, Role

if TYPE_CHECKING:
    from inference.engines.base import Engine

PAIRS = 3
TOKENS = 96
REPORT = (
    "The harbour office opened at six. The first ship to arrive was the Marigold, with timber from "
    "the north. The second was the Heron, with salt, cloth and two passengers. A storm closed the "
    "entrance at noon, and the pilot boat stayed at its berth until the evening. At seven the wind "
    "fell and the Heron left for the south with forty barrels of fish."
)
PROMPTS = {
    "quote": f"Repeat this text word for word:\n{REPORT}",
    "correct": f"Rewrite this text with the ship Heron renamed to Swan:\n{REPORT}",
    "summary": f"Summarise this text in three sentences:\n{REPORT}",
    "story": "Write a story about a lighthouse keeper and the sea.",
}
SHARED = f"You answer questions about this report.\n{REPORT * 4}"


async def answered(
    engine: Engine, messages: tuple[Message, ...], context: RequestContext, tokens: int = TOKENS
) -> tuple[str, float, float]:
    """Return the answer, milliseconds to its first token, tokens a second after it."""
    began = first = time.perf_counter()
    text, count = "", 0
    parameters = Parameters(max_tokens=tokens)
    async for item in engine.generate(messages, parameters, context=context):
        if isinstance(item, Generated):
            first = first if count else time.perf_counter()
            text, count = text + item.text, count + item.tokens
    rate = (count - 1) / (time.perf_counter() - first) if count > 1 else 0.0
    return text, (first - began) * 1_000, rate


async def guesses(plain: Engine, guessing: Engine) -> None:
    """Print the ratio of rates for each prompt."""
    for name, prompt in PROMPTS.items():
        messages = (Message(Role.USER, prompt),)
        ratios = []
        for _ in range(PAIRS + 1):
            slow = await answered(plain, messages, ANONYMOUS)
            fast = await answered(guessing, messages, ANONYMOUS)
            if slow[0] != fast[0]:
                sys.exit("an answer changed")
            ratios.append(fast[2] / slow[2])
        print(f"guesses, {name}: {median(ratios[1:]):.2f} times the tokens/s without")


async def beginnings(engine: Engine) -> None:
    """Print the ratio of times to the first token for a prompt whose beginning is kept."""
    kept = RequestContext(salt=b"bench")
    system = Message(Role.SYSTEM, SHARED)
    ratios, texts = [], set()
    for _ in range(PAIRS + 1):
        messages = (system, Message(Role.USER, "Which ship came first?"))
        new = await answered(engine, messages, ANONYMOUS, 8)
        again = await answered(engine, messages, kept, 8)
        texts |= {new[0], again[0]}
        ratios.append(new[1] / again[1])
    if len(texts) > 1:
        sys.exit("an answer changed")
    print(f"kept beginning: first token {median(ratios[1:]):.1f} times as soon")


async def main() -> None:
    """Load the model twice and compare."""
    settings = InferenceSettings.load()
    plain = load_engine(settings.model_copy(update={"guess_tokens": 0}))
    guessing = load_engine(settings)
    plain.start()
    guessing.start()
    try:
        await guesses(plain, guessing)
        await beginnings(plain)
    finally:
        await plain.close()
        await guessing.close()


if __name__ == "__main__":
    asyncio.run(main())
