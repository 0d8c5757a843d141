"""Entries as OCSF 1.8, one JSON object a line. PURE.

What is no leaf of ours becomes a Base Event (class 0) with its bytes in `raw_data`, in base64.
"""

from __future__ import annotations

import json
from base64 import b64encode
from typing import TYPE_CHECKING, Any

from audit.records.ocsf_record import VERSION, ocsf_record

if TYPE_CHECKING:
    from audit.export.told import Told

__all__ = ["ocsf_line"]


def ocsf_line(told: Told) -> bytes:
    """Write a record as one line: ASCII, so that no character ends it early."""
    try:
        return _line(ocsf_record(told.leaf, told.index, told.origin))
    except ValueError:  # also for a number that JSON does not have
        return _line(_base_event(told))


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":"), sort_keys=True, allow_nan=False).encode()


def _base_event(told: Told) -> dict[str, Any]:
    return {
        "activity_id": 0,
        "category_uid": 0,
        "class_uid": 0,
        "metadata": {
            "log_name": told.origin,
            "product": {"name": "Sealgate", "vendor_name": "Sealgate"},
            "sequence": told.index,
            "uid": f"{told.origin}/{told.index}",
            "version": VERSION,
        },
        "raw_data": b64encode(told.leaf).decode(),
        "severity_id": 0,
        "time": told.time_us // 1_000,
        "type_uid": 0,
        "unmapped": {"leaf_hash": told.leaf_hash},
    }
