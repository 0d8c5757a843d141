"""Services' own objects, called in process: compliance, audit log, cache; keys in memory.

Runs in a process of its own, pinned to the server's core (`python -m bench.servers small`).
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from audit.opening import call_id_now
from bench.audit_server import fresh_log
from bench.children import WORK
from bench.parts import DIGEST, asked, scope
from bench.small import outcome
from bench.workload import answer, prompt, tokens
from compliance.service import open_compliance
from compliance.settings import ComplianceSettings
from meshkit.contract import Phase, Released
from meshkit.screening_mac import MacKeys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from audit.appender import AuditLog
    from bench.micro import Effort
    from meshkit.contract import Appended, Compliance, Event

MAC = MacKeys({1: DIGEST}, 1)
AT_ONCE = 64
"""Calls whose events are appended side by side."""
ANSWERS = 64


async def screen(effort: Effort) -> list[float]:
    """Screen prompts that were not seen before, names on."""
    async with open_compliance(ComplianceSettings.load(), mac_keys=MAC) as service:

        async def call(number: int) -> None:
            await service.screen(scope(number), asked(prompt(number)))

        return await effort.per_await_us(call)


async def screen_again(effort: Effort) -> list[float]:
    """Screen a prompt that was seen before."""
    async with open_compliance(ComplianceSettings.load(), mac_keys=MAC) as service:
        messages = asked(prompt(0))

        async def call(number: int) -> None:
            await service.screen(scope(number), messages)

        return await effort.per_await_us(call)


async def release(effort: Effort) -> list[float]:
    """Release answers that were not seen before, names on, token by token."""
    async with open_compliance(ComplianceSettings.load(), mac_keys=MAC) as service:

        async def call(number: int) -> None:
            async for _ in service.release(scope(number), _said(tokens(answer(number)))):
                pass

        return await effort.per_await_us(call)


async def holdback(_effort: Effort) -> list[float]:
    """Tell how much each answer had said when its first piece was released, in characters."""
    async with open_compliance(ComplianceSettings.load(), mac_keys=MAC) as service:
        return [await _held(service, number) for number in range(ANSWERS)]


async def _held(service: Compliance, number: int) -> float:
    said = 0

    async def saying() -> AsyncIterator[str]:
        nonlocal said
        for token in tokens(" ".join(answer(number + place) for place in range(10))):
            said += len(token)
            yield token

    async for piece in service.release(scope(number), saying()):
        assert not isinstance(piece, Released)
        return float(said)
    msg = "nothing was released"
    raise AssertionError(msg)


async def _said(pieces: list[str]) -> AsyncIterator[str]:
    for piece in pieces:
        yield piece


async def append(effort: Effort) -> list[float]:
    """Append INTENT and OUTCOME of AT_ONCE calls side by side, each durable; cost of one call."""
    async with fresh_log(WORK / "append") as log:
        template = outcome(0)

        async def call(_number: int) -> None:
            await asyncio.gather(*(_both(log, template) for _ in range(AT_ONCE)))

        return await effort.per_await_us(call, of=AT_ONCE)


async def _both(log: AuditLog, template: Event) -> Appended:
    call_id = call_id_now()
    intent = replace(
        template,
        call_id=call_id,
        phase=Phase.INTENT,
        outcome="",
        finish_reason=None,
        prompt_screened=None,
        answer_released=None,
        answer_delivered=None,
        payload=None,
    )
    await log.append(intent)
    return await log.append(replace(template, call_id=call_id))


STEPS: dict[str, Callable[[Effort], Awaitable[list[float]]]] = {
    "step_screen_us": screen,
    "step_screen_again_us": screen_again,
    "step_release_us": release,
    "holdback_chars": holdback,
    "step_append_us": append,
}
