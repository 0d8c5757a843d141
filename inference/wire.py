"""What inference is asked and what it answers: between sealgate.v1 and our own types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshkit.contract import Ended, Parameters, Reason, Refusal
from meshkit.releasing.wire import release_to_wire
from meshkit.wire import (
    finish_to_wire,
    model_to_wire,
    parameters_from_wire,
    scope_from_wire,
    screened_from_wire,
    usage_to_wire,
)
from sealgate.v1 import inference_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshkit.contract import (
        Embedded,
        Generated,
        ModelInfo,
        Release,
        Scope,
        Screened,
        TraceContext,
    )

__all__ = [
    "Asked",
    "embed_reply",
    "frame",
    "models_reply",
    "read_asked",
    "read_embed",
    "releases_reply",
]

MODEL_BYTES_MAX = 128
_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to generate; whether compliance vouches for its prompt is the service's to see."""

    scope: Scope
    model: str
    screened: Screened
    parameters: Parameters
    digest: bytes = b""
    """Of the version that is to answer; empty: whichever."""


def read_asked(request: pb.GenerateRequest, trace: TraceContext) -> Asked:
    """Read a request. Raises Refusal: INVALID_FIELD."""
    if not 1 <= len(request.model.encode()) <= MODEL_BYTES_MAX:
        raise Refusal(Reason.INVALID_FIELD, field="model")
    if len(request.model_digest) not in {0, _DIGEST_BYTES}:
        raise Refusal(Reason.INVALID_FIELD, field="model_digest")
    return Asked(
        scope_from_wire(request.scope, trace),
        request.model,
        screened_from_wire(request.prompt),
        parameters_from_wire(request.parameters),
        request.model_digest,
    )


def read_embed(request: pb.EmbedRequest, trace: TraceContext) -> Asked:
    """Read a request for vectors. Raises Refusal: INVALID_FIELD."""
    if not 1 <= len(request.model.encode()) <= MODEL_BYTES_MAX:
        raise Refusal(Reason.INVALID_FIELD, field="model")
    return Asked(
        scope_from_wire(request.scope, trace),
        request.model,
        screened_from_wire(request.prompt),
        Parameters(),
    )


def embed_reply(embedded: Embedded) -> pb.EmbedResponse:
    """Write vectors."""
    return pb.EmbedResponse(
        embeddings=[pb.EmbedResponse.Embedding(values=vector) for vector in embedded.vectors],
        usage=usage_to_wire(embedded.usage),
    )


def frame(item: Generated | Ended) -> pb.GenerateResponse:
    """Write a piece of an answer, or its end."""
    if isinstance(item, Ended):
        return pb.GenerateResponse(
            ended=pb.GenerateResponse.Ended(
                finish_reason=finish_to_wire(item.finish_reason), usage=usage_to_wire(item.usage)
            )
        )
    return pb.GenerateResponse(piece=pb.GenerateResponse.Piece(text=item.text, tokens=item.tokens))


def models_reply(models: Iterable[ModelInfo]) -> pb.InferenceServiceListModelsResponse:
    """Write which versions get traffic, and how much."""
    reply = pb.InferenceServiceListModelsResponse()
    for model in models:
        reply.models.append(model_to_wire(model))
        reply.shares.add(digest=model.digest, share=model.share, split_key=model.split_key)
    return reply


def releases_reply(releases: Iterable[Release]) -> pb.ListReleasesResponse:
    """Write how models stand."""
    return pb.ListReleasesResponse(releases=[release_to_wire(each) for each in releases])
