"""How a log goes on after a loss: filled from its mirror, or begun anew with the loss on record.

A restored log may be older than what was published. Nothing of that is taken back in silence:

    fill        the mirror has a later checkpoint C, signed by the log's key, and all below it: the
                leaves in between are fetched, every one is held against its tile and the tree
                against C, what the disk had against both; then the lock takes C, and the log goes
                on behind it. No published leaf is lost; sealed payloads since the backup are.
    begin_anew  no mirror has what the lock, the witnesses or receipts speak of. The old log is set
                aside as it is, as evidence, and a new one begins under a new origin. Its first
                entry names the last checkpoint of the old one and why.

Both are for an installation that is stopped. Both leave a `log.recovery` event, recorded at the
next start before anything else, and both need OpenBao: the lock moves by compare-and-swap, as
audit's own login does it.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import obstore

from appliance.backup_tar import BackupInvalid
from appliance.bootstrap import CHECKPOINT_KEY, CHECKPOINT_LOCK, BootstrapSettings, prepared
from appliance.openbao import openbao
from audit.log.disk import Disk, make_folders, put_new, replace
from audit.log.epoch import epoch_of, origin_of, write_epoch
from audit.log.locks import VaultLock
from audit.log.publisher import signed_note
from audit.log.signer import VaultSigner
from audit.log.wal import Wal
from audit.mirror.copier import mirrored_checkpoint
from audit.mirror.files import LogFiles, files_of
from audit.mirror.objects import open_store
from audit.privacy.payloads import PayloadStore
from audit.records.events import parse_leaf
from audit.records.spool import leave
from audit.settings import AuditSettings
from meshkit.contract import Checkpoint, Reason, Refusal
from meshkit.tlog import (
    EMPTY_ROOT,
    LogKeys,
    NoteInvalid,
    checkpoint_text,
    leaf_hash,
    open_checkpoint,
    parse_checkpoint,
)
from meshkit.vault import vault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from obstore.store import ObjectStore

    from appliance.settings import ApplianceSettings
    from audit.log.locks import CheckpointLock
    from audit.log.signer import CheckpointSigner
    from audit.mirror.files import LogFile
    from audit.mirror.objects import StorePlace
    from meshkit.vault import Vault

__all__ = ["Recovered", "Stopped", "begin_anew", "fill", "stopped"]

_SET_ASIDE = ("log", "vkey", "wal", "payloads", "index.sqlite", "index.sqlite-wal")
_CONCURRENT = 8
_WAL_BYTES = 8 * 1_024 * 1_024


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What was done: the log as it was found, and as it goes on."""

    origin: str
    found: int
    """Entries on the disk, the write-ahead log included."""
    size: int
    """Entries now; 0 for a new log."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """An installation that does not run, and the keys of its audit service."""

    data: Path
    trust_domain: str
    keys: Vault

    @property
    def lock(self) -> CheckpointLock:
        """Where the newest checkpoint is held."""
        return VaultLock(self.keys, CHECKPOINT_LOCK)

    async def signer(self) -> CheckpointSigner:
        """Return the signer of the log that `epoch.json` names."""
        origin = origin_of(self.data / "audit", self.trust_domain)
        days = AuditSettings.load().checkpoint_key_overlap_days
        return await VaultSigner.load(self.keys, CHECKPOINT_KEY, origin, overlap_days=days)


@asynccontextmanager
async def stopped(settings: ApplianceSettings) -> AsyncIterator[Stopped]:
    """Start OpenBao alone, and log in as the audit service; nobody else may have the log.

    Raises:
        OpenBaoError: it does not start, or the installation runs.
        Refusal: KEYS_DOWN; CONFLICT, if somebody has the log open.
    """
    disk, folder = Disk(), settings.data_dir / "audit"
    wanted = BootstrapSettings(trust_domain=settings.trust_domain, tenants=settings.tenants)
    make_folders(disk, folder)
    try:
        held = disk.lock(folder / "writer.lock")
    except BlockingIOError:
        raise Refusal(Reason.CONFLICT) from None
    try:
        async with openbao(settings.openbao()) as bao, prepared(bao, wanted) as estate:
            login = await estate.admin.login("audit")
            async with vault(bao.vault_settings(), login) as keys:
                yield Stopped(settings.data_dir, settings.trust_domain, keys)
    finally:
        disk.close(held)


# --- filled from the mirror -------------------------------------------------------------------


async def fill(found: Stopped, place: StorePlace) -> Recovered:
    """Bring the log up to the newest checkpoint of its mirror.

    Done again after it was cut short, it goes on where it was.

    Raises:
        BackupInvalid: the mirror has nothing newer, or less than the lock knows of.
        Refusal: EVIDENCE_LOST, if disk, mirror and lock tell different histories.
        OSError, BaseError: disk or store fail.
    """
    signer, store = await found.signer(), await asyncio.to_thread(open_store, place)
    return await fill_log(found.data / "audit", signer, found.lock, store)


async def fill_log(
    folder: Path, signer: CheckpointSigner, lock: CheckpointLock, store: ObjectStore
) -> Recovered:
    """Do what `fill` says, for one log's folder."""
    keys, disk = signer.known, Disk()
    wal = Wal(disk, folder / "wal", segment_bytes_max=_WAL_BYTES)
    await asyncio.to_thread(wal.recover)
    held, newest = await lock.load(), await mirrored_checkpoint(store, keys)
    if newest is None or newest.size <= wal.end:
        msg = "the mirror has nothing that the disk has not"
        raise BackupInvalid(msg)
    locked = _opened(held.note if held else "", keys)
    if newest.size < locked.size:
        msg = f"the mirror has {newest.size} entries, but {locked.size} were published"
        raise BackupInvalid(msg)
    files = LogFiles(folder / "log", keys)
    published = await asyncio.to_thread(files.checkpoint)
    since = 0 if published is None else published.size
    await _fetch(folder / "log", store, keys.name, newest, since)
    await asyncio.to_thread(_check, files, newest, [locked, *([published] if published else [])])
    await asyncio.to_thread(_check_wal, files, wal, newest)
    await asyncio.to_thread(_keep_payloads, disk, folder, wal)
    if locked != newest:
        await lock.replace(held, newest.note)
    await asyncio.to_thread(_go_on, disk, folder, wal, newest)
    detail = {"kind": "mirror", "found": str(wal.end), "size": str(newest.size)}
    await asyncio.to_thread(leave, folder, "log.recovery", detail)
    return Recovered(origin=keys.name, found=wal.end, size=newest.size)


