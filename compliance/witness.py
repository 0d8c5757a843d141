"""Recognizers that write down what the engine asks of them: how `explain` knows why. PURE.

    watched, notes = watch(ALL)
    Engine(watched).find(window, core)      # the very engine, rules and scores
    notes.seen                              # every match it weighed, and what it learnt of it

The engine walks over a recognizer's matches, asks for the checksum, then for context words. A
watched recognizer hands out the same answers and notes them, so nothing here scores anything: the
score of what was found is the engine's own, and the hot path knows nothing of witnesses.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from compliance.recognizers.base import VETO_BEFORE, VETO_WORDS

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterator, Sequence

    from compliance.recognizers.base import Recognizer, Words

__all__ = ["Notes", "Seen", "watch"]


@dataclass(slots=True)
class Seen:
    """A match that the engine weighed.

    text, first, last: the reading of the window it lies in, and where the value lies in that.
    check: what the checksum said; None if there is none, or it was not asked.
    context: the word near by that counts; empty if there is none.
    """

    recognizer: Recognizer
    text: str
    first: int
    last: int
    check: bool | None = None
    context: str = ""

    @property
    def value(self) -> str:
        """What was caught, in the folded spelling."""
        return self.text[self.first : self.last]

    @property
    def veto(self) -> str:
        """The word before the value that takes confidence off; empty if there is none."""
        if self.context or not self.recognizer.veto:
            return ""
        return _word(VETO_WORDS, self.text[max(0, self.first - VETO_BEFORE) : self.first].lower())


@dataclass(slots=True)
class Notes:
    """What was seen since `forget`, in the engine's order."""

    seen: list[Seen] = field(default_factory=list)

    def forget(self) -> None:
        """Begin anew, before another window."""
        self.seen.clear()


def watch(recognizers: Sequence[Recognizer]) -> tuple[list[Recognizer], Notes]:
    """Return the same recognizers, watched, and where they note what they see."""
    notes = Notes()
    return [_watched(recognizer, notes) for recognizer in recognizers], notes


def _watched(recognizer: Recognizer, notes: Notes) -> Recognizer:
    check = recognizer.check
    twin = replace(recognizer, check=_noting_check(check, notes) if check is not None else None)
    # Where the cached properties keep what they found: the engine takes it from there.
    vars(twin)["compiled"] = _Pattern(recognizer, notes)
    vars(twin)["group"] = recognizer.group
    if recognizer.context_words is not None:
        vars(twin)["context_words"] = _Context(recognizer.context_words, notes)
    return twin


def _noting_check(check: Callable[[str], bool], notes: Notes) -> Callable[[str], bool]:
    def noting(value: str) -> bool:
        accepted = check(value)
        notes.seen[-1].check = accepted
        return accepted

    return noting


class _Pattern:
    """A compiled pattern that notes each match before it is weighed."""

    def __init__(self, recognizer: Recognizer, notes: Notes) -> None:
        self._recognizer = recognizer
        self._notes = notes

    def finditer(self, text: str, *bounds: int) -> Iterator[re.Match[str]]:
        """As `re.Pattern.finditer`."""
        for match in self._recognizer.compiled.finditer(text, *bounds):
            group = self._recognizer.group
            if group and match[group] is None:
                group = "q"
            self._notes.seen.append(Seen(self._recognizer, match.string, *match.span(group)))
            yield match


class _Context:
    """Context words that note which of them stood there."""

    def __init__(self, words: Words, notes: Notes) -> None:
        self._words = words
        self._notes = notes

    def mentioned(self, _text: str) -> bool:
        """What is not even looked at for want of a word has to be told about too."""
        return True

    def within(self, text: str) -> bool:
        """As `Words.within`."""
        found = self._words.within(text)
        if found:
            self._notes.seen[-1].context = _word(self._words, text)
        return found


def _word(words: Words, text: str) -> str:
    """The last word of `words` that stands in `text`: the shortest piece that still holds one."""
    if not words.within(text):
        return ""
    first = max(i for i in range(len(text)) if words.within(text[i:]))
    last = next(i for i in range(first, len(text) + 1) if words.within(text[first:i]))
    return text[first:last]
