"""How a service reads its settings: from the environment, once, frozen, strictly.

    class CacheSettings(MeshSettings):
        model_config = SettingsConfigDict(env_prefix="CACHE_")
        l1_bytes_max: int = Field(512 * 1024 * 1024, gt=0)

    settings = CacheSettings.load()   # CACHE_L1_BYTES_MAX=1048576; nested with `__`

Units end the names; secrets are paths of files; every limit is a field. Tests build a settings
object from keyword arguments, which beat the environment.
"""

from __future__ import annotations

import os
from typing import Self

from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["MeshSettings"]


class MeshSettings(BaseSettings):
    """Subclass with its own `env_prefix`; build with `load()`, once, in main."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_nested_delimiter="__",
        # Else naming one nested field would put all its neighbours back to their class's defaults.
        nested_model_default_partial_update=True,
        hide_input_in_errors=True,
    )

    @classmethod
    def load(cls) -> Self:
        """Read the environment.

        Raises:
            TypeError: the class has no `env_prefix`: every variable would be a candidate.
            ValueError: a value is out of range, or a variable bears our prefix
                but no field's name. pydantic-settings ignores the latter, so a
                misspelt limit would silently keep its default.
        """
        prefix = cls.model_config["env_prefix"].upper()
        if not prefix:
            msg = f"{cls.__name__} has no env_prefix"
            raise TypeError(msg)
        known = {f"{prefix}{name}".upper() for name in cls.model_fields}
        given = {key.upper() for key in os.environ if key.upper().startswith(prefix)}
        if unknown := {key for key in given if _field_part(key, prefix) not in known}:
            msg = f"unknown settings: {', '.join(sorted(unknown))}"
            raise ValueError(msg)
        return cls()


def _field_part(variable: str, prefix: str) -> str:
    """Cut the nested rest off: `GATEWAY_TLS__PEER_CA` belongs to the field `GATEWAY_TLS`."""
    return prefix + variable[len(prefix) :].split("__", maxsplit=1)[0]