def _opened(note: str, keys: LogKeys) -> Checkpoint:
    try:
        return open_checkpoint(note, keys)
    except NoteInvalid:
        raise Refusal(Reason.EVIDENCE_LOST) from None


async def _fetch(
    log: Path, store: ObjectStore, origin: str, newest: Checkpoint, since: int
) -> None:
    """Get the files of `newest` that a tree of `since` leaves has not; they never change."""
    batch: list[LogFile] = []
    for file in files_of(newest.size, since=since - since % 256):
        batch.append(file)
        if len(batch) == _CONCURRENT:
            await asyncio.gather(*(_get(log, store, origin, each) for each in batch))
            batch.clear()
    await asyncio.gather(*(_get(log, store, origin, each) for each in batch))


async def _get(log: Path, store: ObjectStore, origin: str, file: LogFile) -> None:
    got = await obstore.get_async(store, f"{origin}/log/{file.path}")
    data = bytes(await got.bytes_async())
    await asyncio.to_thread(put_new, Disk(), [(log / file.path, data)])


def _check(files: LogFiles, newest: Checkpoint, earlier: list[Checkpoint]) -> None:
    """See that the tree is that of `newest`, entry by entry, and that all before were its starts.

    Raises:
        Refusal: EVIDENCE_LOST.
    """
    for file in files_of(newest.size):
        files.read(file)
    fits = files.root(newest.size) == newest.root
    if not fits or not all(files.holds(each, newest.size) for each in earlier):
        raise Refusal(Reason.EVIDENCE_LOST)


