"""Services' own objects, called in process: compliance, audit log, cache; keys in memory.

Runs in a process of its own, pinned to the server's core (`python -m bench.servers small`).
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from bench.audit_server import fresh_log
from bench.children import WORK
from bench.parts import DIGEST, MemoryKeys, asked, scope
from bench.small import FOUND, outcome
from bench.workload import DISTINCT, answer, prompt, tokens
from cache.service import CacheService
from cache.settings import CacheSettings
from compliance.service import open_compliance
from compliance.settings import ComplianceSettings
from meshkit.call_id import new_call_id
from meshkit.contract import (
    CachedAnswer,
    CacheMiss,
    Ended,
    FinishReason,
    Parameters,
    Phase,
    Question,
    Released,
    Screened,
    Stage,
    Usage,
    Verdict,
)
from meshkit.envelope import keyring
from meshkit.screening_mac import MacKeys, digest_of_answer, digest_of_prompt, mac_verifier
from meshkit.wrapped_keys import MemoryWrappedKeys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from audit.log.appender import AuditLog
    from bench.micro import Effort
    from meshkit.contract import Appended, Compliance, Event, Scope

MAC = MacKeys({1: DIGEST}, 1)
AT_ONCE = 64
"""Calls whose events are appended side by side."""
ANSWERS = 64
ENDED = Ended(finish_reason=FinishReason.STOP, usage=Usage(prompt_tokens=50, completion_tokens=50))


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
    call_id = new_call_id()
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


async def hit(effort: Effort) -> list[float]:
    """Look up what is in L1: MAC verified, key hashed, value opened and decoded."""
    async with keyring(MemoryKeys(), MemoryWrappedKeys()) as keys:
        verify = mac_verifier(lambda: MAC)
        cache = CacheService(CacheSettings.load(), sealer=keys, verify=verify, secret=DIGEST)
        questions = [question(number) for number in range(DISTINCT)]
        for number, asking in enumerate(questions):
            missed = await cache.get(asking)
            assert isinstance(missed, CacheMiss)
            await cache.put(asking, missed.lease, released(asking.scope, number), ENDED)

        async def call(number: int) -> None:
            found = await cache.get(questions[number % DISTINCT])
            assert isinstance(found, CachedAnswer)

        return await effort.per_await_us(call)


def question(number: int) -> Question:
    """Make question `number`, vouched for."""
    of, messages = scope(number), tuple(asked(prompt(number)))
    version, mac = MAC.tag(
        stage=Stage.SCREENED,
        text_digest=digest_of_prompt(messages),
        policy_digest=DIGEST,
        tenant=of.tenant,
        call_id=of.call_id,
    )
    verdict = Verdict(counts=FOUND, policy_digest=DIGEST)
    screened = Screened(messages=messages, verdict=verdict, mac=mac, mac_key_version=version)
    return Question(scope=of, screened=screened, model_digest=DIGEST, parameters=Parameters())


def released(of: Scope, number: int) -> Released:
    """Make its answer, vouched for."""
    text = answer(number)
    version, mac = MAC.tag(
        stage=Stage.RELEASED,
        text_digest=digest_of_answer(text),
        policy_digest=DIGEST,
        tenant=of.tenant,
        call_id=of.call_id,
    )
    verdict = Verdict(counts=(), policy_digest=DIGEST)
    return Released(text=text, verdict=verdict, mac=mac, mac_key_version=version)


STEPS: dict[str, Callable[[Effort], Awaitable[list[float]]]] = {
    "step_screen_us": screen,
    "step_screen_again_us": screen_again,
    "step_release_us": release,
    "holdback_chars": holdback,
    "cache_l1_hit_us": hit,
    "step_append_us": append,
}
