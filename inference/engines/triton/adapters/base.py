"""Between an engine's requests and a served model's tensors: what every adapter is. PURE.

Values are Python lists, as numpy's `tolist` gives them: bytes for STRING, numbers for the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from meshkit.contract import Ended, Generated, Message, Parameters

__all__ = ["Adapter", "Question", "Reading", "Served", "ShapeError", "Value", "missing", "one"]


class ShapeError(Exception):
    """What is served, or what it answered, is not what the adapter speaks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One input tensor. datatype: as on the wire (`BYTES`, `INT32`…)."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Sequence[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What Triton says of a model: its tensors by name, each with its datatype."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    decoupled: bool
    batched: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One request. most: tokens that the answer may have; time_left_ms: None, if any."""

    messages: Sequence[Message]
    parameters: Parameters
    most: int
    salt: bytes = b""
    priority: int = 0
    time_left_ms: int | None = None


class Reading(Protocol):
    """Reads one answer's responses, in order."""

    def read(self, outputs: Mapping[str, Sequence[Any]]) -> Sequence[Generated | Ended]:
        """Take a response; `Ended` last, if it says so.

        Raises:
            ShapeError: it cannot be such a model's.
        """
        ...

    def over(self) -> Sequence[Generated | Ended]:
        """No response follows: return what is left, `Ended` last.

        Raises:
            ShapeError: the answer was not over.
        """
        ...


class Adapter(Protocol):
    """Speaks one kind of model's tensors."""

    def check(self, served: Served) -> None:
        """See whether a served model has the tensors that will be used.

        Raises:
            ShapeError: it has not.
        """
        ...

    def most(self, messages: Sequence[Message], asked: Parameters, context_tokens: int) -> int:
        """Return how many tokens the answer may have.

        Raises:
            Refusal: INVALID_FIELD `messages`: the prompt leaves no room for one.
        """
        ...

    def ask(self, question: Question, served: Served) -> Sequence[Value]:
        """Write a request's inputs.

        Raises:
            Refusal: INVALID_FIELD `messages`, where this model cannot be asked that safely.
        """
        ...

    def reading(self, question: Question) -> Reading:
        """Begin to read an answer."""
        ...


def missing(
    served: Served, inputs: Iterable[tuple[str, str]], outputs: Iterable[tuple[str, str]]
) -> None:
    """Raise ShapeError unless the model streams and has these tensors, of these types."""
    if not served.decoupled:
        msg = "the served model does not stream: its transaction policy is not decoupled"
        raise ShapeError(msg)
    for asked, has in ((inputs, served.inputs), (outputs, served.outputs)):
        for name, datatype in asked:
            if has.get(name) != datatype:
                msg = f"the served model has no {name} of type {datatype}"
                raise ShapeError(msg)


def one(outputs: Mapping[str, Sequence[Any]], name: str, kind: type[Any]) -> Any:  # noqa: ANN401 -- as `kind` says
    """Return the only element of an output; None if the output is not there.

    Raises:
        ShapeError: it has another number of elements, or another type.
    """
    values = outputs.get(name)
    if values is None:
        return None
    if len(values) != 1 or not isinstance(values[0], kind):
        msg = f"{name} is not one value"
        raise ShapeError(msg)
    return values[0]
