"""Our own model's requests and description, between tensors' values and our types. PURE.

Values are lists, as numpy's `tolist` gives them: bytes for STRING, numbers for the rest.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meshkit.contract import Document, Message, ModelInfo, Parameters, Reason, Refusal, Role

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Asked", "description", "info_of", "read_asked"]

_NOTHING: list[Any] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request; time_left_ms: until nobody waits any more, None if anyone always does."""

    messages: tuple[Message, ...]
    parameters: Parameters
    salt: bytes
    priority: int
    time_left_ms: int | None
    describe: bool


def read_asked(values: Mapping[str, Sequence[Any]]) -> Asked:
    """Read a request.

    Raises:
        Refusal: INVALID_FIELD `messages` or `parameters`, whatever is wrong with it.
    """
    try:
        return Asked(
            messages=tuple(
                Message(Role(role.decode()), content.decode())
                for role, content in zip(values["roles"], values["contents"], strict=True)
            ),
            parameters=_parameters(values),
            salt=bytes(_one(values, "salt", b"")),
            priority=int(_one(values, "priority", 0)),
            time_left_ms=_one(values, "time_left_ms", None),
            describe=bool(_one(values, "describe", False)),  # noqa: FBT003 -- what stands for absence
        )
    except (KeyError, ValueError, TypeError, AttributeError):
        # None of it is kept: what was asked must not come back in an error.
        raise Refusal(Reason.INVALID_FIELD, field="messages") from None


def _parameters(values: Mapping[str, Sequence[Any]]) -> Parameters:
    return Parameters(
        max_tokens=int(values["max_tokens"][0]),
        temperature=float(values["temperature"][0]),
        top_p=float(values["top_p"][0]),
        seed=_one(values, "seed", None),
        stop=tuple(text.decode() for text in values.get("stop", _NOTHING)),
    )


def _one(values: Mapping[str, Sequence[Any]], name: str, absent: Any) -> Any:  # noqa: ANN401 -- of any type
    found = values.get(name, _NOTHING)
    return found[0] if len(found) else absent


def description(info: ModelInfo) -> bytes:
    """Write what a model is, its documents included, as a JSON object."""
    told = {
        "name": info.name,
        "digest": info.digest.hex(),
        "context_tokens": info.context_tokens,
        "licence": info.licence,
        "languages": list(info.languages),
        "template_digest": info.template_digest.hex(),
        "documents": [
            {"kind": each.kind, "content": base64.b64encode(each.content).decode()}
            for each in info.documents
        ],
    }
    return json.dumps(told, sort_keys=True).encode()


def info_of(raw: bytes) -> ModelInfo:
    """Read a description. Nothing in it is checked but its form.

    Raises:
        ValueError: it is none.
    """
    try:
        told = json.loads(raw)
        return ModelInfo(
            name=str(told["name"]),
            digest=bytes.fromhex(told["digest"]),
            context_tokens=int(told["context_tokens"]),
            licence=str(told["licence"]),
            languages=tuple(map(str, told["languages"])),
            template_digest=bytes.fromhex(told["template_digest"]),
            documents=tuple(
                Document(str(each["kind"]), base64.b64decode(each["content"], validate=True))
                for each in told["documents"]
            ),
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        msg = "this is no description of a model"
        raise ValueError(msg) from None
