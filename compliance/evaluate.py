"""Precision, recall, F1, F2 and leaked characters against labelled text. PURE.

Gold record: `{"id", "text", "spans": [{"start", "end", "type", "alt"?: [types]}], "lang"?,
"source"?, "scope"?: "all" | [types], "ignore"?: [[start, end]], "tags"?: [words]}`; offsets in code
points, end exclusive. Findings may overlap and come from anywhere: several tools are judged alike.

Rules:

1. A gold span counts as found when findings of its type (or an `alt` type) together cover at least
   half of it; a finding counts as right when at least half of it lies in gold spans of its type.
2. A finding that is not right counts as wrong only if its type is in the record's scope and less
   than half of it lies in an ignored region. One whose type is none of `LABELS` never counts as
   wrong; it does cover characters.
3. Exact: same start, end and type.
4. Leaked characters are those of gold spans, blanks and zero-width ones aside, that no finding of
   any type covers; a span is missed when more than half of its characters leak.
5. A record tagged `hard_negative` holds nothing to find: any finding in it is an alarm. It counts
   for no other figure.
6. A record tagged `adversarial` counts as any other does; its first other tag names a technique, of
   which the share of spans that were not missed is told.
7. Masked in vain: the share of characters covered that lie in no gold span and no ignored region,
   over records whose scope is all types and that are not adversarial.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from compliance.measures import Alarms, Row, Technique, share

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["LABELS", "Evaluation", "Spotted"]

LABELS = frozenset(
    {
        "BANK_ACCOUNT",
        "CN_RESIDENT_ID",
        "CREDIT_CARD",
        "DATE_OF_BIRTH",
        "EMAIL",
        "IBAN",
        "IP_ADDRESS",
        "LOCATION",
        "MEDICAL_RECORD",
        "NATIONAL_ID",
        "ORG",
        "PASSPORT",
        "PERSON",
        "PHONE",
        "PLATE",
        "SECRET",
        "URL",
        "US_SSN",
    }
)
"""The types that gold texts are annotated with."""

BLANK = frozenset(" \t\r\n\xa0\u200b\u200c\u200d\ufeff\u2060\xad")
"""Characters that give nothing away when they leak."""

HARD_NEGATIVE, ADVERSARIAL = "hard_negative", "adversarial"


class Spotted(Protocol):
    """What somebody found: `compliance.findings.Finding` is one."""

    @property
    def type(self) -> str:
        """One of `LABELS`, or a name of the finder's own."""

    @property
    def start(self) -> int:
        """First code point."""

    @property
    def end(self) -> int:
        """Behind the last."""


Span = tuple[int, int]


@dataclass
class Evaluation:
    """Adds up records, one at a time."""

    texts: int = 0
    total: Row = field(default_factory=Row)
    by: dict[str, defaultdict[str, Row]] = field(
        default_factory=lambda: {
            name: defaultdict(Row) for name in ("type", "group", "source", "language", "cell")
        }
    )
    """Rows by type, by group (the file), source, language, and `group/type`."""
    alarms: defaultdict[str, Alarms] = field(default_factory=lambda: defaultdict(Alarms))
    """By language, and `ALL`; empty if no record is a hard negative."""
    alarm_types: Counter[str] = field(default_factory=Counter)
    techniques: defaultdict[str, Technique] = field(default_factory=lambda: defaultdict(Technique))
    innocent: int = 0
    """Characters that rule 7 looks at."""
    masked_in_vain: int = 0

    @property
    def types(self) -> defaultdict[str, Row]:
        """Rows by type."""
        return self.by["type"]

    def add(
        self, record: Mapping[str, Any], findings: Sequence[Spotted], *, group: str = "-"
    ) -> None:
        """Count one record and what was found in its text; `group` is where it comes from.

        Raises:
            KeyError, TypeError: the record is not as the module's docstring says.
        """
        marked = _Marked(record, findings)
        self.texts += 1
        tags = record.get("tags", ())
        language = record.get("lang", "-")
        if HARD_NEGATIVE in tags:
            self._count_alarms(marked, language)
            return
        names = {"group": group, "source": record.get("source", "-"), "language": language}
        technique = _technique(tags)
        self._count_gold(marked, names, technique)
        self._count_findings(marked, names)
        if marked.whole and technique is None:
            self.innocent += marked.innocent.count(1)
            self.masked_in_vain += sum(map(int.__and__, marked.innocent, marked.anything))

    def summary(self) -> dict[str, Any]:
        """Every figure, as JSON may hold it."""
        return {
            "texts": self.texts,
            "overall": self.total.summary(),
            "by": {
                name: {key: row.summary() for key, row in sorted(rows.items())}
                for name, rows in self.by.items()
            },
            "hard_negatives": {key: one.summary() for key, one in sorted(self.alarms.items())},
            "alarm_types": dict(self.alarm_types.most_common()),
            "adversarial": {key: one.summary() for key, one in sorted(self.techniques.items())},
            "masked_in_vain": round(share(self.masked_in_vain, self.innocent), 4),
        }

    def covered(self) -> Technique:
        """All techniques together."""
        every = self.techniques.values()
        return Technique(sum(one.spans for one in every), sum(one.covered for one in every))

    def _rows(self, names: Mapping[str, str], kind: str) -> Iterable[Row]:
        yield self.total
        yield self.by["type"][kind]
        yield self.by["cell"][f"{names['group']}/{kind}"]
        for name, key in names.items():
            yield self.by[name][key]

    def _count_alarms(self, marked: _Marked, language: str) -> None:
        alarming = [kind for kind, _ in marked.findings if kind in LABELS]
        self.alarm_types.update(alarming)
        for row in (self.alarms["ALL"], self.alarms[language]):
            row.texts += 1
            row.characters += len(marked.text)
            row.findings += len(alarming)
            row.flagged += bool(alarming)
            row.flagged_any += bool(marked.findings)

    def _count_gold(self, marked: _Marked, names: Mapping[str, str], hidden: str | None) -> None:
        for span in marked.record["spans"]:
            found = marked.found(span)
            for row in self._rows(names, span["type"]):
                row.gold += 1
                row.found += found.found
                row.exact_found += found.exact
                row.missed += found.missed
                row.characters += found.characters
                row.leaked += found.leaked
            if hidden is not None:
                self.techniques[hidden].spans += 1
                self.techniques[hidden].covered += not found.missed

    def _count_findings(self, marked: _Marked, names: Mapping[str, str]) -> None:
        for kind, span in marked.findings:
            right = _half(marked.gold[kind], span)
            if kind not in LABELS or not (right or marked.judged(kind, span)):
                continue
            exact = (kind, span) in marked.exact
            for row in self._rows(names, kind):
                row.predicted += 1
                row.right += right
                row.exact_right += exact


