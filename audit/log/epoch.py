"""Which log of an installation this is: a new one begins where an older one cannot go on.

`epoch.json` beside the log, written by a recovery alone, says the number; without it the log is the
first. The origin follows, so that no two of them can be taken for one another:

    <trust domain>/audit        <trust domain>/audit/2        …
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from meshkit.contract import Reason, Refusal
from meshkit.files import read_or_none, write_private

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["epoch_of", "origin_of", "write_epoch"]

_FILE = "epoch.json"


def epoch_of(data_dir: Path) -> int:
    """Return the number of the log under `data_dir`, from 1 on.

    Raises:
        Refusal: EVIDENCE_LOST, if the file says nothing that makes sense.
        OSError: it cannot be read.
    """
    raw = read_or_none(data_dir / _FILE)
    if raw is None:
        return 1
    try:
        epoch = int(json.loads(raw)["epoch"])
    except (ValueError, LookupError, TypeError):
        epoch = 0
    if epoch < 1:
        raise Refusal(Reason.EVIDENCE_LOST)
    return epoch


def write_epoch(data_dir: Path, epoch: int) -> None:
    """Begin another log. Raises OSError."""
    write_private(data_dir / _FILE, json.dumps({"epoch": epoch}).encode())


def origin_of(data_dir: Path, trust_domain: str) -> str:
    """Name the log under `data_dir`. Raises as `epoch_of`."""
    epoch = epoch_of(data_dir)
    return f"{trust_domain}/audit" + (f"/{epoch}" if epoch > 1 else "")
