"""The vLLM backend: text in, text out. PURE.

Tensors as in triton-inference-server/vllm_backend, src/model.py and src/utils/request.py:

    in    text_input BYTES, stream BOOL, sampling_parameters BYTES (a JSON object), and if the model
          has them: exclude_input_in_output, return_finish_reason, return_num_output_tokens BOOL
    out   text_output BYTES; finish_reason BYTES, num_output_tokens UINT32 where they were asked for

Reasons and output counts are the backend's own where it gives them, else ours.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from inference.engines.triton.adapters.base import ShapeError, Value, missing, one
from inference.engines.triton.adapters.text import TextReading, decoded
from meshkit.contract import FinishReason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from inference.engines.triton.adapters.base import Question, Served
    from inference.engines.triton.adapters.text import Chat
    from meshkit.contract import Ended, Generated, Message, Parameters

__all__ = ["VllmAdapter"]

_INPUTS: Final = (("text_input", "BYTES"), ("stream", "BOOL"), ("sampling_parameters", "BYTES"))
_OUTPUTS: Final = (("text_output", "BYTES"),)
_ASKED_FOR: Final = (
    "exclude_input_in_output",
    "return_finish_reason",
    "return_num_output_tokens",
)
_ENDS: Final = {b"stop": FinishReason.STOP, b"length": FinishReason.LENGTH}
_GOES_ON: Final = frozenset({b"None", b""})
_SEEDS: Final = 1 << 63


class VllmAdapter:
    """Implements `Adapter`."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat

    def check(self, served: Served) -> None:
        """See `Adapter.check`."""
        missing(served, _INPUTS, _OUTPUTS)

    def most(self, messages: Sequence[Message], asked: Parameters, context_tokens: int) -> int:
        """See `Adapter.most`."""
        return self._chat.most(messages, asked, context_tokens)

    def ask(self, question: Question, served: Served) -> Sequence[Value]:
        """See `Adapter.ask`."""
        prompt = self._chat.prompt(question.messages).encode()
        values = [
            Value(name="text_input", datatype="BYTES", shape=(1,), values=[prompt]),
            Value(name="stream", datatype="BOOL", shape=(1,), values=[True]),
            Value(
                name="sampling_parameters",
                datatype="BYTES",
                shape=(1,),
                values=[_sampling(question.parameters, question.most)],
            ),
        ]
        values += [
            Value(name=name, datatype="BOOL", shape=(1,), values=[True])
            for name in _ASKED_FOR
            if served.inputs.get(name) == "BOOL"
        ]
        return values

    def reading(self, question: Question) -> _Reading:
        """See `Adapter.reading`."""
        return _Reading(TextReading(self._chat, question))


class _Reading:
    def __init__(self, answer: TextReading) -> None:
        self._answer = answer
        self._tokens: int | None = None
        self._reason: FinishReason | None = None

    def read(self, outputs: Mapping[str, Sequence[Any]]) -> Sequence[Generated | Ended]:
        """See `Reading.read`."""
        counted = one(outputs, "num_output_tokens", int)
        if counted is not None:
            self._tokens = (self._tokens or 0) + counted
        reason = one(outputs, "finish_reason", bytes)
        if reason is not None and reason not in _GOES_ON:
            if reason not in _ENDS:
                # `abort`, and whatever else may come to be: the answer is not whole.
                msg = "the model gave its answer up"
                raise ShapeError(msg)
            self._reason = _ENDS[reason]
        raw = one(outputs, "text_output", bytes)
        return self._answer.piece(decoded(raw)) if raw is not None else ()

    def over(self) -> Sequence[Generated | Ended]:
        """See `Reading.over`."""
        return self._answer.end(self._reason, self._tokens)


def _sampling(asked: Parameters, most: int) -> bytes:
    told: dict[str, Any] = {
        "max_tokens": most,
        "temperature": asked.temperature,
        "top_p": asked.top_p,
    }
    if asked.seed is not None:
        told["seed"] = asked.seed % _SEEDS
    if asked.stop:
        told["stop"] = list(asked.stop)
    return json.dumps(told, ensure_ascii=False, sort_keys=True).encode()
