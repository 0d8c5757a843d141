"""Events that other programs of this host have the audit service record: backups, recoveries.

A file under `pending/` beside the log is one event; the service records it, durably, and then
unlinks the file. Who wrote it waits for that where nothing may happen without the record; where the
service does not run, it records what it finds when it starts, before anything else. A crash between
the two makes it the same event again, which the log takes once.

Whoever may write there may write the log itself, so no right is needed but the folder's.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

import structlog

from meshkit.background import running
from meshkit.contract import Event, Phase, Reason, Refusal, TraceContext
from meshkit.counters import measured
from meshkit.files import fsync_folder, names_like, write_private
from meshkit.note_event import note_event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from audit.records.notes import Noting

__all__ = ["LAST_BACKUP", "SPOOLED", "leave", "record", "spooling"]

log = structlog.get_logger()

LAST_BACKUP: Final = "last-backup.json"
"""Beside the log: what the newest backup is; its age is a metric."""
SPOOLED: Final = frozenset({"backup.make", "backup.restore", "log.recovery"})
"""All actions that may come this way."""

_EVERY_S = 0.5
_POLL_S = 0.05
_REFUSED = ".refused"
"""How the name ends of what was not recorded and never will be."""
_FINAL = frozenset({Reason.INVALID_FIELD, Reason.CONFLICT})


def leave(data_dir: Path, action: str, detail: Mapping[str, str]) -> Path:
    """Leave an event for the service, durably; return its file. Raises OSError."""
    event = note_event(action, detail=detail)
    told = {
        "action": action,
        "call_id": event.call_id.hex(),
        "time_us": event.occurred_at_us,
        "trace_id": event.trace.trace_id.hex(),
        "span_id": event.trace.span_id.hex(),
        "detail": dict(event.detail),
    }
    folder = data_dir / "pending"
    folder.mkdir(mode=0o750, exist_ok=True)
    path = folder / f"{event.call_id.hex()}.json"
    write_private(path, json.dumps(told).encode())
    return path


def record(data_dir: Path, action: str, detail: Mapping[str, str], wait_s: float) -> None:
    """Have the running service record an event; when this returns, it is durable. Blocks.

    Raises:
        Refusal: AUDIT_DOWN, if the service did not within `wait_s`: what was to be recorded must
            not happen.
        OSError: the folder cannot be written.
    """
    path = leave(data_dir, action, detail)
    refused = path.with_suffix(_REFUSED)
    until = time.monotonic() + wait_s
    while path.exists():
        if time.monotonic() > until:
            path.unlink(missing_ok=True)
            raise Refusal(Reason.AUDIT_DOWN)
        time.sleep(_POLL_S)
    if refused.exists():
        refused.unlink(missing_ok=True)
        raise Refusal(Reason.AUDIT_DOWN)


def _event(raw: bytes) -> Event:
    """Read what `leave` wrote. Raises ValueError, LookupError, TypeError."""
    told = json.loads(raw)
    if told["action"] not in SPOOLED:
        raise ValueError
    trace = TraceContext(
        trace_id=bytes.fromhex(told["trace_id"]), span_id=bytes.fromhex(told["span_id"])
    )
    return Event(
        call_id=bytes.fromhex(told["call_id"]),
        phase=Phase.NOTE,
        tenant="",
        occurred_at_us=int(told["time_us"]),
        trace=trace,
        action=told["action"],
        outcome="ok",
        detail=tuple(sorted((str(name), str(value)) for name, value in told["detail"].items())),
    )


async def _take(audit: Noting, folder: Path) -> None:
    """Record what is there, oldest first; what cannot be now stays."""
    for name in sorted(names_like(folder, "[0-9a-f]*.json")):
        path = folder / name
        try:
            event = _event(await asyncio.to_thread(path.read_bytes))
            await audit.append(event)
        except FileNotFoundError:
            continue  # who left it gave up
        except (ValueError, LookupError, TypeError, AttributeError):
            log.error("audit.spool_malformed")  # noqa: TRY400 -- its text is a stranger's
            await asyncio.to_thread(_refused, path)
        except Refusal as refusal:
            log.warning("audit.spool_refused", reason=refusal.reason.name)
            if refusal.reason not in _FINAL:
                return
            await asyncio.to_thread(_refused, path)
        else:
            await asyncio.to_thread(_done, path)


def _done(path: Path) -> None:
    path.unlink(missing_ok=True)
    fsync_folder(path.parent)


def _refused(path: Path) -> None:
    """Put a file aside: who left it must not take its going for a record."""
    with suppress(FileNotFoundError):
        path.rename(path.with_suffix(_REFUSED))


async def _taking(audit: Noting, folder: Path) -> None:
    while True:
        await asyncio.sleep(_EVERY_S)
        try:
            await _take(audit, folder)
        except OSError as failure:
            log.warning("audit.spool_failed", kind=type(failure).__name__)


@asynccontextmanager
async def spooling(audit: Noting, data_dir: Path) -> AsyncIterator[None]:
    """Record what others leave, while the block runs; what is there already before it begins."""
    await _take(audit, data_dir / "pending")
    with measured("backup.age_s", lambda: _backup_age_s(data_dir)):
        async with running(_taking(audit, data_dir / "pending"), "audit-spool"):
            yield


def _backup_age_s(data_dir: Path) -> float:
    """Return seconds since the last backup, or since the first start without one."""
    for name in (LAST_BACKUP, "writer.lock"):
        try:
            return max(0.0, time.time() - (data_dir / name).stat().st_mtime)
        except FileNotFoundError:
            continue
    return 0.0
