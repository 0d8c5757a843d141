"""What an operator may say of a Triton that runs the model. Units end the names."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 -- pydantic reads it at run time
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["LOOPBACK", "TritonSettings"]

LOOPBACK = frozenset({"127.0.0.1", "localhost"})
_HOST_PORT = r"^[A-Za-z0-9.\-]+:[0-9]{1,5}$"
_MODEL = r"^$|^[A-Za-z0-9][A-Za-z0-9_.\-]{0,127}$"


class TritonSettings(BaseModel):
    """Nested in a service's settings: `INFERENCE_TRITON__*`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    url: str = Field(
        default="localhost:8001", pattern=_HOST_PORT, description="Its gRPC, `host:port`."
    )
    model: str = Field(
        default="", pattern=_MODEL, description="Its name there; empty: INFERENCE_MODEL."
    )
    adapter: Literal["sealgate", "tensorrt_llm", "vllm"] = Field(
        default="sealgate", description="Whose tensors: our model's, or those of NVIDIA's backends."
    )
    accumulates: bool = Field(
        default=False,
        description="tensorrt_llm: each response holds all text so far (`accumulate_tokens`).",
    )
    ca: Path | None = Field(default=None, description="PEM; needed unless Triton is on loopback.")
    certificate: Path | None = Field(
        default=None,
        description="PEM, to show to Triton; read anew when the connection is made anew.",
    )
    key: Path | None = Field(default=None, description="PEM, of that certificate.")
    admin_key_file: Path | None = Field(
        default=None,
        description="What `--grpc-restricted-protocol=model-repository:admin-key=…` asks for.",
    )
    load: bool = Field(
        default=True, description="Have Triton load the model if it is not (explicit control)."
    )
    metrics_url: str = Field(
        default="",
        pattern=r"^$|" + _HOST_PORT,
        description="`host:port` of its metrics, on loopback: it has no TLS. Empty: not read.",
    )
    streams_max: int = Field(
        default=256, ge=1, description="Answers under way at once; then OVERLOADED."
    )
    message_bytes_max: int = Field(
        default=1 << 20, ge=4_096, description="Of one response; a larger one ends the answer."
    )
    answer_ms_max: int = Field(default=600_000, ge=1, description="For a whole answer.")
    silence_ms_max: int = Field(
        default=60_000,
        ge=1,
        description="Between two responses, and to the first; then INFERENCE_DOWN.",
    )
    control_ms: int = Field(
        default=5_000,
        ge=1,
        description="For a question about health or a model, and for a connection.",
    )
    load_ms: int = Field(default=300_000, ge=1, description="For Triton to load a model.")
    look_ms: int = Field(default=1_000, ge=10, description="Between two looks at its health.")
    return_wait_ms: int = Field(
        default=250,
        ge=0,
        description="How long a request waits for a Triton that is away to be back.",
    )

    @property
    def on_loopback(self) -> bool:
        """Whether nobody but this host can hear what is said."""
        return _host(self.url) in LOOPBACK

    @model_validator(mode="after")
    def fenced(self) -> Self:
        """Prompts are sent there, and its metrics tell who asks how much."""
        certificates = (self.certificate, self.key)
        if not self.on_loopback and (self.ca is None or None in certificates):
            msg = "triton: ca, certificate and key are needed for a url that is not on loopback"
            raise ValueError(msg)
        if None in certificates and any(certificates):
            msg = "triton: certificate and key come together"
            raise ValueError(msg)
        if any(certificates) and self.ca is None:
            msg = "triton: a certificate needs a ca beside it"
            raise ValueError(msg)
        if self.metrics_url and _host(self.metrics_url) not in LOOPBACK:
            msg = "triton: metrics_url must be on loopback: Triton's metrics know no TLS"
            raise ValueError(msg)
        return self


def _host(url: str) -> str:
    return url.rpartition(":")[0]
