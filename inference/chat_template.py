"""A chat template in Jinja, run without ever seeing what people wrote.

The template is rendered once for each order of roles, in a sandbox, with a mark in place of each
message. What comes out is cut at the marks and at the control tokens, so only the template can
write a control token:

    Control(token)     one that the template wrote
    Text(parts)        text between two of those: the template's words, and numbers of messages

So a message cannot change what the template does: a template that would look into a text (to drop
a model's thoughts, say) does not. One that trims texts is noticed, by marks with space around them,
and messages are trimmed by whoever fills them in. There is no clock in the sandbox and no chance: a
template that asks for the date writes the one it has as its default, or is refused. One that takes
more than `_STEPS_MAX` lines of Python is refused, too. How much memory it takes is not bounded:
whoever signs a model reads its template first.

Source: https://huggingface.co/docs/transformers/chat_templating
"""

from __future__ import annotations

import re
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from inference.registry import ModelFileError
from meshkit.contract import Reason, Refusal, Role

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["ChatTemplate", "Control", "Slot", "Text"]

_TEMPLATE_CHARACTERS_MAX = 1 << 16
_RENDERED_CHARACTERS_MAX = 1 << 20
_STEPS_MAX = 1 << 20
"""For one order of roles; a message takes some 20."""
_ORDERS_REMEMBERED = 512
_OPEN, _CLOSE = "\ue000", "\ue001"
_MARK = re.compile(f"( ?){_OPEN}([0-9]{{1,9}}){_CLOSE}( ?)")
_BROKEN = (
    TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError,
    RecursionError, MemoryError, SyntaxError,
)  # fmt: skip
"""What a template may raise, by Jinja and by Python below it."""


@dataclass(frozen=True, slots=True)
class Control:
    """A control token's id."""

    token: int


@dataclass(frozen=True, slots=True)
class Slot:
    """Stands for a message. trimmed: without the white space around it."""

    message: int
    trimmed: bool


@dataclass(frozen=True, slots=True)
class Text:
    """Text that is encoded as one, by an encoder without control tokens."""

    parts: tuple[str | Slot, ...]


class ChatTemplate:
    """A template, ready to be rendered.

    Args:
        source: Jinja.
        controls: control tokens by their text.
        names: what the template may ask for by name, such as `bos_token`.

    Raises:
        ModelFileError: it is no template, too long, or cannot render one user's message.
    """

    def __init__(
        self, source: str, *, controls: Mapping[str, int], names: Mapping[str, str]
    ) -> None:
        if len(source) > _TEMPLATE_CHARACTERS_MAX or _OPEN in source or _CLOSE in source:
            msg = "the chat template is too long, or holds private characters"
            raise ModelFileError(msg)
        sandbox = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        sandbox.globals["raise_exception"] = _refuse
        sandbox.filters["tojson"] = _no_json
        del sandbox.globals["lipsum"], sandbox.filters["random"]
        self._names = dict(names)
        self._controls = dict(controls)
        longest_first = sorted(controls, key=len, reverse=True)
        self._cut = re.compile(f"({'|'.join(map(re.escape, longest_first))})") if controls else None
        try:
            self._template = sandbox.from_string(source)
        except _BROKEN as error:
            msg = "the chat template cannot be understood"
            raise ModelFileError(msg) from error
        self.rendered = lru_cache(_ORDERS_REMEMBERED)(self._rendered)
        try:
            self.rendered((Role.USER,))
        except Refusal as error:
            msg = "the chat template cannot render a user's message"
            raise ModelFileError(msg) from error

    def _rendered(self, roles: tuple[Role, ...]) -> tuple[Control | Text, ...]:
        """Render a conversation of these roles, and open the assistant's turn.

        Raises:
            Refusal: INVALID_FIELD `messages`, if the template does not take this order of roles.
        """
        turns = [
            {"role": role.value, "content": f" {_OPEN}{number}{_CLOSE} "}
            for number, role in enumerate(roles)
        ]
        try:
            with _within(_STEPS_MAX):
                text = self._template.render(
                    messages=turns, add_generation_prompt=True, tools=None, **self._names
                )
            text.encode()
        except _BROKEN as error:
            raise Refusal(Reason.INVALID_FIELD, field="messages") from error
        # A template can spell a mark of its own: of a message that is not there.
        forged = any(int(mark[2]) >= len(roles) for mark in _MARK.finditer(text))
        if forged or len(text) > _RENDERED_CHARACTERS_MAX:
            raise Refusal(Reason.INVALID_FIELD, field="messages")
        return tuple(self._cut_up(text))

    def _cut_up(self, text: str) -> list[Control | Text]:
        found: list[Control | Text] = []
        for part in self._cut.split(text) if self._cut else [text]:
            if part in self._controls:
                found.append(Control(self._controls[part]))
            elif part:
                found.append(Text(tuple(_filled(part))))
        return found


def _filled(text: str) -> list[str | Slot]:
    parts: list[str | Slot] = []
    at = 0
    for mark in _MARK.finditer(text):
        before = text[at : mark.start()]
        parts += [before] if before else []
        parts.append(Slot(int(mark[2]), trimmed=not (mark[1] and mark[3])))
        at = mark.end()
    return [*parts, text[at:]] if at < len(text) else parts


@contextmanager
def _within(steps: int) -> Iterator[None]:
    """Let this thread run so many lines of Python. Raises TemplateError: it would run more."""
    left = steps

    def count(*_: object) -> Any:  # noqa: ANN401 -- a tracer gives the next one, which is itself
        nonlocal left
        left -= 1
        if left < 0:
            raise TemplateError
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        yield
    finally:
        sys.settrace(before)


def _refuse(*_: Any) -> NoReturn:  # noqa: ANN401 -- whatever a template says
    """Give up, as a template wants to. What it says is not told: it may quote."""
    raise TemplateError


def _no_json(*_: Any, **__: Any) -> NoReturn:  # noqa: ANN401 -- as above
    """Refuse a template that would quote a message: the mark in it would be spelt otherwise."""
    raise TemplateError


def fill(text: Text, messages: Sequence[str]) -> str:
    """Put messages where they belong."""
    return "".join(
        part
        if isinstance(part, str)
        else messages[part.message].strip()
        if part.trimmed
        else messages[part.message]
        for part in text.parts
    )
