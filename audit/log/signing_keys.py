"""Takes up a rotation of the keys that sign checkpoints, without a restart.

    1  publish   vkey and policy name the keys in force, the newest first
    2  endorse   the receipt key of this run is endorsed by each of them
    3  record    the endorsements, as an event: the next checkpoint bears the new signatures

The signer itself signs by what it saw when it looked last, so between 1 and 3 a checkpoint may bear
a signature more than before, or at an overlap's end one less; neither is wrong to whoever holds a
key in force. What fails is tried again at the next look.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

from audit.cosigning.witnesses import policy_for_auditors
from audit.log.disk import replace
from meshkit.call_id import new_call_id
from meshkit.contract import Event, Phase, Refusal, TraceContext
from meshkit.counters import counted
from meshkit.tlog import LogKeys, Policy

if TYPE_CHECKING:
    from pathlib import Path

    from audit.log.appender import AuditLog
    from audit.log.disk import Disk
    from audit.log.receipts import ReceiptMaker
    from audit.log.signer import CheckpointSigner
    from audit.settings import AuditSettings

__all__ = ["following_keys", "own_policy", "receipt_key_note", "tell_auditors"]

log = structlog.get_logger()


def own_policy(settings: AuditSettings) -> Policy | None:
    """Read the witnesses' policy. Raises PolicyInvalid and OSError."""
    path = settings.witness_policy
    return None if path is None else Policy.parse(path.read_bytes())


def tell_auditors(
    disk: Disk, folder: Path, policy: Policy | None, signer: CheckpointSigner
) -> None:
    """Write the files by which auditors know the log. Blocks; raises OSError."""
    keys = LogKeys.parse(signer.vkey)
    replace(disk, folder / "vkey", f"{keys}\n".encode())
    replace(disk, folder / "policy", policy_for_auditors(policy, keys).text().encode())


def receipt_key_note(receipts: ReceiptMaker) -> Event:
    """Return what is recorded of the key that signs receipts, at each start and rotation."""
    return Event(
        call_id=new_call_id(),
        phase=Phase.NOTE,
        tenant="",
        occurred_at_us=time.time_ns() // 1_000,
        trace=TraceContext(trace_id=bytes(16), span_id=bytes(8)),
        action="receipt.key",
        outcome="ok",
        detail=receipts.detail,
    )


async def following_keys(audit: AuditLog, disk: Disk, taken_up: str) -> None:
    """Look for rotations as long as the log is open; `taken_up`: the vkeys told at its start."""
    signer, settings = audit.parts.signer, audit.parts.settings
    while True:
        await asyncio.sleep(settings.checkpoint_key_look_s)
        try:
            await signer.look()
            if signer.vkey != taken_up:
                seen = signer.vkey
                await _take_up(audit, disk)
                taken_up = seen
        except (Refusal, OSError, ValueError) as failure:
            counted("audit.keys_not_followed")
            log.warning("audit.keys_not_followed", kind=type(failure).__name__)


async def _take_up(audit: AuditLog, disk: Disk) -> None:
    parts = audit.parts
    folder, signer = parts.settings.data_dir, parts.signer
    policy = await asyncio.to_thread(own_policy, parts.settings)
    await asyncio.to_thread(tell_auditors, disk, folder, policy, signer)  # 1
    await parts.receipts.endorse(signer)  # 2
    await audit.append(receipt_key_note(parts.receipts))  # 3
    log.info("audit.keys_in_force", count=len(LogKeys.parse(signer.vkey).keys))
