"""Precision, recall, F1, F2 and leaked characters against labelled text. PURE.

Gold record: `{"id", "text", "spans": [{"start", "end", "type", "alt"?: [types]}],
"scope"?: "all" | [types], "ignore"?: [[start, end]]}`; offsets in code points, end exclusive.

Rules: a gold span counts as found when findings of its type (or an `alt` type) cover at least half
of it, together; a finding counts as right when at least half of it lies in gold spans of its type.
A finding whose type is not in the record's scope, or half of which lies in an ignored region,
counts neither way. Leaked characters are those of gold spans, white space aside, that no finding
of any type covers.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from compliance.findings import Finding

__all__ = ["Evaluation", "Row"]

HALF = 0.5


@dataclass(slots=True)
class Row:
    """Counts for one type, or for all."""

    gold: int = 0
    found: int = 0
    predicted: int = 0
    right: int = 0
    characters: int = 0
    leaked: int = 0

    @property
    def precision(self) -> float:
        """Share of findings that are right; 0 without any."""
        return self.right / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        """Share of gold spans that were found; 0 without any."""
        return self.found / self.gold if self.gold else 0.0

    @property
    def leak(self) -> float:
        """Share of gold characters that nothing covers."""
        return self.leaked / self.characters if self.characters else 0.0

    def f(self, beta: float) -> float:
        """F-measure that weighs recall `beta` times as much as precision."""
        p, r, square = self.precision, self.recall, beta * beta
        return (1 + square) * p * r / (square * p + r) if p + r else 0.0

    def summary(self) -> dict[str, float]:
        """All of it by name, rounded to four digits."""
        figures = {
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f(1),
            "f2": self.f(2),
            "leak": self.leak,
        }
        return asdict(self) | {name: round(value, 4) for name, value in figures.items()}


def _cover(size: int, spans: Iterable[tuple[int, int]]) -> bytearray:
    covered = bytearray(size)
    for start, end in spans:
        covered[start:end] = b"\1" * (end - start)
    return covered


def _half(covered: bytearray, start: int, end: int) -> bool:
    return sum(covered[start:end]) >= (end - start) * HALF


@dataclass
class Evaluation:
    """Adds up records, one at a time."""

    total: Row = field(default_factory=Row)
    types: defaultdict[str, Row] = field(default_factory=lambda: defaultdict(Row))

    def add(self, record: Mapping[str, Any], findings: Sequence[Finding]) -> None:
        """Count one record and what was found in its text.

        Raises:
            KeyError, TypeError: the record is not as the module's docstring says.
        """
        size = len(record["text"])
        by_type: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for finding in findings:
            by_type[finding.type].append((finding.start, finding.end))
        self._count_gold(record, by_type)
        gold: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for span in record["spans"]:
            for kind in (span["type"], *span.get("alt", ())):
                gold[kind].append((span["start"], span["end"]))
        ignored = _cover(size, ((a, b) for a, b in record.get("ignore", ())))
        scope = record.get("scope", "all")
        for kind, spans in by_type.items():
            here = _cover(size, gold[kind])
            for start, end in spans:
                right = _half(here, start, end)
                judged = (scope == "all" or kind in scope) and not _half(ignored, start, end)
                for row in (self.total, self.types[kind]) if right or judged else ():
                    row.predicted += 1
                    row.right += right

    def _count_gold(
        self, record: Mapping[str, Any], by_type: Mapping[str, list[tuple[int, int]]]
    ) -> None:
        text = record["text"]
        anything = _cover(len(text), (span for spans in by_type.values() for span in spans))
        for span in record["spans"]:
            start, end = span["start"], span["end"]
            kinds = {span["type"], *span.get("alt", ())}
            same = _cover(len(text), (s for kind in kinds for s in by_type.get(kind, ())))
            places = [i for i in range(start, end) if not text[i].isspace()]
            for row in (self.total, self.types[span["type"]]):
                row.gold += 1
                row.found += _half(same, start, end)
                row.characters += len(places)
                row.leaked += sum(not anything[i] for i in places)