def _check_wal(files: LogFiles, wal: Wal, newest: Checkpoint) -> None:
    """See that what this disk acknowledged is what the mirror has at the same indexes."""
    for group in wal.groups:
        for number, entry in enumerate(wal.read(group), group.first):
            tile, at = divmod(number, 256)
            row = files.tile(0, tile, min(256, newest.size - tile * 256))
            if row[at * 32 : at * 32 + 32] != leaf_hash(entry.leaf):
                raise Refusal(Reason.EVIDENCE_LOST)


def _keep_payloads(disk: Disk, folder: Path, wal: Wal) -> None:
    """Move sealed payloads out of the write-ahead log, which ends here."""
    store = PayloadStore(disk, folder / "payloads")
    try:
        for group in wal.groups:
            entries = [
                (number, parse_leaf(entry.leaf), entry)
                for number, entry in enumerate(wal.read(group), group.first)
                if entry.sealed
            ]
            store.add(
                (number, leaf.tenant, leaf.log["received_us"], entry.leaf, entry.sealed)
                for number, leaf, entry in entries
            )
    finally:
        store.close()


def _go_on(disk: Disk, folder: Path, wal: Wal, newest: Checkpoint) -> None:
    """Publish the checkpoint, and let a write-ahead log begin behind it."""
    replace(disk, folder / "log" / "checkpoint", newest.note.encode())
    wal.close()
    for path in (folder / "wal").iterdir():
        path.unlink()
    fresh = Wal(disk, folder / "wal", segment_bytes_max=_WAL_BYTES)
    fresh.begin(newest.size)
    fresh.close()


# --- begun anew -------------------------------------------------------------------------------


async def begin_anew(found: Stopped, reason: str) -> Recovered:
    """Set the log aside and begin another under a new origin.

    Args:
        found: The installation.
        reason: Printable ASCII, at most 200 characters; it is recorded for ever.

    Raises:
        BackupInvalid: the reason is none, or nothing was ever published.
        Refusal: KEYS_DOWN; EVIDENCE_LOST, if somebody else moved the lock meanwhile.
        OSError: the disk fails. Called again, it goes on where it was.
    """
    folder = found.data / "audit"
    if not reason.isascii() or not reason.isprintable() or not 1 <= len(reason) <= 200:  # noqa: PLR2004 -- as the docstring says
        msg = "a reason is wanted: up to 200 printable ASCII characters"
        raise BackupInvalid(msg)
    held = await found.lock.load()
    if held is None:
        msg = "nothing was ever published: there is nothing to recover"
        raise BackupInvalid(msg)
    last = parse_checkpoint(held.note)
    kept = await asyncio.to_thread(_set_aside, folder, (await found.signer()).known)
    signer = await found.signer()  # by now of the new origin
    origin = signer.known.name
    empty = await signed_note(signer, checkpoint_text(origin, 0, EMPTY_ROOT))
    detail = {
        "kind": "gap",
        "reason": reason,
        "old_origin": held.note.partition("\n")[0],
        "old_size": str(last.size),
        "old_root": last.root.hex(),
        "old_kept": str(kept),
    }
    await asyncio.to_thread(leave, folder, "log.recovery", detail)
    await found.lock.replace(held, empty)
    return Recovered(origin=origin, found=kept, size=0)


def _set_aside(folder: Path, keys: LogKeys) -> int:
    """Move the old log away whole, with its key; return how many entries it had published."""
    epoch = epoch_of(folder)
    old = folder / "old" / str(epoch)
    old.mkdir(parents=True)
    try:
        published = LogFiles(folder / "log", keys).checkpoint()
    except Refusal:
        published = None  # damaged, too: it is set aside as it is
    for name in _SET_ASIDE:
        if (folder / name).exists():
            (folder / name).rename(old / name)
    for path in folder.glob("mirror.sqlite*"):
        path.unlink()
    write_epoch(folder, epoch + 1)
    return 0 if published is None else published.size
