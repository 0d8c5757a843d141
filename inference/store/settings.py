"""What an operator may turn on the commands that change a store. Units end the names."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from meshkit.settings import MeshSettings

__all__ = ["ModelsSettings"]


class ModelsSettings(MeshSettings):
    """Environment `SEALGATE_MODELS_*`: for `sealgate models`, on the operator's host."""

    model_config = SettingsConfigDict(env_prefix="SEALGATE_MODELS_")

    dir: Path = Field(
        default=Path("var/models"), description="The models folder: as `INFERENCE_MODELS_DIR`."
    )
    add_files_max: int = Field(
        4_096, ge=1, le=65_536, description="Files of one model; folders in an archive count, too."
    )
    add_bytes_max: int = Field(
        1 << 40, ge=1, description="Of one model, unpacked: 1 TiB holds the largest there are."
    )
    add_ratio_max: int = Field(
        100,
        ge=2,
        description="Unpacked bytes for each byte of an archive, beyond `add_ratio_free"
        "_bytes`; weights hardly shrink.",
    )
    add_ratio_free_bytes: int = Field(
        64 << 20, ge=0, description="Unpacked bytes that no ratio is asked of."
    )
    plain_dir: Path | None = Field(
        default=None, description="As `INFERENCE_MODELS_PLAIN_DIR`, for sealing and verifying."
    )
