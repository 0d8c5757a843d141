"""The counts that an evaluation is made of, and the figures they come to. PURE."""

from __future__ import annotations

from dataclasses import asdict, dataclass

__all__ = ["Alarms", "Row", "Technique", "share"]


@dataclass(slots=True)
class Row:
    """Counts for one type, or one group, or all."""

    gold: int = 0
    found: int = 0
    predicted: int = 0
    right: int = 0
    exact_found: int = 0
    exact_right: int = 0
    missed: int = 0
    characters: int = 0
    leaked: int = 0

    @property
    def precision(self) -> float:
        """Share of findings that are right; 0 without any."""
        return share(self.right, self.predicted)

    @property
    def recall(self) -> float:
        """Share of gold spans that were found; 0 without any."""
        return share(self.found, self.gold)

    @property
    def leak(self) -> float:
        """Share of gold characters that nothing covers."""
        return share(self.leaked, self.characters)

    def f(self, beta: float) -> float:
        """F-measure that weighs recall `beta` times as much as precision."""
        return _f(self.precision, self.recall, beta)

    def summary(self) -> dict[str, float]:
        """All of it by name, rounded to four digits."""
        exact = share(self.exact_right, self.predicted), share(self.exact_found, self.gold)
        figures = {
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f(1),
            "f2": self.f(2),
            "leak": self.leak,
            "exact_f1": _f(*exact, 1),
        }
        return asdict(self) | {name: round(value, 4) for name, value in figures.items()}


@dataclass(slots=True)
class Alarms:
    """What was found in texts that hold nothing to find."""

    texts: int = 0
    flagged: int = 0
    """Texts with a finding of a type in `LABELS`."""
    flagged_any: int = 0
    characters: int = 0
    findings: int = 0

    @property
    def rate(self) -> float:
        """Share of texts with an alarm; 0 without texts."""
        return share(self.flagged, self.texts)

    def summary(self) -> dict[str, float]:
        """All of it by name, rounded to four digits."""
        return asdict(self) | {"rate": round(self.rate, 4)}


@dataclass(slots=True)
class Technique:
    """Spans hidden by one technique, and those that were covered all the same."""

    spans: int = 0
    covered: int = 0

    @property
    def coverage(self) -> float:
        """Share covered; 0 without spans."""
        return share(self.covered, self.spans)

    def summary(self) -> dict[str, float]:
        """All of it by name, rounded to four digits."""
        return asdict(self) | {"coverage": round(self.coverage, 4)}


def share(part: float, whole: float) -> float:
    """Part of a whole; 0 of nothing."""
    return part / whole if whole else 0.0


def _f(precision: float, recall: float, beta: float) -> float:
    square = beta * beta
    if not precision + recall:
        return 0.0
    return (1 + square) * precision * recall / (square * precision + recall)
