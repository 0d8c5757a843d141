"""Values of `meshkit.contract` as messages of `sealgate.v1`'s common.proto, and back.

The only module of meshkit that imports generated code: what every servicer, every client and the
SDK would otherwise write again. Calls no network and knows no gRPC.

What comes from the wire is a stranger's: `*_from_wire` raise `Refusal(INVALID_FIELD)` with the
field's name for an enum value this version does not know. Lengths and ranges are the servicer's
to check, since they differ by method.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

from google.protobuf.message import DecodeError

from meshkit.contract import (
    Direction,
    FindingCount,
    FinishReason,
    Message,
    ModelInfo,
    Parameters,
    Reason,
    Receipt,
    Refusal,
    Released,
    Role,
    Scope,
    Screened,
    Usage,
    Verdict,
    is_subject,
)
from meshkit.identity import is_label
from meshkit.remembered import remembered
from sealgate.v1 import common_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshkit.contract import TraceContext

__all__ = [
    "counts_from_wire",
    "counts_to_wire",
    "finish_from_wire",
    "finish_to_wire",
    "messages_from_wire",
    "messages_to_wire",
    "model_from_wire",
    "model_to_wire",
    "parameters_from_wire",
    "parameters_to_wire",
    "receipt_from_bytes",
    "receipt_from_wire",
    "receipt_to_bytes",
    "receipt_to_wire",
    "released_from_wire",
    "released_to_wire",
    "scope_from_wire",
    "scope_to_wire",
    "screened_from_wire",
    "screened_to_wire",
    "usage_from_wire",
    "usage_to_wire",
    "verdict_from_wire",
    "verdict_to_wire",
    "write_receipt",
]

_ROLES: dict[Role, pb.Role.ValueType] = {
    Role.SYSTEM: pb.ROLE_SYSTEM,
    Role.USER: pb.ROLE_USER,
    Role.ASSISTANT: pb.ROLE_ASSISTANT,
}
_FINISH: dict[FinishReason, pb.FinishReason.ValueType] = {
    FinishReason.STOP: pb.FINISH_REASON_STOP,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
    FinishReason.BLOCKED: pb.FINISH_REASON_BLOCKED,
    FinishReason.LIMITED: pb.FINISH_REASON_LIMITED,
    FinishReason.CANCELLED: pb.FINISH_REASON_CANCELLED,
}
_DIRECTIONS: dict[Direction, pb.Direction.ValueType] = {
    Direction.PROMPT: pb.DIRECTION_PROMPT,
    Direction.ANSWER: pb.DIRECTION_ANSWER,
}
_ACTIONS: dict[str, pb.Action.ValueType] = {
    "allow": pb.ACTION_ALLOW,
    "mask": pb.ACTION_MASK,
    "tokenise": pb.ACTION_TOKENISE,
    "block": pb.ACTION_BLOCK,
    "replace": pb.ACTION_REPLACE,
    "hash": pb.ACTION_HASH,
    "flag": pb.ACTION_FLAG,
    "reveal": pb.ACTION_REVEAL,
}
_ROLES_BACK: dict[int, Role] = {number: role for role, number in _ROLES.items()}
_FINISH_BACK: dict[int, FinishReason] = {number: reason for reason, number in _FINISH.items()}
_DIRECTIONS_BACK: dict[int, Direction] = {number: way for way, number in _DIRECTIONS.items()}
_ACTIONS_BACK: dict[int, str] = {number: action for action, number in _ACTIONS.items()}


_DEFAULTS = Parameters()

_T = TypeVar("_T")


def _known(table: dict[int, _T], number: int, field: str) -> _T:
    try:
        return table[number]
    except KeyError:
        raise Refusal(Reason.INVALID_FIELD, field=field) from None


# --- the conversation -----------------------------------------------------------------------


def messages_to_wire(messages: Iterable[Message]) -> list[pb.Message]:
    """Convert turns of a conversation."""
    return [pb.Message(role=_ROLES[each.role], content=each.content) for each in messages]


def messages_from_wire(messages: Iterable[pb.Message]) -> tuple[Message, ...]:
    """Convert turns of a conversation. Raises Refusal: INVALID_FIELD `role`."""
    return tuple(Message(_known(_ROLES_BACK, each.role, "role"), each.content) for each in messages)


def parameters_to_wire(parameters: Parameters) -> pb.Parameters:
    """Convert how to sample."""
    return pb.Parameters(
        max_tokens=parameters.max_tokens,
        temperature=parameters.temperature,
        top_p=parameters.top_p,
        seed=parameters.seed,
        stop=parameters.stop,
    )


def parameters_from_wire(parameters: pb.Parameters) -> Parameters:
    """Convert how to sample; what is absent gets the default. Ranges are not checked here."""
    return Parameters(
        max_tokens=parameters.max_tokens or _DEFAULTS.max_tokens,
        temperature=parameters.temperature,
        top_p=parameters.top_p or 1.0,
        seed=parameters.seed if parameters.HasField("seed") else None,
        stop=tuple(parameters.stop),
    )


# --- how it went ----------------------------------------------------------------------------


def usage_to_wire(usage: Usage) -> pb.Usage:
    """Convert token counts."""
    return pb.Usage(prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens)


def usage_from_wire(usage: pb.Usage) -> Usage:
    """Convert token counts."""
    return Usage(prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens)


def finish_to_wire(reason: FinishReason) -> pb.FinishReason.ValueType:
    """Convert why an answer ended."""
    return _FINISH[reason]


def finish_from_wire(reason: pb.FinishReason.ValueType) -> FinishReason:
    """Convert why an answer ended. Raises Refusal: INVALID_FIELD `finish_reason`."""
    return _known(_FINISH_BACK, reason, "finish_reason")


def counts_to_wire(counts: Iterable[FindingCount]) -> list[pb.FindingCount]:
    """Convert what compliance counted."""
    return [
        pb.FindingCount(
            direction=_DIRECTIONS[each.direction],
            type=each.type,
            subtype=each.subtype,
            action=_ACTIONS[each.action],
            count=each.count,
        )
        for each in counts
    ]


def counts_from_wire(counts: Iterable[pb.FindingCount]) -> tuple[FindingCount, ...]:
    """Convert what compliance counted. Raises Refusal: INVALID_FIELD `direction` or `action`."""
    return tuple([_count(each.SerializeToString()) for each in counts])


@remembered
def _count(serialised: bytes) -> FindingCount:
    count = pb.FindingCount.FromString(serialised)
    return FindingCount(
        direction=_known(_DIRECTIONS_BACK, count.direction, "direction"),
        type=count.type,
        subtype=count.subtype,
        action=_known(_ACTIONS_BACK, count.action, "action"),
        count=count.count,
    )


def verdict_to_wire(verdict: Verdict) -> pb.Verdict:
    """Convert what compliance thought of a text."""
    return pb.Verdict(counts=counts_to_wire(verdict.counts), policy_digest=verdict.policy_digest)


def verdict_from_wire(verdict: pb.Verdict) -> Verdict:
    """Convert what compliance thought of a text. Raises as `counts_from_wire`."""
    return Verdict(counts=counts_from_wire(verdict.counts), policy_digest=verdict.policy_digest)


def model_to_wire(model: ModelInfo) -> pb.Model:
    """Convert a model's description."""
    return pb.Model(
        name=model.name,
        digest=model.digest,
        context_tokens=model.context_tokens,
        licence=model.licence,
        languages=model.languages,
        template_digest=model.template_digest,
        version=model.version,
        state=model.state,
    )


