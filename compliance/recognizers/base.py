r"""What a recognizer is: data, and perhaps a function that checks what the pattern caught. PURE.

A recognizer is one `Recognizer(...)` in one of the lists beside this module; nothing else has to
change to add one. Patterns see folded text (`compliance.normalise`) in windows of bounded size:

- no `\b`, which fails beside Chinese characters: boundaries are ASCII classes, `NOT_BEFORE` and
  `NOT_AFTER` below;
- a group named `v` marks the value; without one the whole match is the value;
- bounded repeats only, no nested ones: time must be linear in the window.

Scores: `score` is (alone, with a context word near by). `rejected` is the same for a value that
the `check` turns down; (0, 0) drops it. A checksum raises confidence; where context suffices, a
failed one does not veto. A word such as "order" or "version" before a value without context takes
`VETO` off, unless `veto=False` says that the format is unmistakable.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "CONTEXT_AFTER",
    "CONTEXT_BEFORE",
    "NOT_AFTER",
    "NOT_BEFORE",
    "RUN",
    "RUN_DIGITS_MIN",
    "VETO",
    "VETO_BEFORE",
    "VETO_WORDS",
    "Expression",
    "Recognizer",
    "Stage",
    "Words",
    "identifier",
    "labelled",
]

CONTEXT_BEFORE = 48
"""Characters before a value in which a context word counts."""
CONTEXT_AFTER = 24
"""Characters behind a value in which a context word counts."""
VETO_BEFORE = 28
VETO = 0.5

NOT_BEFORE = r"(?<![A-Za-z0-9])"
NOT_AFTER = r"(?![A-Za-z0-9])"

RUN_DIGITS_MIN = 8
"""Digits that make a run worth classifying: a short phone number has eight."""
RUN = re.compile(rf"[0-9](?:[ \-./()]{{0,2}}[0-9]){{{RUN_DIGITS_MIN - 1},}}", re.ASCII)

_LOOK_BEFORE = re.compile(r"^\(\?<!\[([^\]]+)\]\)")
_LOOK_AFTER = re.compile(r"\(\?!\[([^\]]+)\](?:\|[^()]*)?\)$")

NO_NUMBER_BEFORE = r"(?<![0-9][.\-/])"
NO_NUMBER_AFTER = r"(?![A-Za-z0-9]|[.\-/][0-9])"

FLAGS = re.ASCII | re.IGNORECASE


class Stage(IntEnum):
    """Which texts the prefilter looks for an expression in."""

    ALL = 0
    SHORT = 1
    """Those with a digit."""
    NUMBERS = 2
    """None: runs of digits, as `RUN` has them, are told by their shape (`compliance.shapes`)."""


class Expression(NamedTuple):
    """A pattern for the prefilter, in Python's syntax, and whether case matters in it."""

    pattern: str
    case: bool
    stage: Stage = Stage.ALL


def _or_start(found: re.Match[str]) -> str:
    """Say `(?<![x])` without looking around: hyperscan cannot."""
    return f"(?:^|[^{found[1]}])"


def _or_end(found: re.Match[str]) -> str:
    return f"(?:$|[^{found[1]}])"


class Words:
    """Words to look for near a value: Latin ones stand alone, Chinese ones anywhere.

    words: in lower case. Plain substring search comes first: it is ten times faster than one
    pattern of all the words, and mostly there is none of them.
    """

    def __init__(self, *words: str) -> None:
        self._latin = tuple(word for word in words if word.isascii())
        self._other = tuple(word for word in words if not word.isascii())
        latin = "|".join(re.escape(word) for word in self._latin)
        self._alone = re.compile(rf"(?<![a-z])(?:{latin})(?![a-z])", re.ASCII)

    def mentioned(self, text: str) -> bool:
        """Whether any of them stands in lower-case `text`, perhaps in another word."""
        for word in self._latin:
            if word in text:
                return True
        return any(word in text for word in self._other)

    def within(self, text: str) -> bool:
        """Whether any of the words stands in `text`, which must be in lower case."""
        for word in self._other:
            if word in text:
                return True
        for word in self._latin:
            if word in text:
                return self._alone.search(text) is not None
        return False


VETO_WORDS = Words(
    *("order", "order no", "tracking", "shipment", "parcel", "invoice", "isbn", "issn", "doi"),
    *("version", "build", "commit", "ticket", "sku", "part no", "serial", "model", "uuid"),
    *("checksum", "hash", "timestamp", "epoch", "row", "bytes", "revision", "release", "asin"),
    *("issue", "job id", "request id", "trace id", "batch", "lot", "port", "pid", "error code"),
    *("订单", "单号", "快递", "运单", "物流", "版本", "型号", "编译", "发票", "流水号", "货号"),
    *("时间戳", "批号", "序列号", "工单", "合同编号", "条形码", "书号"),
    *("条码", "会议号", "會議號", "訂單", "單號"),
)


