"""OpenBao's own audit file, in pieces: it grows by some 2.7 kB a request, and a full disk stops it.

    audit/openbao.jsonl                        what it writes now
    audit/openbao.jsonl.20261122T054500Z       a piece that is finished

The file is renamed and OpenBao told (SIGHUP) to open it anew; until it does it writes on into the
renamed one, so no line is lost. Old pieces are removed after `keep_days`; ship them elsewhere first
where duties last longer.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["AuditFile", "rotate", "rotating"]

log = structlog.get_logger()

_DAY_S = 86_400


class AuditFile(BaseModel):
    """When a piece is finished, and how long it is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes_max: int = Field(
        default=256 * 1024 * 1024, gt=0, description="Beyond it a new piece is begun."
    )
    days_max: float = Field(default=7, gt=0, description="After so long as well.")
    keep_days: float = Field(default=400, gt=0, description="Then a finished piece is removed.")
    look_s: float = Field(default=60, gt=0, description="How often that is looked at.")


async def rotating(file: Path, settings: AuditFile, pid: Callable[[], int]) -> None:
    """Rotate when due, for ever; `pid` tells which OpenBao runs now."""
    began_s = time.time()
    while True:
        await asyncio.sleep(settings.look_s)
        with suppress(OSError):  # the disk is full, or it is just being started again: next time
            if _is_due(file, settings, began_s):
                rotate(file, pid())
                began_s = time.time()
            _remove_old(file, settings.keep_days)


def _is_due(file: Path, settings: AuditFile, began_s: float) -> bool:
    size = file.stat().st_size
    return size > settings.bytes_max or (
        size > 0 and time.time() - began_s > settings.days_max * _DAY_S
    )


def rotate(file: Path, pid: int) -> Path:
    """Finish a piece and return it; OpenBao goes on in a new file. Raises OSError."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    piece = next(
        path
        for number in range(1_000)
        if not (
            path := file.with_name(f"{file.name}.{stamp}" + f"-{number}" * bool(number))
        ).exists()
    )
    file.rename(piece)
    os.kill(pid, signal.SIGHUP)
    log.info("openbao.audit_rotated")
    return piece


def _remove_old(file: Path, keep_days: float) -> None:
    for piece in file.parent.glob(f"{file.name}.*"):
        if time.time() - piece.stat().st_mtime > keep_days * _DAY_S:
            piece.unlink()
            log.info("openbao.audit_removed")


def _piece_name(name: str, stamp: str, number: int) -> str:
    return f"{name}.{stamp}" + f"-{number}" * bool(number)
