"""When a new version has gone wrong, and what is kept of the old ones. PURE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshkit.contract import PER_WHOLE

if TYPE_CHECKING:
    from inference.release.windows import Compared, Stats

__all__ = ["PER_WHOLE", "Rules", "breach", "drifted"]

_MS_PER_S = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Every limit of a release; `inference.release.settings` documents each as a setting."""

    window_s: float = 600.0
    samples_min: int = 50
    error_rate_max: float = 0.05
    p99_ms_max: float = 0.0
    p99_ratio_max: float = 2.0
    length_ratio_max: float = 2.0
    shadow_samples_min: int = 20
    agreement_min: float = 0.5
    refusal_gap_max: float = 0.1
    canary_percent: int = 10
    canary_replicas: int = 2
    canary_s: float = 48 * 3_600.0
    probation_s: float = 3_600.0
    replica: int = 0
    replicas: int = 1
    keep: int = 3
    keep_loaded: int = 2
    loaded_max: int = 3
    linger_s: float = 5.0


def breach(candidate: Stats, baseline: Stats | None, rules: Rules) -> str:
    """Tell which rule a version breaks: `error_rate`, `p99`, `drift`; empty if none.

    Too few samples break nothing. A fault that the baseline shares is not the candidate's, so what
    is beyond a limit must be worse than the baseline, too. A baseline of too few samples is none.
    """
    if candidate.seen < rules.samples_min:
        return ""
    fair = baseline if baseline is not None and baseline.seen >= rules.samples_min else None
    if candidate.error_rate > rules.error_rate_max and (
        fair is None or candidate.error_rate > fair.error_rate
    ):
        return "error_rate"
    if _slow(candidate, fair, rules):
        return "p99"
    return "drift" if fair is not None and _other_length(candidate, fair, rules) else ""


def _slow(candidate: Stats, fair: Stats | None, rules: Rules) -> bool:
    over = candidate.p99_s * _MS_PER_S > rules.p99_ms_max > 0
    if fair is None or not fair.p99_s:
        return over
    ratio = candidate.p99_s / fair.p99_s
    return (over and ratio > 1) or ratio > rules.p99_ratio_max > 0


def _other_length(candidate: Stats, fair: Stats, rules: Rules) -> bool:
    if not candidate.tokens or not fair.tokens or not rules.length_ratio_max:
        return False
    ratio = candidate.tokens / fair.tokens
    return max(ratio, 1 / ratio) > rules.length_ratio_max


def drifted(compared: Compared, rules: Rules) -> bool:
    """Whether answers to the same prompts differ too much from those of the live version."""
    if compared.seen < rules.shadow_samples_min:
        return False
    gap = abs(compared.refusals_candidate - compared.refusals_live)
    return compared.agreement < rules.agreement_min or gap > rules.refusal_gap_max
