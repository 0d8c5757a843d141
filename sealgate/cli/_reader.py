"""A monitor's source that is an audit service, asked over gRPC."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from audit.monitor.sources import CHECKPOINT, UnreachableError
from sealgate.audit_client import AsyncAuditReader
from sealgate.errors import NotFoundError, SealgateError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

__all__ = ["ServiceSource"]


class ServiceSource:
    """Checkpoints and consistency proofs of one service; no tiles. See `audit.monitor.sources`."""

    tiles = False

    def __init__(self, reader: AsyncAuditReader) -> None:
        self._reader = reader

    @classmethod
    @asynccontextmanager
    async def of(
        cls, target: str, tls: Path | None, server_name: str | None
    ) -> AsyncIterator[ServiceSource]:
        """Own the connection for as long as the block runs. Raises OSError and TypeError."""
        async with AsyncAuditReader(target, tls=tls, server_name=server_name) as reader:
            yield cls(reader)

    async def read(self, path: str) -> bytes | None:
        """See `Source.read`: the checkpoint, and nothing else."""
        if path != CHECKPOINT:
            return None
        try:
            return (await self._reader.checkpoint()).note.encode()
        except SealgateError:
            raise UnreachableError from None

    async def consistency(self, old: int, new: int) -> Sequence[bytes] | None:
        """See `Source.consistency`."""
        try:
            return await self._reader.consistency(old, new)
        except NotFoundError:
            return None
        except SealgateError:
            raise UnreachableError from None
