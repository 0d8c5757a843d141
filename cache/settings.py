"""What an operator may turn on the cache. Units end the names."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from meshkit.redis_link import RedisSettings
from meshkit.settings import MeshSettings


class CacheSettings(MeshSettings):
    """Environment `CACHE_*`."""

    model_config = SettingsConfigDict(env_prefix="CACHE_")

    l1_bytes_max: int = Field(
        512 * 1024 * 1024, gt=0, description="Sealed values and what it takes to hold them."
    )
    l1_ttl_ms: int = Field(60_000, gt=0, description="How long an answer serves, less jitter.")
    ttl_jitter: float = Field(
        0.1, ge=0, lt=1, description="Share of the TTL taken off at random: no stampede at its end."
    )
    wait_max_ms: int = Field(
        5_000, ge=0, description="How long an equal question waits for the one under way."
    )
    lease_ms: int = Field(
        30_000, gt=0, description="How long the asker of a question may take to answer it."
    )
    redis: RedisSettings = Field(
        RedisSettings(), description="L2, for all replicas. Off by default."
    )
    l2_ttl_ms: int = Field(
        600_000, gt=0, description="How long an answer serves there, less jitter."
    )
    l2_value_bytes_max: int = Field(
        1_048_576, gt=0, description="Sealed; what is larger stays in L1."
    )
    purge_seen_ms: int = Field(
        1_000, gt=0, description="How long another replica's L1 may serve what was purged here."
    )