def model_from_wire(model: pb.Model) -> ModelInfo:
    """Convert a model's description."""
    return ModelInfo(
        name=model.name,
        digest=model.digest,
        context_tokens=model.context_tokens,
        licence=model.licence,
        languages=tuple(model.languages),
        template_digest=model.template_digest,
        version=model.version,
        state=model.state or "live",
    )


# --- between services -----------------------------------------------------------------------

_CALL_ID_BYTES = 16
_PRINCIPAL_BYTES_MAX = 4_096
_SESSION = re.compile(r"[A-Za-z0-9._-]{0,64}")


def scope_to_wire(scope: Scope) -> pb.Scope:
    """Convert what a neighbour must know of a call; its trace travels in metadata."""
    return pb.Scope(
        call_id=scope.call_id,
        tenant=scope.tenant,
        principal=scope.principal,
        session=scope.session,
        subject=scope.subject,
    )


def scope_from_wire(scope: pb.Scope, trace: TraceContext) -> Scope:
    """Convert and check. Raises Refusal: INVALID_FIELD, with the field's name."""
    for field, holds in (
        ("call_id", len(scope.call_id) == _CALL_ID_BYTES),
        ("tenant", is_label(scope.tenant)),
        ("principal", 1 <= len(scope.principal.encode()) <= _PRINCIPAL_BYTES_MAX),
        ("session", _SESSION.fullmatch(scope.session) is not None),
        ("subject", not scope.subject or is_subject(scope.subject)),
    ):
        if not holds:
            raise Refusal(Reason.INVALID_FIELD, field=f"scope.{field}")
    return Scope(
        call_id=scope.call_id,
        tenant=scope.tenant,
        principal=scope.principal,
        session=scope.session,
        subject=scope.subject,
        trace=trace,
    )


