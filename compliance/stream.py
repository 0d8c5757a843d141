r"""Cut text into segments, at places that depend on the text alone. PURE.

    Contact Ada Lovelace at ada@example.org today. She lives in …
    |--------------- segment ---------------------| |-- next -- …
                                     |-- context --| core

A segment is scanned as a window: up to `CONTEXT` characters that stand before it, then its own.
Findings are a function of the window, windows are a function of the text, so for any split of a
text into chunks the findings are the same, and so is what may be released.

Where a segment ends (first rule that applies, s being where it starts):

1. A block mark is a segment of its own: a PEM private key from its BEGIN line, an unbroken run of
   Base64 from its first character. All of the block, until END line or end of run, goes with it,
   and nothing but the mark is kept while the block lasts. Text before a mark ends where it begins.
2. From s + 24 on: behind a full-width full stop, question or exclamation mark, or a blank line.
   From s + 48 on: behind a line break, or behind `.!?` and white space after a word.
3. From s + 160 on: behind a space between lower-case words, or behind a comma, colon or semicolon.
   No place of rules 2 and 3 is within a number that goes on behind a line break or markup, between
   digits that are spelled out, or beside the "at" or "dot" of a spelled address.
4. s + 512, moved so that no pattern's match crosses it; decided once 512 more characters are known.

A cut by rule 2 or 3 waits for `LOOKAHEAD` more characters, so that no earlier place can turn out to
be one as well. At most `HOLDBACK_MAX` characters are ever held, and of ordinary prose the length of
a sentence or two.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["CONTEXT", "HOLDBACK_MAX", "Kind", "Segmenter", "Window", "windows"]

CONTEXT = 64
"""Characters before a segment that may bear on its findings."""
SEGMENT_MAX = 512
HOLDBACK_MAX = 2 * SEGMENT_MAX
"""Characters held at most, short of one chunk; reached only where rules 1 to 3 find nothing."""
STRONG_MIN = 24
SENTENCE_MIN = 48
WEAK_MIN = 160
_LOOK_EVERY = 16
"""Characters to wait for before looking for a cut again; affects when, never where."""
LOOKAHEAD = 8
"""No rule looks further behind a place than this to tell whether it is one."""
_LOOK_BACK = 16
SLICE = 4096
"""A long chunk is taken in slices of this size, so that time stays linear."""
BASE64_RUN = 256

# Each begins with one class of characters, which `re` finds fast; what stands around is asked then.
_STRONG = re.compile(
    r"[。！？…\n](?:(?<=[。！？…])(?=[^。！？…”’」』）\"')])|(?<=\n)[ \t]{0,4}\n(?=[^\n]))"
)
_SENTENCE = re.compile(
    r"[\n.!?](?:(?<=[^0-9]\n)(?=[^\n])|(?<=\n)(?=[^\n0-9])"
    r"|(?<=[a-z)\]\"'%’][a-z)\]\"'%’][.!?])['\")\]’”]{0,3}\s(?=\S))"
)
_WEAK = re.compile(
    r"[\s，、；：](?:(?<=[a-z]{2} )(?=[a-z]{2})|(?<=[A-Za-z一-鿿][,;:]\s)(?=\S)"
    r"|(?<=[一-鿿][，、；：])(?=[一-鿿]))"
)
_MAY_END = re.compile(r"[。！？…\n.!?]")
"""What stands at every place of rule 2."""
_GAP = "[\\s*_`~|>()\\-./·•\u200b-\u200f\u2060\ufeff]"
_DIGIT_WORD = "(?:zero|oh|one|two|three|four|five|six|seven|eight|nine|double|triple)"
_NOT_WITHIN = tuple(
    (re.compile(rf"(?:{before})\Z", re.IGNORECASE), re.compile(after, re.IGNORECASE))
    for before, after in (
        (f"[0-9]{_GAP}{{1,10}}", f"{_GAP}{{0,6}}(?:[0-9]|x(?![a-z]))"),
        (rf"(?<![a-z]){_DIGIT_WORD}[ ,.\-_/\n]{{1,3}}", rf" ?(?:{_DIGIT_WORD}|[0-9])"),
        (r"(?:[ _\-](?:at|dot)|@|艾特|点)[ _\-]|[a-z0-9]。", "[a-z0-9]"),
        ("[a-z0-9] ", r"(?:at|dot|@|艾特|点|\.)[ \[(a-z0-9]"),
        (r"=\r?\n", "[a-z0-9=]"),
    )
)
"""What ends before a place and what begins behind it, where a value would be taken apart."""
_RUN = r"A-Za-z0-9+/_\-"
_MARK = re.compile(
    r"(?P<pem>-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----)"
    rf"|(?<![{_RUN}])(?=[{_RUN}]{{{BASE64_RUN}}})"
)
_PEM_MARK_MAX = 96
_PEM_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_RUN_END = re.compile(rf"[^{_RUN}=]")
_NOT_SPACE_NOR_DIGIT = re.compile(r"\s(?![0-9])")
_CASES = (re.compile(r"[a-z]"), re.compile(r"[A-Z]"), re.compile(r"[0-9]"))


class Kind(Enum):
    """What a window is."""

    TEXT = "text"
    PEM = "pem"
    """The opening mark of a private key; the block it opens is longer."""
    BASE64 = "base64"
    """The first characters of an unbroken Base64 run; the run is longer."""
    REST = "rest"
    """More of the block that the window before opened: no text in it is ever let out."""


@dataclass(frozen=True, slots=True)
class Window:
    """A segment and what stands before it.

    start, end: where the segment lies in the whole text, in code points. For PEM and BASE64 the
        mark's; each REST extends the block.
    core: offset in `text` at which the segment begins. `text` is empty for REST.
    """

    kind: Kind
    start: int
    end: int
    text: str
    core: int


class Segmenter:
    """Feed chunks, get windows; the windows of a text do not depend on its chunks.

    crossing: given text, the spans that patterns match in it; asked only by rule 4.
    """

    def __init__(self, crossing: Callable[[str], Iterable[tuple[int, int]]]) -> None:
        self._crossing = crossing
        self._held = ""
        self._context = ""
        self._start = 0
        self._look_at = STRONG_MIN + 1
        self._sure_at = 0
        """How much must be held to be sure of a cut that was found; 0 while none was."""
        self._block: Kind | None = None

    @property
    def held(self) -> int:
        """Characters taken in but not yet part of a window."""
        return len(self._held)

    @property
    def wants(self) -> int:
        """Characters with fewer of which `feed` returns nothing: 1 or more."""
        return max(1, self._look_at - len(self._held))

    def feed(self, chunk: str) -> list[Window]:
        """Take a chunk; return the windows that are now complete. A few us, if there are none."""
        if len(chunk) > SLICE:
            slices = (chunk[i : i + SLICE] for i in range(0, len(chunk), SLICE))
            return [window for piece in slices for window in self.feed(piece)]
        self._held += chunk
        if len(self._held) < self._look_at:
            return []
        if self._nothing_ends():
            self._look_at = len(self._held) + _LOOK_EVERY
            return []
        return self._advance(final=False)

    def close(self) -> list[Window]:
        """Say that the text has ended; return what is left."""
        return self._advance(final=True)

    def _advance(self, *, final: bool) -> list[Window]:
        out: list[Window] = []
        self._sure_at = 0
        while self._held:
            if self._block is not None:
                if not self._skip_block(out, final=final):
                    break
                continue
            cut, kind = self._cut(final=final)
            if cut == 0:
                break
            self._emit(out, cut, kind)
        look_at = self._sure_at or max(STRONG_MIN + 1, len(self._held) + _LOOK_EVERY)
        self._look_at = 1 if self._block else min(look_at, HOLDBACK_MAX)
        return out

    def _nothing_ends(self) -> bool:
        """Whether `_advance` would surely find nothing yet; cheaper than to have it look."""
        held = self._held
        if len(held) >= WEAK_MIN or self._block is not None:
            return False
        return _MAY_END.search(held, STRONG_MIN) is None and "-----BEGIN " not in held

    def _emit(self, out: list[Window], cut: int, kind: Kind) -> None:
        text, self._held = self._held[:cut], self._held[cut:]
        context = self._context
        out.append(Window(kind, self._start, self._start + cut, context + text, len(context)))
        self._start += cut
        if kind is Kind.TEXT:
            self._context = (context + text)[-CONTEXT:]
        else:
            # What a block held must not stand as context either.
            self._context = ""
            self._block = kind

    def _skip_block(self, out: list[Window], *, final: bool) -> bool:
        """Drop what belongs to the open block; return whether its end was seen."""
        pattern = _PEM_END if self._block is Kind.PEM else _RUN_END
        found = pattern.search(self._held)
        if found is not None:
            size = found.end() if self._block is Kind.PEM else found.start()
            self._block = None
        elif self._block is Kind.PEM and not final:
            # Keep as much as a split END line can have brought so far.
            size = max(0, len(self._held) - _PEM_MARK_MAX)
        else:
            size = len(self._held)
        if size:
            out.append(Window(Kind.REST, self._start, self._start + size, "", 0))
        self._held = self._held[size:]
        self._start += size
        return found is not None

    def _cut(self, *, final: bool) -> tuple[int, Kind]:
        """How long the next segment is, and of what kind; 0 if more text must come first."""
        held = self._held
        cut = _natural_cut(held)
        mark = _first_mark(held, cut or SEGMENT_MAX)
        if mark is not None:
            begin, end, kind = mark
            return (begin, Kind.TEXT) if begin else (end, kind)
        if cut:
            if final or len(held) >= cut + LOOKAHEAD:
                return cut, Kind.TEXT
            self._sure_at = cut + LOOKAHEAD
            return 0, Kind.TEXT
        if len(held) >= HOLDBACK_MAX:
            return self._forced_cut(held), Kind.TEXT
        if final:
            size = len(held) if len(held) <= SEGMENT_MAX else self._forced_cut(held)
            return size, Kind.TEXT
        return 0, Kind.TEXT

    def _forced_cut(self, held: str) -> int:
        """Rule 4: at white space where there is some, and through no match of a pattern."""
        seen = held[:HOLDBACK_MAX]
        spaces = [m.start() for m in _NOT_SPACE_NOR_DIGIT.finditer(seen, WEAK_MIN, SEGMENT_MAX)]
        cut = spaces[-1] if spaces else SEGMENT_MAX
        for start, end in sorted(self._crossing(seen)):
            if start < cut < end:
                cut = start if start > 0 else end
        return min(cut, len(held))


def _natural_cut(held: str) -> int:
    """Rules 2 and 3: where the segment that `held` starts with ends; 0 if nowhere yet.

    The rules compete: the earliest place wins, and whether a place is one depends on the character
    before it and the one behind it, so text still to come cannot change the answer.
    """
    place = 0
    # The loosest rule first: it bounds how far the others have to look.
    for pattern, least in ((_WEAK, WEAK_MIN), (_SENTENCE, SENTENCE_MIN), (_STRONG, STRONG_MIN)):
        end = place + LOOKAHEAD if place else SEGMENT_MAX
        found = pattern.search(held, least, end)
        while found is not None and _within_value(held, found.end()):
            found = pattern.search(held, found.end(), end)
        if found is not None and (place == 0 or found.end() < place):
            place = found.end()
    return place


def _within_value(held: str, place: int) -> bool:
    """Whether a cut here would go through a number or an address that is written oddly."""
    before, after = held[max(0, place - _LOOK_BACK) : place], held[place : place + LOOKAHEAD]
    # A loop, and the cheaper half first: this is asked of every sentence.
    for ahead, behind in _NOT_WITHIN:
        if behind.match(after) is not None and ahead.search(before) is not None:
            return True
    return False


def _first_mark(held: str, limit: int) -> tuple[int, int, Kind] | None:
    """The first block mark that begins before `limit`: where it begins and ends, and its kind."""
    end = limit + BASE64_RUN
    if not ("-----BEGIN " in held[:end] or _may_hold_run(held, end)):
        return None
    for found in _MARK.finditer(held, 0, end):
        begin = found.start()
        if begin >= limit:
            return None
        if found["pem"] is not None:
            return begin, found.end(), Kind.PEM
        sample = held[begin : begin + BASE64_RUN]
        if all(case.search(sample) for case in _CASES):
            return begin, begin + BASE64_RUN, Kind.BASE64
    return None


def _may_hold_run(held: str, end: int) -> bool:
    """Whether a run of `BASE64_RUN` characters may lie in `held[:end]`; cheap, and may err to True.

    Such a run covers a place that is a multiple of its length, and half its length to one side.
    """
    half = BASE64_RUN // 2
    for place in range(BASE64_RUN - 1, min(end, len(held)), BASE64_RUN):
        for side in (held[place - half + 1 : place + 1], held[place : place + half]):
            if " " not in side and side.isascii():
                return True
    return False


def windows(text: str, crossing: Callable[[str], Iterable[tuple[int, int]]]) -> list[Window]:
    """All windows of a whole text, in order."""
    segmenter = Segmenter(crossing)
    return [*segmenter.feed(text), *segmenter.close()]
