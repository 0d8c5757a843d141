"""What an audit log is made of, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshkit.contract import Refusal

if TYPE_CHECKING:
    from audit.keys.pseudonyms import Pseudonyms
    from audit.log.mover import Mover
    from audit.log.publisher import Publisher
    from audit.log.receipts import ReceiptMaker
    from audit.log.signer import CheckpointSigner
    from audit.log.storage import LogStore
    from audit.log.wal import Wal
    from audit.privacy.payloads import PayloadStore, Sealer
    from audit.search.index import Index
    from audit.settings import AuditSettings

__all__ = ["AuditStats", "Parts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What an `AuditLog` is made of; `open_audit` puts them together."""

    settings: AuditSettings
    signer: CheckpointSigner
    pseudonyms: Pseudonyms
    sealer: Sealer
    wal: Wal
    store: LogStore
    payloads: PayloadStore
    index: Index
    receipts: ReceiptMaker
    publisher: Publisher
    mover: Mover

    def leaf(self, index: int) -> bytes:
        """Return a durable entry's leaf, out of the tree or the write-ahead log. Blocks.

        Raises:
            Refusal: NOT_FOUND, EVIDENCE_LOST.
        """
        if not self._in_tree(index):
            try:
                return self.wal.entry(index).leaf
            except (FileNotFoundError, Refusal):
                if not self._in_tree(index):
                    raise
        # It is there, or came there meanwhile, and its segment was dropped while we looked.
        return self.store.entries(index, index + 1)[0]

    def _in_tree(self, index: int) -> bool:
        published = self.store.published
        return published is not None and index < published.size


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditStats:
    """How far the log is, in events."""

    durable: int
    indexed: int
    published: int
    waiting: int
