"""The TensorRT-LLM backend's `ensemble` or `tensorrt_llm_bls`: text in, text out. PURE.

Tensors as in triton-inference-server/tensorrtllm_backend, all_models/inflight_batcher_llm:

    in    text_input BYTES, max_tokens INT32, stream BOOL, and if the model has them:
          stop_words BYTES, temperature and top_p FP32, top_k INT32, random_seed (newer: seed)
          UINT64, exclude_input_in_output BOOL
    out   text_output BYTES

It tells neither counts nor why it ended: both are derived here. `ensemble` turns tokens into text
one by one, so a character of several tokens comes as U+FFFD; `tensorrt_llm_bls` with
`accumulate_tokens` sends all text so far each time, and is whole (`accumulates`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from inference.engines.triton.adapters.base import ShapeError, Value, missing, one
from inference.engines.triton.adapters.text import TextReading, decoded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from inference.engines.triton.adapters.base import Question, Served
    from inference.engines.triton.adapters.text import Chat
    from meshkit.contract import Ended, Generated, Message, Parameters

__all__ = ["TensorRtLlmAdapter"]

_INPUTS: Final = (("text_input", "BYTES"), ("max_tokens", "INT32"), ("stream", "BOOL"))
_OUTPUTS: Final = (("text_output", "BYTES"),)
_SEEDS: Final = 1 << 64
_UNFINISHED: Final = "\N{REPLACEMENT CHARACTER}"


class TensorRtLlmAdapter:
    """Implements `Adapter`. accumulates: each response holds all text so far."""

    def __init__(self, chat: Chat, *, accumulates: bool) -> None:
        self._chat = chat
        self._accumulates = accumulates

    def check(self, served: Served) -> None:
        """See `Adapter.check`."""
        missing(served, _INPUTS, _OUTPUTS)

    def most(self, messages: Sequence[Message], asked: Parameters, context_tokens: int) -> int:
        """See `Adapter.most`."""
        return self._chat.most(messages, asked, context_tokens)

    def ask(self, question: Question, served: Served) -> Sequence[Value]:
        """See `Adapter.ask`. Raises ShapeError, if the model cannot be asked to sample so."""
        asked = question.parameters
        prompt = self._chat.prompt(question.messages).encode()
        wanted: list[tuple[str, str, Sequence[Any]]] = [
            ("text_input", "BYTES", [prompt]),
            ("max_tokens", "INT32", [question.most]),
            ("stream", "BOOL", [True]),
        ]
        if "exclude_input_in_output" in served.inputs:
            wanted.append(("exclude_input_in_output", "BOOL", [True]))
        if asked.stop:
            wanted.append(("stop_words", "BYTES", [text.encode() for text in asked.stop]))
        if asked.temperature == 0:
            wanted.append(("top_k", "INT32", [1]))
        else:
            wanted += [
                ("temperature", "FP32", [asked.temperature]),
                ("top_p", "FP32", [asked.top_p]),
            ]
        if asked.seed is not None:
            name = "random_seed" if "random_seed" in served.inputs else "seed"
            wanted.append((name, "UINT64", [asked.seed % _SEEDS]))
        missing(served, [(name, datatype) for name, datatype, _ in wanted], ())
        return [_value(served, *each) for each in wanted]

    def reading(self, question: Question) -> _Reading:
        """See `Adapter.reading`."""
        return _Reading(TextReading(self._chat, question), accumulates=self._accumulates)


class _Reading:
    def __init__(self, answer: TextReading, *, accumulates: bool) -> None:
        self._answer = answer
        self._accumulates = accumulates
        self._seen = ""

    def read(self, outputs: Mapping[str, Sequence[Any]]) -> Sequence[Generated | Ended]:
        """See `Reading.read`."""
        raw = one(outputs, "text_output", bytes)
        if raw is None:
            return ()
        text = decoded(raw)
        if not self._accumulates:
            return self._answer.piece(text)
        # The end may still be part of a character.
        whole = text.rstrip(_UNFINISHED)
        if not whole.startswith(self._seen):
            msg = "an answer took back what it had said"
            raise ShapeError(msg)
        fresh, self._seen = whole[len(self._seen) :], whole
        return self._answer.piece(fresh)

    def over(self) -> Sequence[Generated | Ended]:
        """See `Reading.over`."""
        return self._answer.end(None)


def _value(served: Served, name: str, datatype: str, values: Sequence[Any]) -> Value:
    shape = (1, len(values)) if served.batched else (len(values),)
    return Value(name=name, datatype=datatype, shape=shape, values=values)