def screened_to_wire(screened: Screened) -> pb.ScreenedPrompt:
    """Convert a prompt that compliance let in."""
    return pb.ScreenedPrompt(
        messages=messages_to_wire(screened.messages),
        verdict=verdict_to_wire(screened.verdict),
        mac=screened.mac,
        mac_key_version=screened.mac_key_version,
    )


def screened_from_wire(screened: pb.ScreenedPrompt) -> Screened:
    """Convert what claims to be a screened prompt: whoever uses it checks its MAC first."""
    return Screened(
        messages=messages_from_wire(screened.messages),
        verdict=verdict_from_wire(screened.verdict),
        mac=screened.mac,
        mac_key_version=screened.mac_key_version,
    )


def released_to_wire(released: Released) -> pb.ReleasedAnswer:
    """Convert an answer that compliance let out."""
    return pb.ReleasedAnswer(
        text=released.text,
        verdict=verdict_to_wire(released.verdict),
        mac=released.mac,
        mac_key_version=released.mac_key_version,
        blocked=released.blocked,
    )


def released_from_wire(released: pb.ReleasedAnswer) -> Released:
    """Convert what claims to be a released answer: whoever keeps it checks its MAC first."""
    return Released(
        text=released.text,
        verdict=verdict_from_wire(released.verdict),
        mac=released.mac,
        mac_key_version=released.mac_key_version,
        blocked=released.blocked,
    )


# --- what the caller keeps ------------------------------------------------------------------

_RECEIPT_FIELDS = tuple(each.name for each in pb.Receipt.DESCRIPTOR.fields)


def write_receipt(receipt: Receipt, into: pb.Receipt) -> None:
    """Convert a receipt; the two types have the same fields under the same names."""
    for name in _RECEIPT_FIELDS:
        setattr(into, name, getattr(receipt, name))


def receipt_to_wire(receipt: Receipt) -> pb.Receipt:
    """Convert a receipt."""
    wire = pb.Receipt()
    write_receipt(receipt, wire)
    return wire


def receipt_from_wire(receipt: pb.Receipt) -> Receipt:
    """Convert a receipt. Nothing is checked: `meshkit.tlog.check_receipt` does."""
    return Receipt(**{name: getattr(receipt, name) for name in _RECEIPT_FIELDS})


def receipt_to_bytes(receipt: Receipt) -> bytes:
    """Serialise a receipt, as it travels in the trailer `sealgate-receipt-bin`."""
    return receipt_to_wire(receipt).SerializeToString()


def receipt_from_bytes(raw: bytes) -> Receipt | None:
    """Read a serialised receipt; None if it is none."""
    try:
        return receipt_from_wire(pb.Receipt.FromString(raw))
    except DecodeError:
        return None
