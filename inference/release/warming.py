"""Before a version gets traffic it answers, and the same again: what is wrong if it does not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from inference.store.warm import Remembered, warm
from meshkit.contract import Refusal
from meshkit.counters import counted

if TYPE_CHECKING:
    from pathlib import Path

    from inference.engines.base import EmbeddingEngine, Engine

__all__ = ["answers_beside", "fault_in_warming"]

_ANSWERS = "answers"


def answers_beside(state_file: Path | None) -> Remembered | None:
    """Return what each model's first answer was; None: nobody remembers."""
    return Remembered(state_file.parent / _ANSWERS) if state_file is not None else None


async def fault_in_warming(
    engine: Engine | EmbeddingEngine,
    *,
    tokens: int,
    timeout_s: float,
    state: Remembered | None = None,
) -> str:
    """Have an engine answer its first prompts; return what is wrong with it.

    An answer that differs in a batch, or from that of last time, is counted and no fault: kernels
    chosen by the number of rows, or by the processor, may round otherwise.

    Returns:
        Empty: nothing is. `not_deterministic`: the same prompt, asked twice alone, got two answers.
        `silent`: no token came. `no_answer`: it refused, or took longer than `timeout_s`.
    """
    try:
        async with asyncio.timeout(timeout_s):
            report = await warm(engine, tokens=tokens, state=state)
    except (Refusal, TimeoutError):
        return "no_answer"
    if not report.repeats:
        return "not_deterministic"
    if not report.in_a_batch or report.as_before is False:
        counted("release.warm.differs")
    return "" if report.tokens else "silent"
