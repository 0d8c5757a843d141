#!/usr/bin/env python3
"""Print docs/settings.md: every setting of every service, out of the classes that read them.

python deploy/settings_page.py > docs/settings.md
"""

from __future__ import annotations

from meshkit import tls_floor  # isort: skip -- before grpc, as in every entry point

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from appliance.mesh import MeshHouseSettings
from appliance.settings import ApplianceSettings
from audit.main import AuditServer
from audit.witness.settings import WitnessSettings
from cache.main import CacheServer
from compliance.main import ComplianceServer
from gateway.main import GatewayServer
from inference.main import InferenceServer
from inference.store.settings import ModelsSettings
from meshkit.member import ServerSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic.fields import FieldInfo

assert tls_floor.in_time()

ROOT = Path(__file__).resolve().parent.parent
HEAD = """# Settings

Each is an environment variable, read once at the start. A variable that bears a service's prefix
and is no setting ends the start, as does a value out of range; both are told by name. Nested ones
are joined by `__`; lists and tables are JSON. A secret is never a setting: settings name files.

This page is made by `python deploy/settings_page.py > docs/settings.md`, and a test compares.
"""
SECTIONS: tuple[tuple[str, str, type[BaseModel], type[BaseModel] | None], ...] = (
    ("The appliance and the mesh on one host", "APPLIANCE", ApplianceSettings, None),
    ("Only the mesh on one host", "APPLIANCE", MeshHouseSettings, ApplianceSettings),
    ("Gateway", "GATEWAY", GatewayServer, ServerSettings),
    ("Compliance", "COMPLIANCE", ComplianceServer, ServerSettings),
    ("Cache", "CACHE", CacheServer, ServerSettings),
    ("Inference", "INFERENCE", InferenceServer, ServerSettings),
    ("Audit", "AUDIT", AuditServer, ServerSettings),
    ("`sealgate models`, on the host of a store", "SEALGATE_MODELS", ModelsSettings, None),
    ("Witness, on another host", "WITNESS", WitnessSettings, None),
    ("Each service of the mesh, by its own prefix", "<SERVICE>", ServerSettings, None),
)
SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "length ≥", "max_length": "≤"}
UNITS = {
    ("_per_s",): "a second",
    ("_ms",): "ms",
    ("_s",): "s",
    ("_bytes", "_bytes_max", "_bytes_min"): "bytes",
    ("_chars_max",): "characters",
    ("_tokens", "_tokens_max", "_tokens_burst"): "tokens",
}


def main() -> None:
    """Print the page."""
    sys.stdout.write(HEAD)
    for title, prefix, model, base in SECTIONS:
        sys.stdout.write(f"\n## {title}\n\n| variable | default | range | |\n|---|---|---|---|\n")
        for variable, field, default in _settings(prefix, model, base):
            told = (field.description or "").replace("|", "\\|")
            cells = f"`{variable}` | {_with_unit(variable, default)} | {_range(field)} | {told}"
            sys.stdout.write(f"| {cells} |\n")


def _settings(
    prefix: str, model: type[BaseModel], base: type[BaseModel] | None
) -> Iterator[tuple[str, FieldInfo, Any]]:
    """Yield name, field and default of what `model` adds to `base`, or has another default of."""
    known = dict(_flat(prefix, base, None)) if base else {}
    for variable, (field, default) in _flat(prefix, model, None):
        if variable not in known or known[variable][1] != default:
            yield variable, field, default


def _flat(
    prefix: str, model: type[BaseModel], instance: BaseModel | None
) -> Iterator[tuple[str, tuple[FieldInfo, Any]]]:
    """Yield all of them, those of nested models too, whose defaults are those of the instance."""
    fields: Mapping[str, FieldInfo] = model.model_fields
    for name, field in fields.items():
        at = f"{prefix}{'__' if instance is not None else '_'}{name.upper()}"
        default = getattr(instance, name, field.get_default(call_default_factory=True))
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            made = default if isinstance(default, BaseModel) else nested.model_construct()
            yield from _flat(at, nested, made)
        else:
            yield at, (field, default)


def _with_unit(variable: str, default: object) -> str:
    if isinstance(default, bool) or not isinstance(default, int | float):
        return _shown(default)
    if variable.endswith("_PORT"):
        return str(default)
    unit = next((u for ends, u in UNITS.items() if variable.lower().endswith(ends)), "")
    return f"{default:,} {unit}".rstrip()


def _shown(default: object) -> str:
    if default is PydanticUndefined:
        return "required"
    if isinstance(default, Path):
        return f"`{default.relative_to(ROOT) if default.is_relative_to(ROOT) else default}`"
    if isinstance(default, bool) or default is None:
        return {True: "true", False: "false", None: "none"}[default]
    if isinstance(default, tuple | list):
        return "`[" + ", ".join(f'"{one}"' for one in default) + "]`"
    return f"`{default}`" if default else "empty"


def _range(field: FieldInfo) -> str:
    bounds = (
        f"{sign} {getattr(rule, name)}"
        for rule in field.metadata
        for name, sign in SIGNS.items()
        if getattr(rule, name, None) is not None
    )
    return ", ".join(bounds)


if __name__ == "__main__":
    main()
