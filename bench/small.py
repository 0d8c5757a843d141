"""The small steps, each by itself in process: what a governed call spends besides the big ones.

Runs in a process of its own, pinned to the server's core (`python -m bench.servers small`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from audit.privacy.payloads import payload_aad, payload_bytes
from audit.privacy.subjects import payload_purpose
from bench.house import request
from bench.parts import DIGEST, TENANT, MemoryKeys, actor, arrival, asked, scope
from bench.workload import answer, prompt
from gateway.run import RELEASED, Answer, committed
from gateway.wire import read_chat, whole_answer
from meshkit.contract import (
    Commitment,
    Direction,
    Event,
    FindingCount,
    FinishReason,
    Payload,
    Phase,
    Receipt,
    Usage,
    answer_bytes,
    prompt_bytes,
)
from meshkit.envelope import keyring
from meshkit.wrapped_keys import MemoryWrappedKeys
from sealgate.v1 import gateway_pb2

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bench.micro import Effort

FOUND = tuple(
    FindingCount(direction=Direction.PROMPT, type=kind, subtype="", action="mask", count=1)
    for kind in ("PERSON", "CREDIT_CARD")
)


async def commit(effort: Effort) -> list[float]:
    """Make the four salted commitments of a call."""
    messages, text = asked(prompt(0)), answer(0)

    def call(_number: int) -> None:
        committed(prompt_bytes(messages))
        committed(prompt_bytes(messages))
        committed(answer_bytes(text))
        committed(answer_bytes(text))

    return effort.per_call_us(call)


async def seal(effort: Effort) -> list[float]:
    """Write and seal the payload of an OUTCOME, the day's key at hand."""
    event = outcome(0)
    async with keyring(MemoryKeys(), MemoryWrappedKeys()) as keys:

        async def call(_number: int) -> None:
            aad = payload_aad(event.call_id, event.phase)
            plaintext = payload_bytes(event)
            await keys.seal(
                tenant=TENANT, purpose=payload_purpose("standard", ""), plaintext=plaintext, aad=aad
            )

        return await effort.per_await_us(call)


async def serialise(effort: Effort) -> list[float]:
    """Parse and check a request, write its answer: everything between bytes and our own types."""
    raw = request(0, max_tokens=64, model="null").SerializeToString()
    door, caller, told = arrival(0), actor(), whole()

    def call(_number: int) -> None:
        read_chat(gateway_pb2.ChatRequest.FromString(raw), door, caller, "")
        whole_answer(told).SerializeToString()

    return effort.per_call_us(call)


STEPS: dict[str, Callable[[Effort], Awaitable[list[float]]]] = {
    "step_commit_us": commit,
    "step_seal_us": seal,
    "step_serialise_us": serialise,
}


def outcome(number: int) -> Event:
    """Make the OUTCOME of call `number`, as the gateway makes it."""
    of = scope(number)
    salted = Commitment(DIGEST, DIGEST)
    return Event(
        call_id=of.call_id,
        phase=Phase.OUTCOME,
        tenant=of.tenant,
        occurred_at_us=arrival(number).received_at_us,
        trace=of.trace,
        actor=actor(),
        outcome=RELEASED,
        finish_reason=FinishReason.STOP,
        model="null",
        model_digest=DIGEST,
        compliance_policy_digest=DIGEST,
        authorization_policy_digest=DIGEST,
        counts=FOUND,
        usage=Usage(prompt_tokens=50, completion_tokens=50),
        cache_tier="l1",
        prompt_received=salted,
        prompt_screened=salted,
        answer_released=salted,
        answer_delivered=salted,
        payload=Payload(screened=tuple(asked(prompt(number))), released=answer(number)),
    )


def whole() -> Answer:
    """Make a whole answer, with a receipt of the usual size."""
    receipt = Receipt(
        origin="sealgate.local/bench",
        index=123_456,
        leaf_hash=DIGEST,
        call_id=DIGEST[:16],
        trace_id=DIGEST[:16],
        prompt_salt=DIGEST,
        prompt_commitment=DIGEST,
        answer_salt=DIGEST,
        answer_commitment=DIGEST,
        key=DIGEST,
        key_endorsement=DIGEST * 2,
        signature=DIGEST * 2,
    )
    return Answer(
        text=answer(0),
        finish_reason=FinishReason.STOP,
        usage=Usage(prompt_tokens=50, completion_tokens=50),
        counts=FOUND,
        policy_digest=DIGEST,
        cache_tier="l1",
        receipt=receipt,
    )
