"""Opens an audit log for as long as a block runs."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from audit.cosigning.witnesses import Witnesses, witnesses_of
from audit.keys.pseudonyms import Pseudonyms
from audit.log.appender import AuditLog, Parts
from audit.log.disk import Disk, make_folders
from audit.log.intake import Committer
from audit.log.mover import Mover
from audit.log.mover_process import MOVER_LOCK, MoverProcess
from audit.log.publisher import Publisher
from audit.log.receipts import ReceiptMaker
from audit.log.recovery import recover
from audit.log.signing_keys import following_keys, own_policy, receipt_key_note, tell_auditors
from audit.log.storage import LogStore, Round
from audit.log.wal import Wal
from audit.mirror.copier import mirroring
from audit.privacy.payloads import PayloadStore, Sealer
from audit.records.events import parse_leaf
from audit.records.notes import Notes
from audit.records.spool import spooling
from audit.search.index import Index
from meshkit.background import running
from meshkit.contract import Reason, Refusal
from meshkit.counters import counted, measured
from meshkit.work_threads import WorkThreads

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from audit.keys.pseudonyms import NamingKeys
    from audit.log.locks import CheckpointLock, Locked
    from audit.log.signer import CheckpointSigner
    from audit.settings import AuditSettings
    from meshkit.tlog import Policy

__all__ = ["open_audit"]

log = structlog.get_logger()

_WRITER_POLL_S = 0.02
_FORGET_S = 5.0
_MOVER_WAIT_S = 10.0


@asynccontextmanager
async def open_audit(
    settings: AuditSettings,
    *,
    signer: CheckpointSigner,
    lock: CheckpointLock,
    sealer: Sealer,
    pseudonym_key: bytes,
    naming_keys: NamingKeys,
    disk: Disk | None = None,
) -> AsyncIterator[AuditLog]:
    """Open the log under `settings.data_dir`, recovering from whatever ended the last run.

    Leaving the block: new events are refused, those under way become durable, and what is durable
    is published if that can be done at once.

    Args:
        settings: Folders and limits.
        signer: Its key's name is the log's origin.
        lock: Where the newest checkpoint is held, away from this disk.
        sealer: Seals payloads.
        pseudonym_key: Of tenants: 32 bytes; the same as long as records are to be found by tenant.
        naming_keys: Of workloads, users and subjects, per tenant.
        disk: Another disk, for tests.

    Raises:
        Refusal: EVIDENCE_LOST, if disk and lock contradict each other; KEYS_DOWN, if signer or
            lock cannot be asked; CONFLICT, if another process has the log open.
        OSError: the disk fails.
    """
    async with AsyncExitStack() as owned:
        opened = await _opened(owned, settings, disk or Disk(), signer, lock)
        wal, store, witnesses, publisher, moving = opened
        parts = Parts(
            settings=settings,
            signer=signer,
            pseudonyms=await _pseudonyms(owned, pseudonym_key, naming_keys),
            sealer=sealer,
            wal=wal,
            store=store,
            payloads=moving.payloads,
            index=moving.index,
            mover=moving.mover,
            receipts=await ReceiptMaker.start(signer),
            publisher=publisher,
        )
        audit = await _started(owned, parts)
        if witnesses is not None:
            await _witnessed(audit, witnesses)
        await owned.enter_async_context(_keys_followed(audit, disk or Disk()))
        yield audit


def _keys_followed(audit: AuditLog, disk: Disk) -> AbstractAsyncContextManager[None]:
    """Take changes of the keys that sign checkpoints, as long as the block runs."""
    following = following_keys(audit, disk, audit.parts.signer.vkey)
    return running(following, "audit-signing-keys")


async def _opened(
    owned: AsyncExitStack,
    settings: AuditSettings,
    disk: Disk,
    signer: CheckpointSigner,
    lock: CheckpointLock,
) -> tuple[Wal, LogStore, Witnesses | None, Publisher, _Moving]:
    """Take the log for us, recover it, and bring disk and witnesses up to it."""
    make_folders(disk, settings.data_dir)
    owned.callback(disk.close, await _only_writer(disk, settings))
    # If the writer before us was killed, so is its mover: but it may be at work until then.
    disk.close(await _locked(disk, settings.data_dir / MOVER_LOCK, _MOVER_WAIT_S))
    policy = await asyncio.to_thread(own_policy, settings)
    wal, store, held, left = await _recovered(
        owned, settings, disk, signer=signer, lock=lock, policy=policy
    )
    await owned.enter_async_context(mirroring(settings, lambda: signer.known))
    witnesses = await owned.enter_async_context(
        witnesses_of(policy, settings, lambda: signer.known)
    )
    slow = owned.enter_context(WorkThreads("audit-publish"))
    moving = await _moving(
        owned, settings, disk,
        wal=wal, store=store, origin=signer.known.name, slow=slow,
    )  # fmt: skip
    publisher = Publisher(
        settings,
        signer=signer,
        lock=lock,
        held=held,
        wal=wal,
        store=store,
        index=moving.index,
        mover=moving.mover,
        thread=slow,
        witnesses=witnesses,
        left=left,
    )
    # Before the first append: what the index does not know would look new.
    try:
        await moving.mover.catch_up()
    except sqlite3.Error:
        raise Refusal(Reason.AUDIT_DOWN) from None
    await publisher.confirm()  # before anything is signed: the receipt key's endorsement, too
    return wal, store, witnesses, publisher, moving


async def _pseudonyms(owned: AsyncExitStack, log_key: bytes, naming_keys: NamingKeys) -> Pseudonyms:
    pseudonyms = Pseudonyms(log_key, naming_keys)
    await owned.enter_async_context(running(_forgetting(pseudonyms), "audit-pseudonyms"))
    return pseudonyms


async def _witnessed(audit: AuditLog, witnesses: Witnesses) -> None:
    """Record when the quorum is lost, and when it is there again."""
    notes = Notes(audit)

    async def note(held: bool) -> None:  # noqa: FBT001 -- the one thing there is to say
        with suppress(Refusal):  # it was logged and is measured; nothing was to be refused
            await notes.note(
                "witness.down",
                outcome="ok" if held else Reason.AUDIT_DOWN.name,
                detail={"quorum": "held" if held else "lost"},
            )

    witnesses.on_change = note
    if not witnesses.quorum:
        await note(held=False)


async def _forgetting(pseudonyms: Pseudonyms) -> None:
    """Let go of names whose key was erased or has served its time, though nobody asks for them."""
    while True:
        await asyncio.sleep(_FORGET_S)
        pseudonyms.forget_what_keys_forgot()


async def _only_writer(disk: Disk, settings: AuditSettings) -> int:
    """Take the log for us alone; wait for one that hands over, if told to."""
    if settings.standby_file is not None:
        settings.standby_file.touch(mode=0o600)
    return await _locked(disk, settings.data_dir / "writer.lock", settings.writer_wait_ms / 1_000)


async def _locked(disk: Disk, path: Path, wait_s: float) -> int:
    clock = asyncio.get_running_loop().time
    until = clock() + wait_s
    while True:
        try:
            return disk.lock(path)
        except BlockingIOError:
            if clock() >= until:
                raise Refusal(Reason.CONFLICT) from None
        await asyncio.sleep(_WRITER_POLL_S)


async def _recovered(
    owned: AsyncExitStack,
    settings: AuditSettings,
    disk: Disk,
    *,
    signer: CheckpointSigner,
    lock: CheckpointLock,
    policy: Policy | None,
) -> tuple[Wal, LogStore, Locked, Round | None]:
    folder = settings.data_dir
    wal = Wal(disk, folder / "wal", segment_bytes_max=settings.segment_bytes_max)
    owned.callback(wal.close)
    store = LogStore(disk, folder / "log", signer.known)
    # What witnesses are to cosign is published once they did.
    held, left = await recover(signer, lock, store, wal, publish=policy is None)
    tell_auditors(disk, folder, policy, signer)
    return wal, store, held, left


@dataclass(frozen=True, slots=True)
class _Moving:
    """What durable events are moved into, and by whom."""

    mover: Mover
    payloads: PayloadStore
    index: Index


async def _moving(
    owned: AsyncExitStack,
    settings: AuditSettings,
    disk: Disk,
    *,
    wal: Wal,
    store: LogStore,
    origin: str,
    slow: WorkThreads,
) -> _Moving:
    payloads = PayloadStore(disk, settings.data_dir / "payloads")
    owned.callback(payloads.close)
    index = Index(settings.data_dir / "index.sqlite", origin)
    owned.callback(index.close)
    if not await asyncio.to_thread(_fits, index, wal, store):
        index.rebuild()
    mover = Mover(
        settings,
        wal=wal,
        store=store,
        payloads=payloads,
        index=index,
        thread=slow,
        # A process would use the real disk.
        process=MoverProcess(settings.data_dir) if type(disk) is Disk else None,
    )
    owned.push_async_callback(mover.close)
    return _Moving(mover, payloads, index)


def _fits(index: Index, wal: Wal, store: LogStore) -> bool:
    """Tell whether the index's last entry is the log's, and is found by its key."""
    last = index.size - 1
    if last < 0:
        return True
    if last >= wal.end or store.published is None:
        return False
    in_tree = last < store.published.size
    leaf = parse_leaf(store.entries(last, last + 1)[0] if in_tree else wal.entry(last).leaf)
    try:
        place = index.find(leaf.call_id, leaf.phase)
    except Refusal:
        return False
    return place is not None and place.number == last


async def _started(owned: AsyncExitStack, parts: Parts) -> AuditLog:
    """Start committing and publishing, and log this run's receipt key."""
    audit = AuditLog(parts)
    committer = Committer(
        parts.settings,
        parts.wal,
        parts.receipts,
        owned.enter_context(WorkThreads("audit-commit")),
        fresh=parts.publisher.fresh,
        on_durable=audit.remember,
        on_settled=audit.settled,
    )
    audit.attach(committer)
    _measure(owned, audit, committer, parts.publisher)
    await owned.enter_async_context(_running(audit, committer, parts.publisher))
    # First of all, what a restore or recovery has to say of the log that goes on here.
    await owned.enter_async_context(spooling(audit, parts.settings.data_dir))
    await audit.append(receipt_key_note(parts.receipts))
    return audit


