"""Clients for the web's side of the mesh: one CA, no proxies of the environment, nothing left open.

    async with https_client(ca, timeout_s=5.0) as client:
        reply = await client.get(url)

httpx2 (2.16) closes the connection of a TLS handshake that failed, but not of one that was
cancelled in between, as every `asyncio.timeout` and every shutdown may do; the socket would then be
open until the garbage collector came by. `_Opened` closes it, by the documented "trace" extension.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import httpx2

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["https_client"]


def https_client(
    ca: Path | None,
    *,
    timeout_s: float,
    connect_timeout_s: float | None = None,
    base_url: str = "",
    connections_max: int = 100,
    tls_min: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
    headers: dict[str, str] | None = None,
) -> httpx2.AsyncClient:
    """Make a client that trusts `ca` (PEM), or the system's CAs if it is None.

    Args:
        ca: Of the servers asked.
        timeout_s: For each read, write and wait for a connection of the pool, in seconds.
        connect_timeout_s: To a host that does not answer; None: as `timeout_s`.
        base_url: Put before paths.
        connections_max: Beyond it requests wait their turn.
        tls_min: The oldest TLS spoken; TLSv1_3 to servers of our own.
        headers: Sent with each request.

    Raises:
        OSError: `ca` cannot be read or holds no certificate.
    """
    context = ssl.create_default_context(cafile=None if ca is None else str(ca))
    context.minimum_version = tls_min
    connect_s = timeout_s if connect_timeout_s is None else connect_timeout_s
    return httpx2.AsyncClient(
        base_url=base_url,
        verify=context,
        headers=headers,
        timeout=httpx2.Timeout(timeout_s, connect=connect_s),
        limits=httpx2.Limits(max_connections=connections_max),
        trust_env=False,
        event_hooks={"request": [_watched]},
    )


async def _watched(request: httpx2.Request) -> None:
    request.extensions["trace"] = _Opened().told


class _Opened:
    """The connections of one request whose TLS handshake is not yet done."""

    def __init__(self) -> None:
        self._streams: list[Any] = []

    async def told(self, event: str, info: dict[str, Any]) -> None:
        """Be told by httpcore2 what it does; event names are those of its documentation."""
        if event == "connection.connect_tcp.complete":
            self._streams.append(info["return_value"])
        elif event == "connection.start_tls.complete":
            self._streams.clear()
        elif event == "connection.start_tls.failed":
            for stream in self._streams:
                await stream.aclose()
