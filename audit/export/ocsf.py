"""Entries as OCSF 1.8, one JSON object a line. PURE."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from audit.export.told import iso

if TYPE_CHECKING:
    from audit.export.told import Told

__all__ = ["ocsf_line"]


def ocsf_line(told: Told) -> bytes:
    """Write a record as one line: ASCII, so that no character ends it early."""
    return json.dumps(_record(told), separators=(",", ":"), sort_keys=True).encode()


def _record(told: Told) -> dict[str, Any]:
    return {**told.inner("ocsf"), "time": told.time_us // 1_000, "time_dt": iso(told.time_us)}
