"""What an operator may turn on releases. Units end the names."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 -- pydantic reads it at run time
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from inference.release.rules import Rules

__all__ = ["ReleaseSettings"]


class ReleaseSettings(BaseModel):
    """Limits of releases, nested in the service's: `INFERENCE_RELEASE__KEEP=3`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    state_file: Path | None = Field(
        default=None,
        description="Which version is what, kept over a restart; none: each start begins with "
        "INFERENCE_MODEL alone. Appliance and mesh keep it under their data folder.",
    )
    first_version: str = Field(
        default="",
        max_length=64,
        description="Of INFERENCE_MODEL, where nothing is remembered yet; empty: the newest.",
    )
    keep: int = Field(
        default=3, ge=1, le=16, description="Versions that stay: the live one and those before it."
    )
    keep_loaded: int = Field(
        default=2,
        ge=1,
        le=16,
        description="Of these, how many stay in memory: 2 is a fast way back.",
    )
    loaded_max: int = Field(
        default=3, ge=1, le=64, description="Versions in memory, of all models; then OVERLOADED."
    )
    linger_ms: int = Field(
        default=5_000,
        ge=0,
        description="How long a version without traffic still takes calls that were sent to it; "
        "above the gateways' GATEWAY_MODELS_MEMO_MS.",
    )
    warm_tokens: int = Field(
        default=4,
        ge=1,
        le=256,
        description="Of the answers that a version must give alike before it is warm.",
    )
    warm_timeout_ms: int = Field(
        default=60_000, ge=1, description="For these answers; then it has failed."
    )
    canary_percent: int = Field(
        default=10, ge=1, le=99, description="Of conversations, unless the step says otherwise."
    )
    canary_replicas: int = Field(
        default=2, ge=1, description="Used in the place of per cent where there are more replicas."
    )
    canary_hours: float = Field(default=48.0, gt=0, description="Then people are told; it goes on.")
    replica: int = Field(default=0, ge=0, description="Which replica this process is, from 0.")
    replicas: int = Field(default=1, ge=1, description="How many replicas of inference there are.")
    window_s: float = Field(
        default=600.0, gt=0, description="What rules look at: the last so many."
    )
    samples_min: int = Field(default=50, ge=1, description="Calls in it; fewer judge nothing.")
    error_rate_max: float = Field(
        default=0.05, gt=0, le=1, description="Share of calls that failed; more: rolled back."
    )
    p99_ms_max: float = Field(
        default=0.0, ge=0, description="Time of a call, 99th percentile; more: rolled back. 0: off."
    )
    p99_ratio_max: float = Field(
        default=2.0, ge=0, description="The same over the live version's. 0: off."
    )
    length_ratio_max: float = Field(
        default=2.0,
        ge=0,
        description="Tokens of an answer over the live version's, or the inverse.",
    )
    shadow_samples_min: int = Field(default=20, ge=1, description="Comparisons that judge drift.")
    agreement_min: float = Field(
        default=0.5, ge=0, le=1, description="Characters in common with the live version's answers."
    )
    refusal_gap_max: float = Field(
        default=0.1, ge=0, le=1, description="Difference of the shares of answers that refuse."
    )
    probation_s: float = Field(
        default=3_600.0, ge=0, description="How long rules watch a version that became live."
    )
    shadow_running_max: int = Field(default=1, ge=1, description="Shadow calls at once.")
    shadow_busy_max: int = Field(
        default=4, ge=1, description="With more real calls than these, shadow calls are dropped."
    )
    shadow_timeout_ms: int = Field(default=60_000, ge=1, description="For one shadow call.")

    @model_validator(mode="after")
    def one_of_them(self) -> Self:
        """Refuse a replica beyond the last, and a way back that is not kept."""
        if self.replica >= self.replicas:
            msg = "replica counts from 0: it must be below replicas"
            raise ValueError(msg)
        if self.keep_loaded > self.keep:
            msg = "keep_loaded must not be above keep"
            raise ValueError(msg)
        return self

    @property
    def rules(self) -> Rules:
        """The same for the core."""
        same = {name: getattr(self, name) for name in _SAME}
        return Rules(**same, canary_s=self.canary_hours * 3_600.0, linger_s=self.linger_ms / 1_000)


_SAME = (
    *("window_s", "samples_min", "error_rate_max", "p99_ms_max", "p99_ratio_max"),
    *("length_ratio_max", "shadow_samples_min", "agreement_min", "refusal_gap_max"),
    *("canary_percent", "canary_replicas", "probation_s", "replica", "replicas"),
    *("keep", "keep_loaded", "loaded_max"),
)
