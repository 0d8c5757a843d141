"""Makes a backup of an installation that goes on working.

    await create(BackupOrder(data=…, out=…, recipients=(…,)))

One file, `sealgate-<UTC time>-<log size>.tar.age`: encrypted as age does (appliance/age.py), within
it a tar with a manifest (appliance/backup_tar.py), in an order that makes one moment of it
(appliance/backup_files.py). It is written beside and renamed, or uploaded as one object: there is
the whole file under its name or none.

That a backup is made is an event (`backup.make`), durable before the file gets its name: without
the event there is no backup. The seal key of OpenBao is not in it: together with it the file would
be every key there is, so it is exported by itself, to be kept elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore

from appliance.age import sealed
from appliance.backup_files import Source, Staged
from appliance.backup_openbao import operator_of
from appliance.backup_tar import ABOUT, BackupInvalid, Packer
from appliance.staging import BACKUP, staging
from audit.mirror.files import LogFiles, files_of
from audit.mirror.objects import StorePlace, open_store
from audit.records.spool import LAST_BACKUP, record
from meshkit.background import running
from meshkit.contract import Reason, Refusal
from meshkit.files import fsync_folder, write_private
from meshkit.tlog import LogKeys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from appliance.age import Sealer
    from appliance.backup_openbao import OperatorApi
    from meshkit.contract import Checkpoint

__all__ = ["FORMAT", "BackupOrder", "Made", "create"]

FORMAT = "sealgate-backup/1"
_TRIES = 3
_LINK_S = 0.05
_UPLOAD_CHUNK = 8 << 20
_UPLOAD_MS = 300_000


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupOrder:
    """What to back up, where to, for whom."""

    data: Path
    out: str
    """A folder, or the URL of an object store: see audit/mirror/objects.py."""
    recipients: Sequence[Sealer]
    credentials: Path | None = None
    ca: Path | None = None
    record_s: float = 15.0
    """How long to wait until the audit service has recorded it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A backup that is there."""

    name: str
    size: int
    """Of the log, in entries, at its checkpoint."""
    files: int
    bytes: int
    sha256: str
    """Of the encrypted file, in hex."""
    seconds: float


class _Hashed:
    """Passes pieces on, knows their hash and length, and has the last word before they end."""

    def __init__(self, pieces: Iterator[bytes], at_end: Callable[[_Hashed], None]) -> None:
        self._pieces = pieces
        self._at_end = at_end
        self._hasher = sha256()
        self.bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self._hasher.update(piece)
            self.bytes += len(piece)
            yield piece
        # Raised from here, it ends the write or the upload before there is anything to find.
        self._at_end(self)

    @property
    def sha256(self) -> str:
        return self._hasher.hexdigest()


# --- making one -------------------------------------------------------------------------------


async def create(order: BackupOrder) -> Made:
    """Back an installation up while it works.

    Raises:
        BackupInvalid: the data folder holds no published log, or keys were rotated all the time.
        Refusal: KEYS_DOWN, OpenBao does not run; EVIDENCE_LOST, the log does not fit its
            checkpoint; AUDIT_DOWN, the backup was not recorded.
        OSError, BaseError: disk or store do not take it. There is no backup then, not half a one.
    """
    began = time.monotonic()
    with staging(order.data, BACKUP) as folder:
        held = await _held(order.data, folder)
        return await asyncio.to_thread(_written, order, held, folder, began)


def _written(order: BackupOrder, held: _Held, folder: Path, began: float) -> Made:
    size = held.checkpoint.size
    name = f"sealgate-{held.about['made'].replace(':', '')}-{size}.tar.age"
    with (folder / "manifest").open("w+b") as lines:
        packer = Packer(lines)
        stream = _Hashed(
            sealed(_packed(held, packer), order.recipients), lambda done: _record(order, held, done)
        )
        _put(order, name, stream)
    made = Made(
        name=name,
        size=size,
        files=packer.files,
        bytes=stream.bytes,
        sha256=stream.sha256,
        seconds=time.monotonic() - began,
    )
    told = json.dumps({"name": name, "sha256": made.sha256, "size": size}).encode()
    write_private(order.data / "audit" / LAST_BACKUP, told)
    return made


def _record(order: BackupOrder, held: _Held, done: _Hashed) -> None:
    detail = {
        "size": str(held.checkpoint.size),
        "sha256": done.sha256,
        "bytes": str(done.bytes),
        "recipients": str(len(order.recipients)),
    }
    record(order.data / "audit", "backup.make", detail, order.record_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """One moment of an installation, held fast."""

    about: dict[str, Any]
    files: LogFiles
    checkpoint: Checkpoint
    payloads: list[Staged]
    snapshot: Staged
    wal: list[Staged]
    rest: list[Staged]


async def _held(data: Path, folder: Path) -> _Held:
    """Take the steps 1 to 6 of appliance/backup_files.py, again if they did not make one moment."""
    vkey = (data / "audit" / "vkey").read_text(encoding="utf-8").strip()
    async with operator_of(data / "openbao") as operator:
        for number in range(_TRIES):
            source = Source(data, folder / str(number))
            versions = await operator.key_versions()
            try:
                held = await _moment(source, operator, vkey)
            except Refusal as torn:
                if torn.reason is not Reason.EVIDENCE_LOST or number == _TRIES - 1:
                    raise
                continue
            if await operator.key_versions() == versions:
                return held
    msg = "keys were rotated meanwhile, each time: try again"
    raise BackupInvalid(msg)


async def _moment(source: Source, operator: OperatorApi, vkey: str) -> _Held:
    files = LogFiles(source.data / "audit" / "log", LogKeys.parse(vkey))
    await asyncio.to_thread(source.stage_wal)
    async with running(_linking(source), "backup-wal"):
        checkpoint = await asyncio.to_thread(files.checkpoint)
        if checkpoint is None:
            msg = "there is no published log to back up"
            raise BackupInvalid(msg)
        payloads = await asyncio.to_thread(source.stage_payloads)
        snapshot = source.staging / "raft.snap"
        await operator.snapshot(snapshot)
    wal = await asyncio.to_thread(source.stage_wal_end, checkpoint.size)
    rest = await asyncio.to_thread(source.stage_rest)
    about = {
        "format": FORMAT,
        "made": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "origin": LogKeys.parse(vkey).name,
        "vkey": vkey,
        "checkpoint": checkpoint.note,
        "size": checkpoint.size,
    }
    held = Staged("openbao/raft.snap", snapshot, snapshot.stat().st_size)
    return _Held(
        about=about, files=files, checkpoint=checkpoint, payloads=payloads, snapshot=held, wal=wal,
        rest=rest,
    )  # fmt: skip


async def _linking(source: Source) -> None:
    """Name new segments of the write-ahead log before they are dropped."""
    while True:
        await asyncio.sleep(_LINK_S)
        await asyncio.to_thread(source.stage_wal)


def _packed(held: _Held, packer: Packer) -> Iterator[bytes]:
    yield from packer.data(ABOUT, json.dumps(held.about, indent=2).encode())
    for file in files_of(held.checkpoint.size):
        yield from packer.data(f"audit/log/{file.path}", held.files.read(file))
    yield from packer.data("audit/log/checkpoint", held.checkpoint.note.encode())
    for staged in (*held.payloads, held.snapshot, *held.wal, *held.rest):
        yield from packer.file(staged.name, staged.path, staged.bytes)
    yield from packer.end()


def _put(order: BackupOrder, name: str, stream: _Hashed) -> None:
    """Write the stream where it shall lie: whole under its name, or not at all."""
    if "://" not in order.out or order.out.startswith("file://"):
        _put_file(Path(order.out.removeprefix("file://")), name, stream)
        return
    place = StorePlace(
        url=order.out, credentials=order.credentials, ca=order.ca, timeout_ms=_UPLOAD_MS
    )
    # An upload in parts is there once it is completed; one that fails is given up.
    obstore.put(open_store(place), name, iter(stream), use_multipart=True, chunk_size=_UPLOAD_CHUNK)


def _put_file(folder: Path, name: str, stream: _Hashed) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = folder / f".{name}.part"
    try:
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            for piece in stream:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        (folder / name).hardlink_to(beside)  # never over another
    finally:
        beside.unlink(missing_ok=True)
    fsync_folder(folder)
