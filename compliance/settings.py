"""What an operator may turn on compliance. Units end the names."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from meshkit.redis_link import RedisSettings
from meshkit.settings import MeshSettings

__all__ = ["ComplianceSettings"]

_LOOPBACK = ("127.0.0.1", "localhost")


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
    names_triton_url: str = Field(
        default="",
        pattern=r"^$|^[A-Za-z0-9.\-]+:[0-9]{1,5}$",
        description="`host:port` of a Triton that runs the Latin name model. Empty: run it here.",
    )
    names_triton_model: str = Field(
        default="names_latin", pattern=r"^[A-Za-z0-9_.\-]{1,128}$", description="Its name there."
    )
    names_triton_ca: Path | None = Field(
        default=None, description="PEM; needed unless Triton is on 127.0.0.1 or localhost."
    )
    names_triton_certificate: Path | None = Field(
        default=None, description="PEM, to show to Triton; read anew after a failure."
    )
    names_triton_key: Path | None = Field(default=None, description="PEM, of that certificate.")
    names_triton_ask_ms: int = Field(
        default=250, gt=0, description="For one ask, with connecting; then the model here answers."
    )
    names_triton_asks_max: int = Field(
        default=32, ge=1, description="Under way at once; beyond it the model here answers."
    )
    names_triton_failures_max: int = Field(
        default=3, gt=0, description="In a row; then Triton is held off."
    )
    names_triton_hold_off_ms: int = Field(
        default=1_000, gt=0, description="Between tries while it is held off."
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
    token_values_max: int = Field(
        default=200_000,
        gt=0,
        description="Of a tenant in all its sessions, without Redis; then the same. 300 bytes "
        "each.",
    )

    @model_validator(mode="after")
    def have_one_source(self) -> Self:
        """Refuse a folder and a file at once: which would judge?"""
        if self.policy_dir is not None and self.policy_file is not None:
            msg = "policy_dir and policy_file cannot both be given"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def reach_triton_safely(self) -> Self:
        """Refuse a line on which others could read, and settings that nobody would use."""
        ca, certificate, key = (
            self.names_triton_ca,
            self.names_triton_certificate,
            self.names_triton_key,
        )
        host = self.names_triton_url.rpartition(":")[0]
        if host and ca is None and host not in _LOOPBACK:
            msg = "names_triton_ca is needed: what is asked can be turned back into text"
            raise ValueError(msg)
        if (certificate is None) != (key is None) or (certificate is not None and ca is None):
            msg = "names_triton_certificate needs names_triton_key and names_triton_ca beside it"
            raise ValueError(msg)
        if ca is not None and not host:
            msg = "names_triton has settings, but no url"
            raise ValueError(msg)
        return self