def _measure(
    owned: AsyncExitStack, audit: AuditLog, committer: Committer, publisher: Publisher
) -> None:
    for name, read in (
        ("audit.waiting", lambda: audit.stats.waiting),
        ("audit.backlog", lambda: publisher.backlog),
        ("audit.checkpoint_age_s", lambda: publisher.checkpoint_age_s),
        ("audit.unpublished_age_s", lambda: publisher.checkpoint_age_s * bool(publisher.backlog)),
        ("audit.open_intents", lambda: len(committer.open_calls)),
    ):
        owned.enter_context(measured(name, read))


@asynccontextmanager
async def _running(
    audit: AuditLog, committer: Committer, publisher: Publisher
) -> AsyncIterator[None]:
    """Run both tasks; on leaving, finish what is under way and publish once more."""
    commits = asyncio.create_task(committer.run(), name="audit-commit")
    publishes = asyncio.create_task(publisher.run(), name="audit-publish")

    def lost(task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        failure = task.exception()
        counted("audit.closed")
        log.critical("audit.closed", kind=type(failure).__name__)
        audit.close(failure.reason if isinstance(failure, Refusal) else Reason.AUDIT_DOWN)
        if task is commits:
            audit.abandon()

    for task in (commits, publishes):
        task.add_done_callback(lost)
    publisher.wake()
    try:
        yield
    finally:
        audit.close(Reason.AUDIT_DOWN)
        await audit.idle()
        healthy = not publishes.done()
        for task in (commits, publishes):
            task.cancel()
        await asyncio.gather(commits, publishes, return_exceptions=True)
        if healthy:
            with suppress(Refusal, OSError, sqlite3.Error):
                await publisher.catch_up()
