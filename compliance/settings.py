"""What an operator may turn on compliance. Units end the names."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from meshkit.redis_link import RedisSettings
from meshkit.settings import MeshSettings

__all__ = ["ComplianceSettings"]


class ComplianceSettings(MeshSettings):
    """Environment `COMPLIANCE_*`."""

    model_config = SettingsConfigDict(env_prefix="COMPLIANCE_")

    policy_dir: Path | None = Field(
        default=None, description="Policies by tenant: YAML files and tenants.yaml, watched."
    )
    policy_file: Path | None = Field(
        default=None,
        description="One policy for all tenants, watched; without this and the folder the default.",
    )
    policy_every_s: float = Field(
        default=2.0, gt=0, description="How often a change of policies is looked for."
    )
    policy_archive: Path | None = Field(
        default=None, description="Keeps each policy that was in force, under its digest."
    )
    names: bool = Field(default=True, description="Ask the name models; off: patterns only.")
    models_dir: Path = Field(Path("var/models"), description="As deploy/fetch_models.py left it.")
    cache_dir: Path | None = Field(
        default=Path("var/cache/compliance"),
        description="Keeps the compiled patterns; none: compile anew.",
    )
    text_chars_max: int = Field(
        default=2_000_000,
        gt=0,
        description="Of one message or answer; beyond it the call is refused.",
    )
    name_workers: int = Field(default=1, ge=1, le=64, description="Model runs at the same time.")
    name_threads: int = Field(default=1, ge=1, le=64, description="Threads within one model run.")
    name_queue_max: int = Field(
        default=256, ge=1, description="Texts waiting for the models; beyond it OVERLOADED."
    )
    memo_entries_max: int = Field(
        default=20_000, ge=0, description="Verdicts remembered, about 1 KB each; 0 remembers none."
    )
    redis: RedisSettings = Field(
        default=RedisSettings(),
        description="Keeps values behind tokens, sealed, for all replicas. Off: in this process.",
    )
    token_life_s: float = Field(
        default=3_600.0,
        gt=0,
        description="How long tokens of a session can be restored, after the last use of any.",
    )
    token_call_life_s: float = Field(
        default=600.0,
        gt=0,
        description="The same for a call without a session; longer than a call may take.",
    )
    token_entries_max: int = Field(
        default=10_000, gt=0, description="Of a session; beyond it OVERLOADED. 300 bytes each."
    )
    token_sessions_max: int = Field(
        default=10_000,
        gt=0,
        description="Of a tenant, without Redis; the one idle longest loses its tokens.",
    )

    @model_validator(mode="after")
    def have_one_source(self) -> Self:
        """Refuse a folder and a file at once: which would judge?"""
        if self.policy_dir is not None and self.policy_file is not None:
            msg = "policy_dir and policy_file cannot both be given"
            raise ValueError(msg)
        return self
