"""What compliance is sent and what it answers: between sealgate.v1 and our own types."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshkit.contract import Reason, Refusal, Released
from meshkit.tokens import is_name
from meshkit.wire import (
    messages_from_wire,
    released_to_wire,
    scope_from_wire,
    screened_to_wire,
    verdict_to_wire,
)
from sealgate.v1 import compliance_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meshkit.contract import Message, Scope, Screened, TraceContext, Verdict

__all__ = [
    "MESSAGES_MAX",
    "NAMES_MAX",
    "blocked_result",
    "read_item",
    "read_names",
    "release_frame",
    "revealed_reply",
    "screened_result",
]

MESSAGES_MAX = 256
CONTENTS_BYTES_MAX = 1_048_576
NAMES_MAX = 4_096


def read_item(item: pb.ScreenItem, trace: TraceContext) -> tuple[Scope, tuple[Message, ...]]:
    """Read a prompt to screen. Raises Refusal: INVALID_FIELD."""
    if not 1 <= len(item.messages) <= MESSAGES_MAX:
        raise Refusal(Reason.INVALID_FIELD, field="messages")
    messages = messages_from_wire(item.messages)
    if sum(len(message.content.encode()) for message in messages) > CONTENTS_BYTES_MAX:
        raise Refusal(Reason.INVALID_FIELD, field="messages")
    return scope_from_wire(item.scope, trace), messages


def screened_result(screened: Screened) -> pb.ScreenResult:
    """Write a prompt that was let in."""
    return pb.ScreenResult(screened=screened_to_wire(screened))


def blocked_result(verdict: Verdict) -> pb.ScreenResult:
    """Write what was found in a prompt that was not."""
    return pb.ScreenResult(blocked=verdict_to_wire(verdict))


def release_frame(item: str | Released) -> pb.ReleaseResponse:
    """Write a piece that may leave, or the end."""
    if isinstance(item, Released):
        return pb.ReleaseResponse(released=released_to_wire(item))
    return pb.ReleaseResponse(delta=item)


def read_names(request: pb.RevealRequest) -> tuple[str, ...]:
    """Read names of tokens. Raises Refusal: INVALID_FIELD."""
    if not 1 <= len(request.names) <= NAMES_MAX or not all(map(is_name, request.names)):
        raise Refusal(Reason.INVALID_FIELD, field="names")
    return tuple(request.names)


def revealed_reply(values: Mapping[str, str]) -> pb.RevealResponse:
    """Write values behind tokens."""
    return pb.RevealResponse(
        tokens=[pb.RevealedToken(name=name, value=value) for name, value in values.items()]
    )
