"""What an operator may turn on the appliance as a whole. Units end the names.

Each service keeps its own settings (`GATEWAY_*`, `COMPLIANCE_*`, …); the appliance sets only those
that follow from all five sharing a host: folders, addresses, the trust domain.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from appliance.openbao import OpenBaoSettings
from appliance.openbao_audit import AuditFile
from meshkit.settings import MeshSettings

__all__ = ["ApplianceSettings"]

_OPENBAO_PAUSE_S = 1.0
_MIB = 1_024 * 1_024


class ApplianceSettings(MeshSettings):
    """Environment `APPLIANCE_*`."""

    model_config = SettingsConfigDict(env_prefix="APPLIANCE_")

    data_dir: Path = Field(Path("var/appliance"), description="All that it keeps. Local disk.")
    models_dir: Path = Field(Path("var/models"), description="What `make models` unpacked.")
    host: str = Field("127.0.0.1", description="Where gateway, audit and console listen.")
    gateway_port: int = Field(50_051, ge=0, le=65_535, description="0 asks for a free one.")
    audit_port: int = Field(50_055, ge=0, le=65_535, description="0 asks for a free one.")
    console: bool = Field(default=True, description="Whether the audit console is served.")
    console_port: int = Field(8_444, ge=0, le=65_535, description="0 asks for a free one.")
    openbao_port: int = Field(0, ge=0, le=65_535, description="Loopback; 0 takes a free one.")
    trust_domain: str = Field("sealgate.local", description="Of every SPIFFE id.")
    tenants: tuple[str, ...] = Field(("demo",), description="Each gets a key of its own.")
    certificate_ttl_s: int = Field(3_600, ge=60, description="Of services; renewed at 2/3.")
    client_certificate_ttl_s: int = Field(
        86_400, ge=6, description="Of `tls/` and `tls-auditor/`; the files are renewed at 2/3."
    )
    screening_key_life_s: float = Field(
        86_400, gt=0, description="Then compliance's key is rotated; the one before still counts."
    )
    openbao_audit_mib_max: int = Field(
        256, gt=0, description="OpenBao's own audit file: beyond it a new piece is begun."
    )
    openbao_audit_days_max: float = Field(7, gt=0, description="After so long as well.")
    openbao_audit_keep_days: float = Field(
        400, gt=0, description="Then a finished piece is removed: ship it elsewhere first."
    )
    key_rotation_days: float = Field(
        90, gt=0, description="Then a tenant's key gets a new version, and data keys are rewrapped."
    )
    key_rotation_look_s: float = Field(3_600, gt=0, description="How often that is looked at.")
    reflection: bool = Field(default=True, description="gRPC reflection on the gateway's port.")

    def openbao(self) -> OpenBaoSettings:
        """Return how OpenBao is run: started again when it ends by itself."""
        return OpenBaoSettings(
            data=self.data_dir / "openbao",
            port=self.openbao_port,
            restart_pause_s=_OPENBAO_PAUSE_S,
            audit_file=AuditFile(
                bytes_max=self.openbao_audit_mib_max * _MIB,
                days_max=self.openbao_audit_days_max,
                keep_days=self.openbao_audit_keep_days,
            ),
        )
