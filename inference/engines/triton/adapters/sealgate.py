"""Our own model in Triton: see `inference.triton_repository.tensors`. PURE.

It tells counts, reasons and its digest itself; every answer must bear the digest that was loaded,
so that another model under the same name is found out with its first response.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from inference.engines.triton.adapters.base import ShapeError, Value, missing, one
from inference.triton_repository.tensors import INPUTS, OUTPUTS
from meshkit.contract import Ended, FinishReason, Generated, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from inference.engines.triton.adapters.base import Question, Served
    from meshkit.contract import Message, Parameters

__all__ = ["SealgateAdapter", "describe"]

_ENDS: Final = {b"stop": FinishReason.STOP, b"length": FinishReason.LENGTH}
_SEEDS: Final = 1 << 64
_WIRE: Final = {"TYPE_STRING": "BYTES"}


class SealgateAdapter:
    """Implements `Adapter`. digest: the model's that must answer, 32 bytes; none: any."""

    def __init__(self, digest: bytes = b"") -> None:
        self._digest = list(digest)

    def check(self, served: Served) -> None:
        """See `Adapter.check`."""
        inputs, outputs = (
            [(t.name, _WIRE.get(t.data_type, t.data_type.removeprefix("TYPE_"))) for t in tensors]
            for tensors in (INPUTS, OUTPUTS)
        )
        missing(served, inputs, outputs)

    def most(self, messages: Sequence[Message], asked: Parameters, context_tokens: int) -> int:  # noqa: ARG002 -- the model sees to its room by itself
        """See `Adapter.most`."""
        return min(asked.max_tokens, context_tokens)

    def ask(self, question: Question, served: Served) -> Sequence[Value]:  # noqa: ARG002 -- it has all of ours
        """See `Adapter.ask`."""
        asked = question.parameters
        values = [
            _value("roles", "BYTES", [each.role.value.encode() for each in question.messages]),
            _value("contents", "BYTES", [each.content.encode() for each in question.messages]),
            _value("max_tokens", "INT32", [question.most]),
            _value("temperature", "FP64", [asked.temperature]),
            _value("top_p", "FP64", [asked.top_p]),
        ]
        if asked.seed is not None:
            values.append(_value("seed", "UINT64", [asked.seed % _SEEDS]))
        if asked.stop:
            values.append(_value("stop", "BYTES", [text.encode() for text in asked.stop]))
        if question.salt:
            values.append(_value("salt", "BYTES", [question.salt]))
        if question.priority:
            values.append(_value("priority", "INT32", [question.priority]))
        if question.time_left_ms is not None:
            values.append(_value("time_left_ms", "INT64", [question.time_left_ms]))
        return values

    def reading(self, question: Question) -> _Reading:
        """See `Adapter.reading`."""
        return _Reading(self._digest, question.most)


def describe() -> Sequence[Value]:
    """Write the request that has the model describe itself."""
    return [
        _value("roles", "BYTES", [b"user"]),
        _value("contents", "BYTES", [b""]),
        _value("max_tokens", "INT32", [1]),
        _value("temperature", "FP64", [0.0]),
        _value("top_p", "FP64", [1.0]),
        _value("describe", "BOOL", [True]),
    ]


class _Reading:
    def __init__(self, digest: list[int], most: int) -> None:
        self._digest = digest
        self._most = self._left = most
        self._first = True

    def read(self, outputs: Mapping[str, Sequence[Any]]) -> Sequence[Generated | Ended]:
        """See `Reading.read`."""
        if self._first and self._digest and list(outputs.get("model", ())) != self._digest:
            msg = "another model answered than the one that was loaded"
            raise ShapeError(msg)
        self._first = False
        items: list[Generated | Ended] = []
        text = one(outputs, "text", bytes)
        if text is not None:
            items.append(self._piece(text, one(outputs, "tokens", int)))
        reason = one(outputs, "finish_reason", bytes)
        if reason is not None:
            items.append(_ended(reason, outputs.get("usage", ()), self._most))
        return items

    def over(self) -> Sequence[Generated | Ended]:
        """See `Reading.over`."""
        msg = "the answer broke off"
        raise ShapeError(msg)

    def _piece(self, text: bytes, tokens: int | None) -> Generated:
        if tokens is None or not 1 <= tokens <= self._left:
            msg = "an answer has more tokens than were asked for, or a piece none"
            raise ShapeError(msg)
        self._left -= tokens
        try:
            return Generated(text.decode(), tokens)
        except UnicodeDecodeError:
            msg = "text is not UTF-8"
            raise ShapeError(msg) from None


def _ended(reason: bytes, usage: Sequence[Any], most: int) -> Ended:
    counts = [each for each in usage if isinstance(each, int) and each >= 0]
    if reason not in _ENDS or len(usage) != 2 or len(counts) != 2 or counts[1] > most:  # noqa: PLR2004 -- prompt, completion
        msg = "an answer's end is malformed"
        raise ShapeError(msg)
    return Ended(
        finish_reason=_ENDS[reason],
        usage=Usage(prompt_tokens=counts[0], completion_tokens=counts[1]),
    )


def _value(name: str, datatype: str, values: Sequence[Any]) -> Value:
    return Value(name=name, datatype=datatype, shape=(len(values),), values=values)
