"""How far a tenant's end is: kept in OpenBao's KV, `offboarded/<tenant>`, beside the key itself.

So a snapshot that brings the key back brings this back as well, and preparing OpenBao at the next
start does not make a new key for a tenant that is gone (`appliance.bootstrap`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshkit.vault import Vault

__all__ = ["Offboarding", "Stage", "read_stage", "write_stage"]


class Stage(StrEnum):
    """What was done."""

    GRACE = "grace"
    """The key is of no use, and can be restored."""
    DELETED = "deleted"
    """The key is deleted; snapshots of OpenBao may still have it."""
    DONE = "done"
    """No snapshot has it any more, as far as they are kept no longer than was said."""


@dataclass(frozen=True, slots=True)
class Offboarding:
    """Where a tenant's end stands, and from when on its next step is due (seconds since 1970)."""

    stage: Stage
    next_s: float


async def read_stage(keys: Vault, tenant: str) -> Offboarding | None:
    """Return how far it is; None, if the tenant is not being destroyed. Raises VaultDown."""
    entry = await keys.kv_get(f"offboarded/{tenant}")
    if entry is None or not entry.data.get("stage"):
        return None
    return Offboarding(Stage(entry.data["stage"]), float(entry.data["next_s"]))


async def write_stage(keys: Vault, tenant: str, stage: Offboarding | None) -> Offboarding:
    """Keep how far it is; None: that the tenant lives. Returns what was given. Raises VaultDown."""
    told = {} if stage is None else {"stage": stage.stage.value, "next_s": str(int(stage.next_s))}
    await keys.kv_put(f"offboarded/{tenant}", told)
    return stage or Offboarding(Stage.GRACE, 0.0)
