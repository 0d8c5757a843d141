"""What an operator may turn on the gateway. Units end the names."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 -- pydantic reads it at run time
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import SettingsConfigDict

from gateway.admission import Rate, Rates
from meshkit.policies import FOLDER
from meshkit.redis_link import RedisSettings
from meshkit.server import Serving
from meshkit.settings import MeshSettings
from meshkit.telemetry import Telemetry

__all__ = ["GatewaySettings", "LimitSettings", "UserSettings"]


class LimitSettings(BaseModel):
    """Rates of one tenant: so many a second, so many at once. Model tokens count both ways."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant_requests_per_s: float = Field(default=2_000, gt=0)
    tenant_requests_burst: float = Field(default=4_000, ge=1)
    tenant_tokens_per_s: float = Field(default=1_000_000, gt=0)
    tenant_tokens_burst: float = Field(default=4_000_000, ge=1)
    user_requests_per_s: float = Field(default=2_000, gt=0)
    user_requests_burst: float = Field(default=4_000, ge=1)
    user_tokens_per_s: float = Field(default=1_000_000, gt=0)
    user_tokens_burst: float = Field(default=4_000_000, ge=1)
    model_requests_per_s: float = Field(default=2_000, gt=0)
    model_requests_burst: float = Field(default=4_000, ge=1)
    model_tokens_per_s: float = Field(default=1_000_000, gt=0)
    model_tokens_burst: float = Field(default=4_000_000, ge=1)

    def rates(self) -> Rates:
        """Return them as the buckets take them."""
        return Rates(
            tenant_requests=Rate(self.tenant_requests_per_s, self.tenant_requests_burst),
            tenant_tokens=Rate(self.tenant_tokens_per_s, self.tenant_tokens_burst),
            user_requests=Rate(self.user_requests_per_s, self.user_requests_burst),
            user_tokens=Rate(self.user_tokens_per_s, self.user_tokens_burst),
            model_requests=Rate(self.model_requests_per_s, self.model_requests_burst),
            model_tokens=Rate(self.model_tokens_per_s, self.model_tokens_burst),
        )


class UserSettings(BaseModel):
    """How users' tokens are believed. Without `issuer`, a token is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: str = Field(
        default="", max_length=512, description="`iss`, to the letter. Empty: no users."
    )
    audience: str = Field(default="sealgate", min_length=1, description="`aud` must hold it.")
    jwks_file: Path | None = Field(default=None, description="JWK set, read again when it changes.")
    jwks_url: str = Field(
        default="", description="https only; fetched at start and every `jwks_every_s`."
    )
    jwks_ca_file: Path | None = Field(
        default=None, description="CA of `jwks_url`; system CAs without."
    )
    jwks_every_s: float = Field(default=300, gt=0)
    jwks_bytes_max: int = Field(default=262_144, gt=0)
    tenant_claim: str = Field(default="tenant", description="Must name the certificate's tenant.")
    roles_claim: str = "roles"
    leeway_s: float = Field(
        default=5, ge=0, le=60, description="For `exp` and `nbf`: clocks differ."
    )
    token_bytes_max: int = Field(default=8_192, gt=0)
    memo_max: int = Field(
        default=10_000, gt=0, description="Verified tokens remembered until `exp`."
    )

    @model_validator(mode="after")
    def keys_have_one_source(self) -> Self:
        """Else nobody could tell which keys are believed."""
        if self.issuer and bool(self.jwks_file) == bool(self.jwks_url):
            msg = "users need exactly one of jwks_file and jwks_url"
            raise ValueError(msg)
        if self.jwks_url and not self.jwks_url.startswith("https://"):
            msg = "jwks_url must be https"
            raise ValueError(msg)
        return self


class GatewaySettings(MeshSettings):
    """Environment `GATEWAY_*`; nested with `__`, as in `GATEWAY_LIMITS__USER_TOKENS_PER_S`."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_")

    host: str = "127.0.0.1"
    port: int = Field(
        default=50_051, ge=0, le=65_535, description="0 asks the kernel for a free one."
    )
    trust_domain: str = Field(default="sealgate.local", min_length=1, max_length=255)

    in_flight_max: int = Field(default=512, gt=0, description="Beyond it: OVERLOADED, at once.")
    overloaded_retry_ms: int = Field(
        default=250, gt=0, description="What an OVERLOADED caller is told."
    )
    call_budget_ms: int = Field(
        default=120_000, gt=0, description="The longest that a call may take."
    )
    stream_life_ms: int = Field(
        default=300_000, gt=0, description="The longest that a stream may take."
    )
    reply_reserve_ms: int = Field(
        default=50, ge=0, description="Held back to record and tell a timeout."
    )
    audit_budget_ms: int = Field(
        default=5_000, gt=0, description="Without an ack by then: AUDIT_DOWN."
    )
    cache_budget_ms: int = Field(
        default=30_000, gt=0, description="Waiting for an equal call included."
    )
    models_memo_ms: int = Field(
        default=1_000, ge=0, description="How old the list of models may be."
    )
    model_steps_max: int = Field(
        default=8, gt=0, description="Calls of ModelService at once; beyond it: OVERLOADED."
    )

    frame_tokens: int = Field(
        default=8, gt=0, description="A stream's frame leaves after so many tokens,"
    )
    frame_ms: int = Field(default=20, gt=0, description="or after so long; the first one at once.")
    unary_chunk_tokens: int = Field(
        default=32, gt=0, description="What a unary answer is released in."
    )

    limits: LimitSettings = LimitSettings()
    tenant_limits: dict[str, LimitSettings] = Field(
        default={}, description="By tenant; others: `limits`."
    )
    buckets_max: int = Field(default=100_000, gt=0, description="About 200 bytes each.")
    redis: RedisSettings = Field(
        default=RedisSettings(), description="Shares the limits between replicas. Off by default."
    )
    limits_replicas: int = Field(
        default=1,
        gt=0,
        description="Without Redis, or while it is away, each takes 1/n of every limit.",
    )
    expected_tokens: int = Field(
        default=256, gt=0, description="Reserved for an answer, if it may be so."
    )
    extend_tokens: int = Field(
        default=64, gt=0, description="Taken at a time when an answer is longer."
    )

    refusals_singly_max: int = Field(
        default=10, gt=0, description="Recorded per tenant, reason, second."
    )

    policies_dir: Path = Field(default=FOLDER, description="Cedar schema, policies, entities.")
    policies_archive: Path | None = Field(
        default=None, description="Keeps each set under its digest."
    )
    policies_every_s: float = Field(
        default=2.0, gt=0, description="How often a change is looked for."
    )

    users: UserSettings = UserSettings()

    serving: Serving = Serving.model_validate({"drain_ms": 130_000})
    telemetry: Telemetry = Telemetry.model_validate({})

    @model_validator(mode="after")
    def replicas_are_counted(self) -> Self:
        """Else each of them would grant the whole limit while Redis is away."""
        if self.redis.configured and "limits_replicas" not in self.model_fields_set:
            msg = "with redis, limits_replicas must say how many gateways share the limits"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def drain_outlasts_a_call(self) -> Self:
        """Else a deploy would cut off calls that were still within their budget."""
        drain_ms = self.serving.drain_ms
        if drain_ms < self.call_budget_ms:
            msg = f"{drain_ms=} of serving is shorter than call_budget_ms={self.call_budget_ms}"
            raise ValueError(msg)
        return self
