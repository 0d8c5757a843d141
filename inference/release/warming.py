"""Before a version gets traffic it answers twice, and twice the same."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from meshkit.contract import Ended, Message, Parameters, Reason, Refusal, Role

if TYPE_CHECKING:
    from inference.engines.base import Engine

__all__ = ["answered", "fault_in_warming"]

_PROMPT = (Message(Role.USER, "Say in one sentence what water is."),)


async def fault_in_warming(engine: Engine, *, tokens: int, timeout_s: float) -> str:
    """Have an engine answer a fixed prompt twice at temperature 0; return what is wrong with it.

    Returns:
        Empty: nothing is. `not_deterministic`: the answers differ. `silent`: no text came.
        `no_answer`: it refused, or took longer than `timeout_s` for both.
    """
    asked = Parameters(max_tokens=tokens, temperature=0.0)
    try:
        async with asyncio.timeout(timeout_s):
            first = await answered(engine, asked)
            again = await answered(engine, asked)
    except (Refusal, TimeoutError):
        return "no_answer"
    if first != again:
        return "not_deterministic"
    return "" if first else "silent"


async def answered(engine: Engine, asked: Parameters) -> str:
    """Return the engine's answer to the fixed prompt. Raises Refusal."""
    text: list[str] = []
    async with aclosing(engine.generate(_PROMPT, asked)) as items:
        async for item in items:
            if isinstance(item, Ended):
                return "".join(text)
            text.append(item.text)
    raise Refusal(Reason.INFERENCE_DOWN)
