"""Where a monitor reads a log: a folder, or static files over HTTP. Neither is trusted.

An audit service that is asked over gRPC has no tiles to give: such a source (`tiles` is False)
proves by itself that the log grew, and its entries are not read.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

import httpx2

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["CHECKPOINT", "FolderSource", "HttpSource", "Source", "UnreachableError"]

CHECKPOINT = "checkpoint"
_FILE_BYTES_MAX = 256 * (2 + 65_535)
"""Of the largest entry bundle there may be."""
_OK, _NOT_FOUND, _GONE = 200, 404, 410


class UnreachableError(Exception):
    """The source cannot be read now. Says nothing about the log."""


class Source(Protocol):
    """One log's files, or who speaks for them."""

    tiles: bool
    """Whether `read` has tiles and bundles; else `consistency` is asked."""

    async def read(self, path: str) -> bytes | None:
        """Return a file's bytes; None if there is none.

        Raises:
            UnreachableError: it cannot be read now.
        """
        ...

    async def consistency(self, old: int, new: int) -> Sequence[bytes] | None:
        """Return the proof that the tree of `new` extends that of `old`; None if it has none.

        Raises:
            UnreachableError: it cannot be asked now.
        """
        ...


class FolderSource:
    """The log's folder, or a copy of it."""

    tiles = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def read(self, path: str) -> bytes | None:
        """See `Source.read`."""
        try:
            return await asyncio.to_thread((self._folder / path).read_bytes)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:
            raise UnreachableError from None

    async def consistency(self, old: int, new: int) -> None:
        """See `Source.consistency`: the tiles prove it."""


class HttpSource:
    """Static files below a URL, as any web server or object store serves them."""

    tiles = True

    def __init__(self, url: str, client: httpx2.AsyncClient) -> None:
        self._url = url.rstrip("/")
        self._client = client

    async def read(self, path: str) -> bytes | None:
        """See `Source.read`."""
        body = bytearray()
        try:
            async with self._client.stream("GET", f"{self._url}/{path}") as reply:
                if reply.status_code in {_NOT_FOUND, _GONE}:
                    return None
                if reply.status_code != _OK:
                    raise UnreachableError
                async for part in reply.aiter_bytes():
                    body += part
                    if len(body) > _FILE_BYTES_MAX:
                        raise UnreachableError
        except httpx2.HTTPError:
            raise UnreachableError from None
        return bytes(body)

    async def consistency(self, old: int, new: int) -> None:
        """See `Source.consistency`: the tiles prove it."""


def is_url(place: str) -> bool:
    """Tell whether a place is a URL rather than a folder or host:port."""
    return urlsplit(place).scheme in {"http", "https"}
