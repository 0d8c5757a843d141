"""How much to measure, and where."""

from __future__ import annotations

from dataclasses import dataclass

MEMORY_CALLS = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One invocation of the bench. Everything is bounded by it."""

    wanted: frozenset[str]
    """Names of figures."""
    quick: bool = False
    """Smoke: every part runs, no number means anything."""
    profile: str | None = None
    """A figure whose server py-spy watches."""
    memory_calls_max: int = MEMORY_CALLS

    @property
    def pairs(self) -> int:
        """Interleaved pairs a figure."""
        return 2 if self.quick else 7

    @property
    def burst_s(self) -> float:
        """Length of one half of a pair."""
        return 0.2 if self.quick else 2.0

    @property
    def latency_calls(self) -> int:
        """Calls, one at a time, in one half of a pair: enough that its p99 is not its maximum."""
        return 20 if self.quick else 300

    @property
    def micro_s(self) -> float:
        """Time for one repeat of an in-process measurement."""
        return 0.02 if self.quick else 0.5

    @property
    def memory_calls(self) -> int:
        """Calls between two looks at memory: `--memory-calls`, 100,000 for the published figure."""
        return min(self.memory_calls_max, 300) if self.quick else self.memory_calls_max

    def wants(self, *names: str) -> bool:
        """Whether any of these figures is asked for."""
        return not self.wanted.isdisjoint(names)

    def profiles(self, *names: str) -> bool:
        """Whether the profile asked for is of one of these figures."""
        return self.profile in names
