"""Requests read once, at the edge, and answers written: between sealgate.v1 and our own types.

Past here a `Call` is sound: every field is within the range that gateway.proto and common.proto
state. A refusal names the field, never its value.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from meshkit.contract import (
    CachedAnswer,
    Call,
    Embedded,
    Ended,
    Generated,
    Message,
    Parameters,
    Reason,
    Refusal,
    Role,
    Scope,
    is_subject,
    subject_of_user,
)
from meshkit.wire import (
    counts_to_wire,
    finish_from_wire,
    finish_to_wire,
    messages_from_wire,
    model_from_wire,
    model_to_wire,
    parameters_from_wire,
    parameters_to_wire,
    receipt_to_wire,
    scope_to_wire,
    screened_to_wire,
    usage_from_wire,
    usage_to_wire,
    verdict_from_wire,
)
from sealgate.v1 import cache_pb2 as cache_pb
from sealgate.v1 import gateway_pb2 as pb
from sealgate.v1 import inference_pb2 as inference_pb

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.arrival import Arrival
    from gateway.run import Answer
    from meshkit.contract import Actor, ModelInfo, Question

__all__ = [
    "cached_from_wire",
    "delta_frame",
    "embedded_from_wire",
    "final_frame",
    "generated_from_wire",
    "models_reply",
    "question_to_wire",
    "read_chat",
    "read_purpose",
    "whole_answer",
]

MODEL_BYTES_MAX = 128
MESSAGES_MAX = 256
CONTENT_BYTES_MAX = 262_144
CONTENTS_BYTES_MAX = 1_048_576
TOKENS_MAX = 4_096
TEMPERATURE_MAX = 2.0
STOPS_MAX = 4
STOP_BYTES_MAX = 64

_SESSION = re.compile(r"[A-Za-z0-9._-]{0,64}")
_PURPOSE = re.compile(r"([a-z0-9][a-z0-9-]{0,63})?")
_TIERS = {
    "miss": pb.CACHE_TIER_MISS,
    "l1": pb.CACHE_TIER_L1,
    "l2": pb.CACHE_TIER_L2,
    "l3": pb.CACHE_TIER_L3,
    "off": pb.CACHE_TIER_OFF,
    "down": pb.CACHE_TIER_DOWN,
}


def read_chat(request: pb.ChatRequest, arrival: Arrival, actor: Actor, purpose: str) -> Call:
    """Check a request.

    Raises:
        Refusal: INVALID_FIELD, with the name of the first field that is out of its range.
    """
    _demand(
        (1 <= len(request.model.encode()) <= MODEL_BYTES_MAX, "model"),
        ("\0" not in request.model, "model"),
        (_SESSION.fullmatch(request.session) is not None, "session"),
    )
    return Call(
        scope=Scope(
            call_id=arrival.call_id,
            tenant=actor.tenant,
            principal=actor.principal,
            session=request.session,
            subject=_subject(request.subject, actor),
            trace=arrival.trace,
        ),
        actor=actor,
        connection=arrival.connection,
        model=request.model,
        messages=_messages(request),
        parameters=_parameters(request),
        purpose=purpose,
        cache_ok=not request.no_cache,
        received_at_us=arrival.received_at_us,
    )


def _subject(said: str, actor: Actor) -> str:
    """Return whom a call is about: as it says, else the user of its token, else nobody."""
    if said:
        _demand((is_subject(said), "subject"))
        return said
    return subject_of_user(actor.user) if actor.user else ""


def read_purpose(header: str | None) -> str:
    """Check `sealgate-purpose`. Raises Refusal: INVALID_FIELD."""
    purpose = header or ""
    _demand((_PURPOSE.fullmatch(purpose) is not None, "purpose"))
    return purpose


def _messages(request: pb.ChatRequest) -> tuple[Message, ...]:
    _demand((1 <= len(request.messages) <= MESSAGES_MAX, "messages"))
    messages = messages_from_wire(request.messages)
    _demand((messages[-1].role is Role.USER, "messages.role"))
    total = 0
    for message in messages:
        size = len(message.content.encode())
        sized = 1 <= size <= CONTENT_BYTES_MAX
        _demand((sized and "\0" not in message.content, "messages.content"))
        total += size
    _demand((total <= CONTENTS_BYTES_MAX, "messages"))
    return messages


def _parameters(request: pb.ChatRequest) -> Parameters:
    given = request.parameters
    _demand(
        (given.max_tokens <= TOKENS_MAX, "parameters.max_tokens"),
        (0 <= given.temperature <= TEMPERATURE_MAX, "parameters.temperature"),
        (0 <= given.top_p <= 1, "parameters.top_p"),
        (not math.isnan(given.top_p + given.temperature), "parameters"),
        (len(given.stop) <= STOPS_MAX, "parameters.stop"),
    )
    for stop in given.stop:
        sized = 1 <= len(stop.encode()) <= STOP_BYTES_MAX
        _demand((sized and "\0" not in stop, "parameters.stop"))
    return parameters_from_wire(given)


def _demand(*checks: tuple[bool, str]) -> None:
    """Refuse the first field whose check does not hold."""
    for holds, field in checks:
        if not holds:
            raise Refusal(Reason.INVALID_FIELD, field=field)


# --- answers --------------------------------------------------------------------------------


def whole_answer(answer: Answer) -> pb.ChatResponse:
    """Write a unary answer."""
    return pb.ChatResponse(
        text=answer.text,
        finish_reason=finish_to_wire(answer.finish_reason),
        usage=usage_to_wire(answer.usage),
        screening=_screening(answer),
        cache_tier=_TIERS[answer.cache_tier],
        receipt=receipt_to_wire(answer.receipt) if answer.receipt else None,
    )


def delta_frame(text: str) -> pb.ChatStreamResponse:
    """Write released text."""
    return pb.ChatStreamResponse(delta=text)


def final_frame(answer: Answer) -> pb.ChatStreamResponse:
    """Write how a stream ended."""
    return pb.ChatStreamResponse(
        final=pb.ChatStreamResponse.Final(
            finish_reason=finish_to_wire(answer.finish_reason),
            usage=usage_to_wire(answer.usage),
            screening=_screening(answer),
            cache_tier=_TIERS[answer.cache_tier],
            receipt=receipt_to_wire(answer.receipt) if answer.receipt else None,
        )
    )


def models_reply(models: Iterable[ModelInfo]) -> pb.ListModelsResponse:
    """Write a list of models."""
    return pb.ListModelsResponse(models=[model_to_wire(model) for model in models])


def _screening(answer: Answer) -> pb.Screening:
    return pb.Screening(counts=counts_to_wire(answer.counts), policy_digest=answer.policy_digest)


# --- to and from the neighbours -------------------------------------------------------------


def models_from_wire(
    reply: inference_pb.InferenceServiceListModelsResponse,
) -> tuple[ModelInfo, ...]:
    """Read which versions get traffic, and how much."""
    shares = {each.digest: each for each in reply.shares}
    known = [model_from_wire(model) for model in reply.models]
    return tuple(
        replace(model, share=shares[model.digest].share, split_key=shares[model.digest].split_key)
        if model.digest in shares
        else model
        for model in known
    )


def question_to_wire(question: Question) -> cache_pb.Question:
    """Write a question for the cache."""
    return cache_pb.Question(
        scope=scope_to_wire(question.scope),
        screened=screened_to_wire(question.screened),
        model_digest=question.model_digest,
        parameters=parameters_to_wire(question.parameters),
    )


def cached_from_wire(found: cache_pb.CachedAnswer) -> CachedAnswer:
    """Read an answer that was kept. Raises Refusal: INVALID_FIELD, the cache is none of ours."""
    return CachedAnswer(
        text=found.text,
        finish_reason=finish_from_wire(found.finish_reason),
        usage=usage_from_wire(found.usage),
        verdict=verdict_from_wire(found.verdict),
        tier=found.tier,
    )


def embedded_from_wire(reply: inference_pb.EmbedResponse, texts: int) -> Embedded:
    """Read vectors. Raises Refusal: INFERENCE_DOWN, if they are not as many as were asked for."""
    vectors = tuple(tuple(one.values) for one in reply.embeddings)
    if len(vectors) != texts or len({len(vector) for vector in vectors}) != 1:
        raise Refusal(Reason.INFERENCE_DOWN)
    return Embedded(vectors, usage_from_wire(reply.usage))


def generated_from_wire(frame: inference_pb.GenerateResponse) -> Generated | Ended:
    """Read a piece of an answer, or its end. Raises Refusal: INFERENCE_DOWN, if it is neither."""
    match frame.WhichOneof("frame"):
        case "piece":
            return Generated(frame.piece.text, max(1, frame.piece.tokens))
        case "ended":
            try:
                finish = finish_from_wire(frame.ended.finish_reason)
            except Refusal:
                raise Refusal(Reason.INFERENCE_DOWN) from None
            return Ended(finish_reason=finish, usage=usage_from_wire(frame.ended.usage))
        case _:
            raise Refusal(Reason.INFERENCE_DOWN)
