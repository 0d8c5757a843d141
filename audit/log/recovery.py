"""What the start makes of lock, log and write-ahead log, whatever a crash left of them.

    lock L    log P    write-ahead log W..E             then
    none      none     none                             a new log: lock and publish size 0
    none      any of the others                         refuse: the lock was lost, or is another's
    size L    P > L, or P = L with another root         refuse: the lock was put back, or a fork
    size L    P < L, W <= P and L <= E, root fits       crashed before publishing: apply L again
    size L    P < L otherwise                           refuse: the disk is older than the lock
    size L    P = L    W <= P <= E                      go on; P..E follow in the next round
    size L    P = L    otherwise                        refuse: acknowledged events are missing

All refusals are EVIDENCE_LOST. Besides, every entry that both the log and the write-ahead log have
must be the same, and the tree's right edge must fit its checkpoint (audit/log/storage.py).

What this cannot notice: a disk put back to a state of less than a publish interval ago, in which
the lost events had not been published. Their receipts can: they name an index and a leaf that are
not there.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from audit.log.publisher import signed_note
from meshkit.contract import Checkpoint, Reason, Refusal
from meshkit.tlog import EMPTY_ROOT, NoteInvalid, checkpoint_text, open_checkpoint

if TYPE_CHECKING:
    from audit.log.locks import CheckpointLock, Locked
    from audit.log.signer import CheckpointSigner
    from audit.log.storage import LogStore, Round
    from audit.log.wal import Wal

__all__ = ["recover"]


def _need(holds: object) -> None:
    if not holds:
        raise Refusal(Reason.EVIDENCE_LOST)


async def recover(
    signer: CheckpointSigner,
    lock: CheckpointLock,
    store: LogStore,
    wal: Wal,
    *,
    publish: bool = True,
) -> tuple[Locked, Round | None]:
    """Bring lock, log and write-ahead log together; afterwards the log's files are the lock's.

    What the lock holds bears no cosignatures, what is published may: only size and root are
    compared. Both may be signed by a key from before a rotation. Without `publish`, what the lock
    holds and the log does not is written, but not published: witnesses are to be asked before.

    Returns:
        What the lock holds; and the round to publish, if there is one.

    Raises:
        Refusal: EVIDENCE_LOST as the table says; KEYS_DOWN if lock or signer cannot be asked.
        OSError: the disk fails.
    """
    held = await lock.load()
    published = await asyncio.to_thread(store.load)
    logged = await asyncio.to_thread(wal.recover)
    if held is None:
        _need(published is None and not logged)
        held = await _create(signer, lock)
    locked = _open_locked(held, signer)
    if published is None:
        # Created but not yet published: the lock can only be at size 0, or the log is gone.
        _need(locked.size == 0 and wal.end == 0)
        if not logged:
            await asyncio.to_thread(wal.begin, 0)
            logged = True
        published = await asyncio.to_thread(store.publish, store.plan(()), held.note)
    _need(logged and published.size <= locked.size)
    tree = await asyncio.to_thread(_join, store, wal, published, locked)
    if tree is not None and publish:
        await asyncio.to_thread(_publish, store, tree, locked)
        tree = None
    return held, tree


async def _create(signer: CheckpointSigner, lock: CheckpointLock) -> Locked:
    origin = signer.known.name
    empty = checkpoint_text(origin, 0, EMPTY_ROOT)
    return await lock.replace(None, await signed_note(signer, empty))


def _join(store: LogStore, wal: Wal, published: Checkpoint, locked: Checkpoint) -> Round | None:
    """Check that the write-ahead log goes on from the log, and apply what the lock knows of.

    Returns the round that was applied and is not published; None if there is none.
    """
    first = wal.groups[0].first if wal.groups else wal.end
    _need(first <= published.size and locked.size <= wal.end)
    leaves: list[bytes] = []
    for group in wal.groups:
        for number, entry in enumerate(wal.read(group), group.first):
            if number < published.size:
                _need(store.has_leaf(number, entry.leaf))
            elif number < locked.size:
                leaves.append(entry.leaf)
    tree = store.plan(leaves)
    _need((tree.size, tree.root) == (locked.size, locked.root))
    if not leaves:
        return None
    store.apply(tree)
    return tree


def _publish(store: LogStore, tree: Round, locked: Checkpoint) -> None:
    store.publish(tree, locked.note)
    store.prune(tree)


def _open_locked(held: Locked, signer: CheckpointSigner) -> Checkpoint:
    try:
        return open_checkpoint(held.note, signer.known)
    except NoteInvalid:
        raise Refusal(Reason.EVIDENCE_LOST) from None
