"""From tokens to text that may be shown: whole characters, nothing of a stop sequence. PURE."""

from __future__ import annotations

import codecs
from dataclasses import dataclass

__all__ = ["EACH_TOKEN", "Pieces", "StopScan", "Utf8"]


@dataclass(frozen=True, slots=True)
class Pieces:
    """How text is handed over: the first token's at once, then that of so many, or so much time."""

    tokens: int
    seconds: float


EACH_TOKEN = Pieces(1, 0.0)


class Utf8:
    """Bytes in, complete characters out.

    A token may hold part of a character (an emoji is often three or four tokens); those bytes wait
    for the rest. Bytes that can begin no character become U+FFFD, as every UTF-8 decoder has it.
    What is incomplete at the end is dropped.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, raw: bytes) -> str:
        """Add bytes; return the characters they complete."""
        return self._decoder.decode(raw)


class StopScan:
    """Cuts text at the first stop sequence, across any division into pieces.

    Holds back the longest end that may yet become a stop sequence, and no more.
    """

    def __init__(self, stop: tuple[str, ...]) -> None:
        self._stop = tuple(text for text in stop if text)
        self._held = ""

    def feed(self, piece: str) -> tuple[str, bool]:
        """Add text; return what may be shown, and whether a stop sequence was met.

        Of several sequences met, the one that begins first counts.
        """
        text = self._held + piece
        found = [at for stop in self._stop if (at := text.find(stop)) >= 0]
        # A sequence that begins earlier may still be incomplete: only a later piece can tell, so
        # what is shown ends where it begins.
        held_from = self._suspect(text)
        if found and min(found) <= held_from:
            self._held = ""
            return text[: min(found)], True
        self._held = text[held_from:]
        return text[:held_from], False

    def flush(self) -> str:
        """The text is over: return what was held back, up to a stop sequence that stood in it."""
        text, self._held = self._held, ""
        found = [at for stop in self._stop if (at := text.find(stop)) >= 0]
        return text[: min(found)] if found else text

    def _suspect(self, text: str) -> int:
        """Where the first end begins that is a true prefix of a stop sequence; else the length."""
        longest = max((len(stop) for stop in self._stop), default=1)
        for at in range(max(0, len(text) - longest + 1), len(text)):
            if any(stop.startswith(text[at:]) for stop in self._stop):
                return at
        return len(text)
