"""What an operator may turn on a witness. Units end the names."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from meshkit.settings import MeshSettings

__all__ = ["WitnessSettings"]

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class WitnessSettings(MeshSettings):
    """Environment `WITNESS_*`."""

    model_config = SettingsConfigDict(env_prefix="WITNESS_")

    data_dir: Path = Field(
        Path("witness"),
        description="Holds keys.pem, vkeys and witness.sqlite. Never put an older copy of it back: "
        "a witness that forgets is a witness that forks.",
    )
    logs_file: Path = Field(
        Path("witness/logs"),
        description="Verifier keys of the logs to witness, one a line; read again when it changes.",
    )
    passphrase_file: Path | None = Field(
        None, description="Opens keys.pem, if `sealgate audit witness init` was given one."
    )
    host: str = Field("127.0.0.1", description="Where it listens.")
    port: int = Field(8_445, ge=0, le=65_535, description="0 asks the kernel for a free one.")
    cert_chain: Path | None = Field(
        None, description="PEM. With it TLS 1.3 only; needed wherever not on loopback."
    )
    private_key: Path | None = Field(None, description="PEM of the certificate's key, unencrypted.")
    body_bytes_max: int = Field(
        65_536, ge=4_096, description="A request; beyond: 413. ML-DSA-44 lines take 3.3 kB each."
    )
    request_timeout_ms: int = Field(
        5_000, gt=0, description="For a request to come in whole, and to be answered."
    )
    requests_max: int = Field(64, gt=0, description="Served at once; beyond: 503.")
    connections_max: int = Field(
        256, gt=0, description="At once, handshakes included; others are closed."
    )
    connection_life_ms: int = Field(
        600_000,
        gt=0,
        description="Of a connection; what is not answered after as long again is cut off.",
    )
    drain_ms: int = Field(2_000, ge=0, description="Requests under way get this long at the end.")
    ready_file: Path | None = Field(
        None, description="Holds the port while the witness serves: for those who started it."
    )

    @model_validator(mode="after")
    def _plaintext_stays_on_this_host(self) -> Self:
        if (self.cert_chain is None) != (self.private_key is None):
            msg = "cert_chain and private_key go together"
            raise ValueError(msg)
        if self.cert_chain is None and self.host not in _LOOPBACK:
            msg = "without a certificate a witness listens on loopback only"
            raise ValueError(msg)
        return self
