"""What an operator may turn on the mesh of one host. Units end the names."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from appliance.settings import ApplianceSettings

__all__ = ["MeshHouseSettings"]


class MeshHouseSettings(ApplianceSettings):
    """Environment `APPLIANCE_*`, as the appliance's, and these."""

    model_config = SettingsConfigDict(env_prefix="APPLIANCE_")

    data_dir: Path = Field(Path("var/mesh"), description="All that they keep. Local disk.")
    compliance_port: int = Field(50_052, ge=0, le=65_535, description="Loopback; 0: a free one.")
    cache_port: int = Field(50_053, ge=0, le=65_535, description="Loopback; 0: a free one.")
    inference_port: int = Field(50_054, ge=0, le=65_535, description="Loopback; 0: a free one.")
    gateway_workers: int = Field(
        1, ge=1, le=64, description="Processes that share the gateway's port, and its limits."
    )
    worker_silent_max_s: float = Field(
        15.0, ge=5, description="One of several that hangs for so long is killed, started again."
    )
    redis: bool = Field(
        default=False,
        description="Runs a Redis: the cache's second tier, and limits that gateways share.",
    )
    restart_pause_s: float = Field(
        0.5, ge=0, description="Before a service that ended is started again; doubles."
    )
    handover_ms: int = Field(
        60_000, gt=0, description="How long audit's successor waits for the log, at most."
    )
