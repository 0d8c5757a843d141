"""What was found, and which of two findings in one place stands. PURE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["TYPES", "Finding", "resolve"]

TYPES = frozenset(
    {
        "BANK_ACCOUNT",
        "CN_RESIDENT_ID",
        "CREDIT_CARD",
        "DATE_OF_BIRTH",
        "EMAIL",
        "IBAN",
        "INJECTION",
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
"""Every entity type that a policy may name."""

SURE = 0.9
"""From this score on a checksum, an issuer's prefix or a label vouches for a finding."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A span of text that is probably personal data or a secret.

    start, end: code points, end exclusive. score: 0 to 1. recognizer: who found it.
    """

    type: str
    subtype: str
    start: int
    end: int
    score: float
    recognizer: str


def resolve(findings: Iterable[Finding]) -> list[Finding]:
    """Choose among findings that overlap; return them disjoint and in order of `start`.

    Sure ones (score >= 0.9) win over the rest, secrets and marks of an injection over other types,
    the longer over the shorter, then the higher score, then the first by start and name: a total
    order, so the result depends on the set alone. An injection that is not sure comes last: it must
    not hide personal data within it.
    """
    ranked = sorted(findings, key=_rank)
    kept: list[Finding] = []
    for finding in ranked:
        if all(finding.end <= other.start or other.end <= finding.start for other in kept):
            kept.append(finding)
    kept.sort(key=lambda finding: finding.start)
    return kept


def _rank(finding: Finding) -> tuple[bool, bool, bool, int, float, int, str]:
    return (
        finding.type == "INJECTION" and finding.score < SURE,
        finding.score < SURE,
        finding.type not in {"SECRET", "INJECTION"},
        finding.start - finding.end,
        -finding.score,
        finding.start,
        finding.recognizer,
    )