@dataclass(frozen=True, kw_only=True)
class Recognizer:
    """One kind of thing to find.

    name: unique; appears in findings. source: standard or issuer's rule the pattern rests on.
    digits: (least, most) digits of a value that is a run of digits with single separators. Such
        patterns are tried only inside digit runs, which are found once for all of them, and only
        where the run's shape allows. They take no `hint`.
    hint: a cheaper pattern that occurs in every text that `pattern` matches in, for the prefilter
        alone; empty: the pattern itself.
    tight: whether the prefilter minds the boundaries at both ends of the pattern, and looks only
        at texts with a digit: for short patterns of letters and digits, which else are in every
        longer one.
    case: whether upper and lower case differ in the pattern.
    """

    name: str
    type: str
    subtype: str
    pattern: str
    source: str
    score: tuple[float, float]
    rejected: tuple[float, float] = (0.0, 0.0)
    check: Callable[[str], bool] | None = None
    context: tuple[str, ...] = ()
    veto: bool = True
    digits: tuple[int, int] | None = None
    hint: str = ""
    tight: bool = False
    case: bool = True
    flags: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "flags", re.ASCII if self.case else FLAGS)

    @property
    def expression(self) -> Expression:
        """What the prefilter looks for: it occurs wherever `pattern` matches."""
        if self.digits is not None:
            return Expression(self.pattern, self.case, Stage.NUMBERS)
        if not self.tight:
            return Expression(self.hint or self.pattern, self.case)
        pattern = _LOOK_AFTER.sub(_or_end, _LOOK_BEFORE.sub(_or_start, self.pattern))
        return Expression(self.hint or pattern, self.case, Stage.SHORT)

    @cached_property
    def compiled(self) -> re.Pattern[str]:
        """The pattern, ready to search."""
        return re.compile(self.pattern, self.flags)

    @cached_property
    def group(self) -> str | int:
        """Which group of a match is the value."""
        return "v" if "v" in self.compiled.groupindex else 0

    @cached_property
    def needs_words(self) -> bool:
        """Whether nothing is found without a context word."""
        return bool(self.context) and self.score[0] == 0.0 == self.rejected[0]

    @cached_property
    def context_words(self) -> Words | None:
        """The context words, ready to look for."""
        return Words(*self.context) if self.context else None


def identifier(name: str, subtype: str, body: str, source: str, **more: Any) -> Recognizer:  # noqa: ANN401 -- any field of Recognizer
    """Return an identifier with a form of its own, of at most a few dozen characters.

    body: the pattern without boundaries. A body of digits (`digits` given) alone is found only by
    its context, unless `score` says otherwise; a failed checksum beside a label is still found,
    since people mistype numbers and models make them up.
    """
    number = more.get("digits") is not None
    before = NOT_BEFORE + (NO_NUMBER_BEFORE if number else "")
    fields: dict[str, Any] = {
        "type": "NATIONAL_ID",
        "score": (0.3, 0.95) if number else (0.85, 0.95),
        "rejected": (0.0, 0.6) if more.get("context") else (0.0, 0.0),
        "tight": True,
    }
    pattern = f"{before}(?:{body}){NO_NUMBER_AFTER if number else NOT_AFTER}"
    fields |= {"name": name, "subtype": subtype, "pattern": pattern, "source": source}
    return Recognizer(**fields | more)


def labelled(name: str, subtype: str, label: str, value: str, **more: Any) -> Recognizer:  # noqa: ANN401 -- any field of Recognizer
    """Return what only its label tells: `label`, at most a few words, then `value`.

    label: alternatives in lower case; Latin ones must not continue a word. value: the pattern.
    """
    pattern = (
        rf"(?:{label})(?![a-zà-ÿ])(?: ?(?:no|nr|num|number|nummer|n[°º]|id|code|card)(?![a-z])\.?)?"
        rf"(?: (?:is|was|ist|est|es|è|:))?[ :#=\-(为是]{{0,4}}(?P<v>{value}){NOT_AFTER}"
    )
    fields: dict[str, Any] = {
        "type": "NATIONAL_ID",
        "score": (0.85, 0.9),
        "case": False,
        "veto": False,
        "hint": label,
    }
    return Recognizer(**fields | {"name": name, "subtype": subtype, "pattern": pattern} | more)
