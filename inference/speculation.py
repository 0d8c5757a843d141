"""Guessing what a model will say next from what stands in its prompt. PURE.

A summary, an extract or a changed document repeats stretches of the prompt. So the last few tokens
are looked up in all that went before; what followed them there is the guess. The model then runs
all guessed tokens in one forward pass, and each is kept only if it is the very token that would
have been drawn at its place, by the request's own sampler, in the same order of draws. A wrong
guess costs time and changes nothing.

A request whose guesses are wrong guesses less: after each guess of which nothing held it waits
twice as many steps as the time before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Guesser"]

_KNOWN_TOKENS = 3
"""Tokens that must have stood together before: fewer guess wildly, more too seldom."""
_REST_MAX = 64


class Guesser:
    """Guesses for one request. Cost: 0.5 us a token of the prompt, once, and of the answer.

    Args:
        text: token ids of the prompt, and of the answer so far.
    """

    def __init__(self, text: Sequence[int]) -> None:
        self._text = list(text)
        self._behind: dict[tuple[int, ...], int] = {}
        """Where the latest stretch of known tokens ends, but for the one at the very end."""
        self._noted = _KNOWN_TOKENS
        self._rest = 0
        self._next_rest = 1

    def add(self, token: int) -> None:
        """Take note of what was drawn."""
        self._text.append(token)

    def guess(self, limit: int) -> tuple[int, ...]:
        """Return what may come next; nothing, if nothing like it was seen, or while it rests.

        Args:
            limit: tokens that may be guessed now.
        """
        if self._rest:
            self._rest -= 1
            return ()
        self._note()
        text = self._text
        behind = self._behind.get(tuple(text[-_KNOWN_TOKENS:]))
        if behind is None:
            return ()
        guessed: list[int] = []
        for place in range(behind, behind + limit):
            # Beyond the end of the text the guess itself goes on: it may repeat itself.
            guessed.append(text[place] if place < len(text) else guessed[place - len(text)])
        return tuple(guessed)

    def told(self, held: int) -> None:
        """Hear how many tokens of the last guess, from the first on, were right."""
        if held:
            self._next_rest = 1
        else:
            self._rest = self._next_rest
            self._next_rest = min(2 * self._next_rest, _REST_MAX)

    def _note(self) -> None:
        text = self._text
        for end in range(self._noted, len(text)):
            self._behind[tuple(text[end - _KNOWN_TOKENS : end])] = end
        self._noted = max(self._noted, len(text))
