"""What was measured, told three ways: a table for people, JSON for programs, a picture. PURE."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["SCHEMA", "Row", "markdown", "report_json"]

SCHEMA = "sealgate/precision-report/v1"
_MB = 1e6
_COLUMNS = (
    "variant",
    "perplexity",
    "against the original",
    "agreement",
    "KL, nats",
    "file",
    "in memory",
    "of a GPU, reading and decoding",
    "prefill, tokens/s",
    "decode, tokens/s",
    "timed",
    "served by",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A variant's figures. The first row of a report is the original itself.

    precision: its name. agreement: share of positions. divergence: nats. timed: what ran when
        speed was measured; empty if it was not.
    """

    name: str
    precision: str
    perplexity: float
    agreement: float
    divergence: float
    file_bytes: int
    memory_bytes: int
    prefill_per_s: float
    decode_per_s: float
    served: str
    timed: str = ""
    peak_bytes: int = 0

    def against(self, original: Row) -> float:
        """How much perplexity rose over the original's: 0.01 is one per cent."""
        return self.perplexity / original.perplexity - 1


def report_json(rows: list[Row], about: dict[str, Any]) -> dict[str, Any]:
    """Tell all figures, unrounded; `about` says of what text, device and libraries."""
    return {
        "schema": SCHEMA,
        **about,
        "variants": [asdict(row) | {"perplexity_rise": row.against(rows[0])} for row in rows],
    }


def markdown(rows: list[Row], about: dict[str, Any]) -> str:
    """Tell the figures as a table, and under it where they come from."""
    head = [f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]
    lines = [
        f"| {row.name} | {row.perplexity:.3f} | {row.against(rows[0]):+.1%} | {row.agreement:.1%} "
        f"| {row.divergence:.4f} | {_mb(row.file_bytes)} | {_mb(row.memory_bytes)} "
        f"| {_mb(row.peak_bytes)} "
        f"| {_rate(row.prefill_per_s, row)} | {_rate(row.decode_per_s, row)} "
        f"| {row.timed} | {row.served} |"
        for row in rows
    ]
    told = ", ".join(f"{key} {value}" for key, value in about.items())
    return "\n".join([*head, *lines, "", f"Measured: {told}.", ""])


def _mb(size: int) -> str:
    return f"{size / _MB:,.0f} MB" if size else ""


def _rate(per_s: float, row: Row) -> str:
    if per_s:
        return f"{per_s:,.0f}"
    return "cannot" if row.timed else "not timed"