@dataclass(frozen=True, slots=True)
class _Found:
    """What became of one gold span."""

    found: bool
    exact: bool
    missed: bool
    characters: int
    leaked: int


class _Marked:
    """A record with its gold and its findings laid out over the text, a byte a character."""

    def __init__(self, record: Mapping[str, Any], findings: Sequence[Spotted]) -> None:
        self.record = record
        self.text: str = record["text"]
        size = len(self.text)
        spans = {(f.type, (max(0, f.start), min(size, f.end))) for f in findings}
        self.findings = sorted((kind, span) for kind, span in spans if span[0] < span[1])
        by_kind: defaultdict[str, list[Span]] = defaultdict(list)
        for kind, span in self.findings:
            by_kind[kind].append(span)
        self._set = set(self.findings)
        self.same = {kind: _cover(size, covered) for kind, covered in by_kind.items()}
        self.anything = _cover(size, (span for _, span in self.findings))
        self.exact: set[tuple[str, Span]] = set()
        """Findings that are a gold span exactly; filled by `found`."""
        golden: defaultdict[str, list[Span]] = defaultdict(list)
        for span in record["spans"]:
            for kind in _kinds(span):
                golden[kind].append((span["start"], span["end"]))
        self.gold: defaultdict[str, bytearray] = defaultdict(lambda: bytearray(size))
        self.gold.update((kind, _cover(size, spans)) for kind, spans in golden.items())
        self.ignored = _cover(size, ((a, b) for a, b in record.get("ignore", ())))
        self.scope = record.get("scope", "all")

    @property
    def whole(self) -> bool:
        """Whether every type is annotated."""
        return bool(self.scope == "all")

    @property
    def innocent(self) -> bytearray:
        """1 for each character that lies in no gold span and no ignored region."""
        taken = bytearray(self.ignored)
        for span in self.record["spans"]:
            taken[span["start"] : span["end"]] = b"\1" * (span["end"] - span["start"])
        return bytearray(1 - byte for byte in taken)

    def judged(self, kind: str, span: Span) -> bool:
        """Whether a finding that is not right is wrong (rule 2)."""
        return (self.whole or kind in self.scope) and not _half(self.ignored, span)

    def found(self, span: Mapping[str, Any]) -> _Found:
        """Judge one gold span (rules 1, 3, 4)."""
        place = (span["start"], span["end"])
        kinds = _kinds(span)
        covers = [self.same[kind][slice(*place)] for kind in kinds if kind in self.same]
        covered = sum(map(any, zip(*covers, strict=True)))
        exact = any((kind, place) in self._set for kind in kinds)
        if exact:
            self.exact.update((kind, place) for kind in kinds)
        open_places = [i for i in range(*place) if self.text[i] not in BLANK]
        leaked = sum(not self.anything[i] for i in open_places)
        return _Found(
            found=covered * 2 >= place[1] - place[0],
            exact=exact,
            missed=leaked * 2 > len(open_places),
            characters=len(open_places),
            leaked=leaked,
        )


def _kinds(span: Mapping[str, Any]) -> set[str]:
    return {span["type"], *span.get("alt", ())}


def _technique(tags: Sequence[str]) -> str | None:
    if ADVERSARIAL not in tags:
        return None
    return next((tag for tag in tags if tag != ADVERSARIAL), "unnamed")


def _cover(size: int, spans: Iterable[Span]) -> bytearray:
    covered = bytearray(size)
    for start, end in spans:
        covered[start:end] = b"\1" * (end - start)
    return covered


def _half(covered: bytearray, span: Span) -> bool:
    start, end = span
    return sum(covered[start:end]) * 2 >= end - start
