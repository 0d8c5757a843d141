"""Brings durable events into the tree and publishes checkpoints, in a crash-safe order.

The order is Sunlight's, with the write-ahead log as the staging area:

    1  stage     the events are in the write-ahead log (that is why they were acknowledged)
    2  sign      the larger tree's checkpoint, tree computed in memory
    3  lock      compare-and-swap the checkpoint in the lock, on another host
    4  apply     tiles and bundles, each written beside, fsynced, linked; then their folders
    5  witness   cosignatures, where there is a policy (audit/cosigning/witnesses.py)
    6  publish   the checkpoint file, with the cosignatures that came
    7  clean     drop write-ahead segments and partial tiles that nothing needs any more

A crash between any two steps is mended at the next start (recovery.py). What fails for now
(OpenBao away, disk full) is tried again with the same round: once a checkpoint may have been signed
and sent to the lock, no other one of that log is made until its fate is known. A lock that holds
anything but ours or its predecessor means a second writer or a restored disk, and is final.

Acknowledgements never wait for any of this. Payloads and the search index come first, since they
need nothing but the disk.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from audit.log.fresh import FreshLeaves
from audit.log.pace import entries_from
from audit.log.signer import signed_by
from meshkit.contract import Checkpoint, Reason, Refusal
from meshkit.counters import counted
from meshkit.tlog import (
    TileHashes,
    checkpoint_text,
    consistency_proof,
    format_line,
    format_note,
    signature_line,
    split_note,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from audit.cosigning.witnesses import Witnesses
    from audit.log.locks import CheckpointLock, Locked
    from audit.log.mover import Mover
    from audit.log.signer import CheckpointSigner
    from audit.log.storage import LogStore, Round
    from audit.log.wal import Wal
    from audit.search.index import Index
    from audit.settings import AuditSettings
    from meshkit.work_threads import WorkThreads

__all__ = ["Publisher", "signed_note"]

log = structlog.get_logger()

_MOVE_EVERY_S = 0.1
_MOVE_EVENTS = 64
"""Between checkpoints payloads and index follow so often, if so many wait: few go with the next."""


async def signed_note(signer: CheckpointSigner, text: str) -> str:
    """Sign a text as a note, by each key in force; the newest signature stands first.

    Raises:
        Refusal: KEYS_DOWN, also if a signature does not verify.
    """
    signed = await signed_by(signer, text.encode())
    return format_note(text, *(signature_line(key, signature) for key, signature in signed))


class _QuorumUnmet(Refusal):
    """Checkpoints must wait for witnesses."""

    def __init__(self) -> None:
        super().__init__(Reason.AUDIT_DOWN)


def _checkpoint(tree: Round, note: str) -> Checkpoint:
    return Checkpoint(note=note, size=tree.size, root=tree.root)


@dataclass(slots=True)
class _Under:
    """A round under way, and how far it is."""

    tree: Round
    note: str
    asked: bool = False
    """The lock may have taken the note."""
    locked: bool = False
    applied: bool = False


class Publisher:
    """Runs behind the appender; see the top of this file."""

    def __init__(
        self,
        settings: AuditSettings,
        *,
        signer: CheckpointSigner,
        lock: CheckpointLock,
        held: Locked,
        wal: Wal,
        store: LogStore,
        index: Index,
        mover: Mover,
        thread: WorkThreads,
        witnesses: Witnesses | None = None,
        left: Round | None = None,
    ) -> None:
        """Take over a log; `left` is a round that the lock holds and that is not published yet."""
        self._settings = settings
        self._signer = signer
        self._origin = signer.known.name
        self._lock = lock
        self._held = held
        self._wal = wal
        self._store = store
        self._index = index
        self._mover = mover
        self.fresh = FreshLeaves(settings.fresh_bytes_max)
        """What is to go into the tree, as far as it is given to us; else we read it."""
        self._thread = thread
        self.witnesses = witnesses
        self._under = None if left is None else _Under(left, held.note, locked=True, applied=True)
        self._confirmed = witnesses is None
        self._segment_begun = self._published_s = time.monotonic()
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Say that there are new durable events."""
        self._wake.set()

    @property
    def backlog(self) -> int:
        """Durable events that are not yet both indexed and in a published checkpoint."""
        assert self._store.published is not None
        return self._wal.end - min(self._index.size, self._store.published.size)

    @property
    def checkpoint_age_s(self) -> float:
        """How long ago a checkpoint was published; or this run began."""
        return time.monotonic() - self._published_s

    async def _blocking(self, work: Callable[[], None]) -> None:
        await self._thread.do(work)

    async def run(self) -> None:
        """Publish whenever there is something to publish; returns only when evidence is lost.

        Raises:
            Refusal: EVIDENCE_LOST. The service must not append any more.
        """
        self._mover.hurry(hurried=False)
        try:
            while True:
                await self._woken()
                await self._round()
        finally:
            self._mover.hurry(hurried=True)

    async def _woken(self) -> None:
        with suppress(TimeoutError):
            # Without events, too: what lies in the write-ahead log has an age limit.
            # Not wait_for: in Python 3.11 it may swallow the cancellation that ends us.
            async with asyncio.timeout(self._settings.segment_age_max_s):
                await self._wake.wait()
        self._wake.clear()

    async def _round(self) -> None:
        before = self._store.published
        try:
            await self.catch_up()
            if self._store.published is not before:  # else nothing was due: the next event is
                await self._pause()
        except (Refusal, OSError, sqlite3.OperationalError) as failure:
            if isinstance(failure, Refusal) and failure.reason is Reason.EVIDENCE_LOST:
                log.critical("audit.evidence_lost", durable=self._wal.end)
                raise
            counted("audit.publish_failed")
            log.warning("audit.publish_failed", kind=type(failure).__name__, backlog=self.backlog)
            self._wake.set()
            await asyncio.sleep(self._settings.publish_retry_ms / 1_000)

    async def _pause(self) -> None:
        """Let the next checkpoint wait, but not payloads and index: to move all at once is long."""
        clock = asyncio.get_running_loop().time
        until = clock() + self._settings.publish_interval_ms / 1_000
        while (left := until - clock()) > 0:
            await asyncio.sleep(min(left, _MOVE_EVERY_S))
            if self._wal.end - self._index.size >= _MOVE_EVENTS:
                await self._mover.catch_up()

    async def catch_up(self) -> None:
        """Move payloads, index, and publish rounds until nothing durable is left out.

        Raises:
            Refusal: EVIDENCE_LOST (final); KEYS_DOWN, or AUDIT_DOWN while witnesses are waited
                for (call again).
            OSError, sqlite3.OperationalError: call again.
        """
        end = self._wal.end
        await self._mover.catch_up()
        if not self._confirmed:
            await self._confirm()
        while self._under is not None or self._store.planned < end:
            await self._publish()
        if self.witnesses is not None and self.witnesses.stale:
            await self._refresh(self.witnesses)
        await self._blocking(self._clean)

    # --- tree and checkpoint ----------------------------------------------------------------

    async def _publish(self) -> None:
        """Take one round through the steps; a failed one goes on from where it was."""
        if self._under is None:
            self._under = await self._begin()
        under = self._under
        if not under.locked:
            await self._take_lock(under)
        if not under.applied:
            await self._blocking(lambda: self._store.apply(under.tree))  # step 4
            under.applied = True
        note = under.note
        if self.witnesses is not None:
            note += await self._cosigned(self.witnesses, _checkpoint(under.tree, under.note))
        await self._blocking(lambda: self._finish(under, note))
        self._under = None

    # --- witnesses --------------------------------------------------------------------------

    async def confirm(self) -> None:
        """Ask the witnesses about the newest checkpoint there is, before anything new is signed.

        Raises:
            Refusal: EVIDENCE_LOST, if one cosigned more than that, or another tree: the log was
                put back together with its lock, or forked.
        """
        with suppress(_QuorumUnmet):
            await self._confirm()

    async def _confirm(self) -> None:
        if self.witnesses is not None:
            under = self._under
            newest = _checkpoint(under.tree, under.note) if under else self._store.published
            assert newest is not None
            lines = await self._cosigned(self.witnesses, newest, patient=True)
            if under is None and self.witnesses.quorum:
                await self._publish_again(newest, lines)
        self._confirmed = True

    async def _cosigned(
        self, witnesses: Witnesses, checkpoint: Checkpoint, *, patient: bool = False
    ) -> str:
        """Step 5: return the cosignatures to publish.

        Raises:
            Refusal: EVIDENCE_LOST; or AUDIT_DOWN while the quorum is required and not met.
        """
        prove = self._prover(checkpoint.size)
        cosigned = await witnesses.cosign(checkpoint, prove, patient=patient)
        if self._settings.witness_required and not cosigned.quorum:
            raise _QuorumUnmet
        return cosigned.lines

    def _prover(self, size: int) -> Callable[[int], tuple[bytes, ...]]:
        reader = TileHashes(self._store, size)
        return lambda old: consistency_proof(reader, old, size)

    async def _refresh(self, witnesses: Witnesses) -> None:
        """Have the published checkpoint cosigned again: for a quorum, or for a newer time."""
        published = self._store.published
        assert published is not None
        cosigned = await witnesses.cosign(
            published, self._prover(published.size), afresh=witnesses.quorum
        )
        if cosigned.quorum:  # else what is published may have been cosigned by more
            await self._publish_again(published, cosigned.lines)

    async def _publish_again(self, published: Checkpoint, lines: str) -> None:
        """Publish the same checkpoint with other cosignatures."""
        text, signatures = split_note(published.note)
        ours = {(key.name, key.key_id) for key in self._signer.known.keys}
        own = [format_line(name, raw) for name, raw in signatures if (name, raw[:4]) in ours]
        note, tree = format_note(text, *own, lines), self._store.plan(())
        await self._blocking(lambda: self._put(tree, note))

    def _put(self, tree: Round, note: str) -> None:
        self._store.publish(tree, note)

    async def _begin(self) -> _Under:
        tree = await self._thread.do(self._plan)
        text = checkpoint_text(self._origin, tree.size, tree.root)
        return _Under(tree, await signed_note(self._signer, text))  # step 2

    def _plan(self) -> Round:
        rest, most = self._mover.pace.sliced(), self._settings.round_events_max
        start = self._store.planned
        leaves, hashes = self.fresh.since(start, most)
        # What fell out of memory; or became durable just now, and is not yet in there.
        more = entries_from(self._wal, start + len(leaves), most - len(leaves), rest)
        leaves += [entry.leaf for entry in more]
        return self._store.plan(leaves, hashes, rest)

    async def _take_lock(self, under: _Under) -> None:
        """Step 3. An answer that was lost is made up for by asking what the lock holds."""
        if under.asked:
            held = await self._lock.load()
            if held is not None and held.note == under.note:
                self._held, under.locked = held, True
                return
            if held != self._held:
                raise Refusal(Reason.EVIDENCE_LOST)
        under.asked = True
        self._held = await self._lock.replace(self._held, under.note)
        under.locked = True

    def _finish(self, under: _Under, note: str) -> None:
        self._put(under.tree, note)  # step 6
        self.fresh.drop_before(under.tree.size)
        self._published_s = time.monotonic()
        self._store.prune(under.tree)

    def _clean(self) -> None:
        """Step 7: drop what is published, moved and indexed."""
        assert self._store.published is not None
        safe = min(self._store.published.size, self._index.size)
        if time.monotonic() - self._segment_begun > self._settings.segment_age_max_s:
            self._wal.rotate()
            self._segment_begun = time.monotonic()
        self._wal.drop_before(safe)
        self._wal.prepare()
