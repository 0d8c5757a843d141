"""Two engines side by side on the same prompts: answers, speed, memory. PURE."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import takewhile
from statistics import median
from typing import Any

__all__ = ["Answered", "Comparison", "Ran"]

_MIB = 1 << 20
_MS_PER_S = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One answer. first_s: to its first text; rest_s: from there to the end; both in seconds."""

    text: str
    tokens: int
    first_s: float
    rest_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What one engine did with all prompts, in a process of its own.

    memory_bytes: the most that the process held, its weights included.
    """

    name: str
    precision: str
    format: str
    load_s: float
    memory_bytes: int
    answers: tuple[Answered, ...]

    @classmethod
    def told(cls, told: dict[str, Any]) -> Ran:
        """Read it from JSON. Raises TypeError or KeyError."""
        answers = tuple(Answered(**answer) for answer in told.pop("answers"))
        return cls(**told, answers=answers)

    @property
    def first_ms(self) -> float:
        """Median time to the first text."""
        return median(answer.first_s for answer in self.answers) * _MS_PER_S

    @property
    def tokens_per_s(self) -> float:
        """Median rate behind the first token, of answers that have one."""
        rates = [a.tokens - 1 for a in self.answers if a.tokens > 1 and a.rest_s > 0]
        times = [a.rest_s for a in self.answers if a.tokens > 1 and a.rest_s > 0]
        return median(n / s for n, s in zip(rates, times, strict=True)) if rates else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A against B: the same prompts, greedily, so that each difference is the engines'."""

    a: Ran
    b: Ran

    @property
    def same(self) -> float:
        """Share of answers that are equal to the letter."""
        pairs = list(zip(self.a.answers, self.b.answers, strict=True))
        return sum(x.text == y.text for x, y in pairs) / len(pairs)

    @property
    def agreement(self) -> float:
        """Mean share of an answer up to the first difference: all that follows hangs on it."""
        shares = []
        for x, y in zip(self.a.answers, self.b.answers, strict=True):
            longest = max(len(x.text), len(y.text))
            shares.append(_common(x.text, y.text) / longest if longest else 1.0)
        return sum(shares) / len(shares)

    def as_json(self) -> dict[str, Any]:
        """Return figures and answers."""
        sides = {
            side: asdict(ran) | {"first_ms": ran.first_ms, "tokens_per_s": ran.tokens_per_s}
            for side, ran in (("a", self.a), ("b", self.b))
        }
        return {
            "prompts": len(self.a.answers),
            "same": self.same,
            "agreement": self.agreement,
        } | sides

    def as_table(self) -> str:
        """Return lines to read."""
        wide = max(len(self.a.name), len(self.b.name), 5)
        head = f"   {'model':{wide}} {'format':12} {'first token':>12} {'tokens/s':>9}"
        lines = [f"{head} {'memory':>10} {'loaded in':>10}"]
        for side, ran in (("A", self.a), ("B", self.b)):
            lines.append(
                f"{side:2} {ran.name:{wide}} {ran.format:12} {ran.first_ms:9.0f} ms "
                f"{ran.tokens_per_s:9.1f} {ran.memory_bytes / _MIB:6.0f} MiB {ran.load_s:8.1f} s"
            )
        lines.append(
            f"{len(self.a.answers)} prompts: {self.same:.0%} of answers equal, "
            f"{self.agreement:.0%} of their text up to the first difference"
        )
        return "\n".join(lines)


def _common(one: str, other: str) -> int:
    """How many characters two texts have in common, from their beginning on."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
