"""Opens sealed payloads, wherever they lie: in the write-ahead log, or in their partition."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from audit.privacy.payloads import payload_aad, read_payload
from audit.privacy.subjects import payload_purpose
from audit.records.events import parse_leaf
from meshkit.contract import Reason, Refusal
from meshkit.envelope import KeyErased

if TYPE_CHECKING:
    from audit.log.parts import Parts
    from audit.privacy.payloads import Opened
    from audit.records.events import Leaf

__all__ = ["opened_payload"]


async def opened_payload(parts: Parts, tenant: str, index: int) -> Opened:
    """Open an entry's payload.

    Raises:
        Refusal: NOT_FOUND (none, expired, erased, or another tenant's), KEYS_DOWN, EVIDENCE_LOST.
    """
    if not 0 <= index < parts.wal.end:
        raise Refusal(Reason.NOT_FOUND)
    leaf = parse_leaf(await asyncio.to_thread(parts.leaf, index))
    if leaf.tenant != parts.pseudonyms.tenant(tenant) or "payload_sha256" not in leaf.log:
        raise Refusal(Reason.NOT_FOUND)
    sealed = await asyncio.to_thread(_sealed, parts, index, leaf)
    try:
        plain = await parts.sealer.open(
            tenant=tenant,
            purpose=payload_purpose(leaf.log["retention"], leaf.event.get("subject", "")),
            sealed=sealed,
            aad=payload_aad(leaf.call_id, leaf.phase),
        )
    except KeyErased:
        raise Refusal(Reason.NOT_FOUND) from None
    return read_payload(plain)


def _sealed(parts: Parts, index: int, leaf: Leaf) -> bytes:
    if index >= parts.index.size:
        return parts.wal.entry(index).sealed
    place = parts.index.find(leaf.call_id, leaf.phase)
    if place is None or not place.payload:
        raise Refusal(Reason.NOT_FOUND)
    return parts.payloads.read(index, place.payload, leaf.log["payload_sha256"])
