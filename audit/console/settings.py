"""What an operator may turn on the audit console. Units end the names."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 -- pydantic reads it at run time
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["ConsoleSettings", "OidcSettings"]


class OidcSettings(BaseModel):
    """Signing in at an OpenID provider: `AUDIT_CONSOLE__OIDC__ISSUER=…`. Else by certificate."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    issuer: str = Field("", max_length=512, description="https; to the letter. Empty: none.")
    client_id: str = Field("", max_length=256, description="As the provider knows the console.")
    client_secret_file: Path | None = Field(
        None, description="Holds the client's secret, mode 0600; without it a public client."
    )
    ca_file: Path | None = Field(None, description="PEM of the provider's CA, if it is your own.")
    scopes: str = Field("openid", pattern=r"^openid( [!-~]+)*$", description="Asked for.")
    tenant_claim: str = Field("tenant", min_length=1, description="Names the auditor's tenant.")
    roles_claim: str = Field(
        "roles", min_length=1, description="A list; what the tenant's `user_roles` allow counts."
    )
    workload: str = Field(
        "console",
        pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
        description="Workload that such people stand behind: "
        "`spiffe://<trust-domain>/tenant/<tenant>/<this>` must have a role in the policies.",
    )
    leeway_s: float = Field(30, ge=0, le=300, description="Between the provider's clock and ours.")
    login_life_s: float = Field(600, gt=0, description="From leaving for the provider to return.")
    logins_max: int = Field(1_000, gt=0, description="Under way at once; the oldest gives way.")
    metadata_life_s: float = Field(
        3_600, gt=0, description="Then discovery and keys are read anew."
    )
    reply_bytes_max: int = Field(256 * 1_024, gt=0, description="Of any answer of the provider.")

    @model_validator(mode="after")
    def is_whole(self) -> Self:
        """Half of it would be found out only by the first who signs in."""
        if self.issuer and not (self.issuer.startswith("https://") and self.client_id):
            msg = "oidc needs an https issuer and a client_id"
            raise ValueError(msg)
        return self


class ConsoleSettings(BaseModel):
    """The console, nested in audit's settings: `AUDIT_CONSOLE__PORT=8444`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    port: int | None = Field(
        None, ge=0, le=65_535, description="None: no console. 0 asks the kernel for a free one."
    )
    host: str = Field(
        "127.0.0.1", description="Where it listens; the appliance's own counts there."
    )
    public_url: str = Field(
        "",
        pattern=r"^(https://[A-Za-z0-9.:\[\]-]+)?$",
        description="As browsers reach it; empty: https://localhost and the port. Signing in at a "
        "provider comes back here.",
    )
    session_idle_s: float = Field(900, gt=0, description="Without a request; then sign in again.")
    session_life_s: float = Field(28_800, gt=0, description="At most, whatever is done.")
    sessions_max: int = Field(256, gt=0, description="At once; the longest idle gives way.")
    requests_per_minute: float = Field(240, gt=0, description="Of one address; 429 above.")
    requests_burst: int = Field(120, gt=0, description="Of one address, at once.")
    body_bytes_max: int = Field(16 * 1_024, gt=0, description="Of a form; 413 above.")
    body_s: float = Field(10, gt=0, description="For a form to come in; 408 after.")
    line_bytes_max: int = Field(8 * 1_024, gt=0, description="Of an address or header; 400 above.")
    connections_max: int = Field(
        256, gt=0, description="At once, handshakes included; others are closed."
    )
    connection_life_s: float = Field(
        600,
        gt=0,
        description="Then a browser connects anew, and its certificate is looked at. What is not "
        "answered after as long again is cut off.",
    )
    handshake_s: float = Field(10, gt=0, description="For the TLS handshake.")
    rows_max: int = Field(50, gt=0, le=1_000, description="Of a list on one page.")
    chart_days: int = Field(14, gt=0, le=366, description="Shown by the charts.")
    chart_records_max: int = Field(
        20_000, gt=0, le=200_000, description="Counted for the charts; the newest."
    )
    spans_port: int | None = Field(
        None,
        ge=0,
        le=65_535,
        description="Takes spans by OTLP/gRPC, on loopback, for the waterfall. None: none.",
    )
    spans_max: int = Field(
        50_000, gt=0, description="Kept in memory, newest first; 400 bytes each."
    )
    oidc: OidcSettings = OidcSettings.model_validate({})
