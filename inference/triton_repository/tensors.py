"""What our own model in Triton is asked and what it answers: names, types, words. PURE.

    in    roles, contents  STRING [messages]     the conversation, as callers sent it
          max_tokens       INT32  [1]            temperature, top_p  FP64 [1]
          seed             UINT64 [1]  optional  stop  STRING [any]  optional
          salt             STRING [1]  optional  priority  INT32 [1]  optional
          time_left_ms     INT64  [1]  optional  describe  BOOL [1]   optional
    out   text             STRING [1]            tokens INT32 [1]    how many it stands for
          model            UINT8  [32]           the model's digest, on the first response alone
          finish_reason    STRING [1]            on the last alone: `stop` or `length`
          usage            INT32  [2]            on the last alone: prompt, completion tokens
          description      STRING [1]            the answer to `describe`, a JSON object

A response carries only the outputs that it has something to say in. A refusal is an error of one
constant form, `sealgate REASON FIELD RETRY_MS`, with `-` for nothing: never a caller's text.
"""

from __future__ import annotations

import re
from typing import Final

from inference.triton_repository.config import Tensor
from meshkit.contract import Reason, Refusal

__all__ = ["INPUTS", "OUTPUTS", "refusal_of", "refusal_text"]


def _input(name: str, kind: str, size: int = 1, *, optional: bool = False) -> Tensor:
    return Tensor(name=name, data_type=f"TYPE_{kind}", dims=(size,), optional=optional)


INPUTS: Final = (
    _input("roles", "STRING", -1),
    _input("contents", "STRING", -1),
    _input("max_tokens", "INT32"),
    _input("temperature", "FP64"),
    _input("top_p", "FP64"),
    _input("seed", "UINT64", optional=True),
    _input("stop", "STRING", -1, optional=True),
    _input("salt", "STRING", optional=True),
    _input("priority", "INT32", optional=True),
    _input("time_left_ms", "INT64", optional=True),
    _input("describe", "BOOL", optional=True),
)
OUTPUTS: Final = (
    _input("text", "STRING"),
    _input("tokens", "INT32"),
    _input("model", "UINT8", 32),
    _input("finish_reason", "STRING"),
    _input("usage", "INT32", 2),
    _input("description", "STRING"),
)

_REFUSED: Final = re.compile(r"sealgate ([A-Z_]{1,40}) (-|[a-z_.]{1,64}) (-|[0-9]{1,9})")
_MAY_SAY: Final = frozenset(
    {Reason.INVALID_FIELD, Reason.OVERLOADED, Reason.OUT_OF_TIME, Reason.INFERENCE_DOWN}
)
"""What an engine may refuse with; anything else in its name is no answer of an engine's."""


def refusal_text(refusal: Refusal) -> str:
    """Write a refusal as the error of a response."""
    later = refusal.retry_after_ms
    return (
        f"sealgate {refusal.reason.name} {refusal.field or '-'} {'-' if later is None else later}"
    )


def refusal_of(text: str) -> Refusal | None:
    """Read such an error; None: it is another one (Triton's, or another model's).

    Triton puts words of its own around it.
    """
    found = _REFUSED.search(text)
    if found is None or found[1] not in Reason.__members__:
        return None
    reason = Reason[found[1]]
    if reason not in _MAY_SAY:
        return None
    return Refusal(
        reason,
        field=None if found[2] == "-" else found[2],
        retry_after_ms=None if found[3] == "-" else int(found[3]),
    )
