"""HTTP/1.1 to one server of ours, over TLS 1.3, on connections that stay open.

    async with https_link("https://127.0.0.1:8200", ca, limits) as link:
        status, body = await link.request("POST", "/v1/x", [("X-Vault-Token", token)], b"{}")

No redirects, cookies, proxies, compression: OpenBao is asked without. HTTP itself is left to h11,
the rest is one future a request: a third of the CPU that httpx2 takes for the same (0.35 instead
of 1 ms, 0.9 instead of 2.2 on cold caches), and each checkpoint of the log makes two requests.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

import h11

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

__all__ = ["BrokenOffError", "HttpsLink", "LinkLimits", "NotReachedError", "https_link"]

_HTTPS_PORT = 443
_REPLY_BYTES_MAX = 32 << 20
"""A longer reply is broken off: no answer of OpenBao's comes near."""

_IDLE_S = 5.0
"""As httpx: less than any server waits, more than there is between two checkpoints of the log."""

Reply = tuple[int, bytes]
"""HTTP status and body."""


class NotReachedError(Exception):
    """There is no connection, or none was free in time: the request was not sent."""


class BrokenOffError(Exception):
    """No whole reply came, or not in time. What was asked may have been done."""


@dataclass(frozen=True, slots=True)
class LinkLimits:
    """Of one server's connections.

    connect_s: for TCP and TLS handshakes together.
    request_s: for a request and its reply; and for the wait until a connection is free.
    connections_max: beyond it requests wait.
    """

    connect_s: float
    request_s: float
    connections_max: int


class _Connection(asyncio.Protocol):
    """One connection, with one request at a time."""

    def __init__(self) -> None:
        self._http = h11.Connection(h11.CLIENT)
        self._transport: asyncio.Transport | None = None
        self._reply: asyncio.Future[Reply] | None = None
        self._status = 0
        self._parts: list[bytes] = []
        self._size = 0

    async def ask(self, request: h11.Request, body: bytes) -> Reply:
        """Send a request, wait for the whole reply.

        Raises:
            OSError, h11.ProtocolError: there is none, or it is no HTTP.
        """
        assert self._transport is not None
        self._reply = asyncio.get_running_loop().create_future()
        self._parts, self._size = [], 0
        events = (request, h11.Data(body), h11.EndOfMessage())
        self._transport.write(b"".join(self._http.send(event) or b"" for event in events))
        try:
            return await self._reply
        finally:
            # Keys and tokens come this way: an idle connection must not hold the last of them.
            self._reply, self._parts = None, []

    def renewed(self) -> bool:
        """Make ready for another request; return whether that is possible."""
        if self._http.trailing_data != (b"", False) or not self.usable:
            return False
        try:
            self._http.start_next_cycle()
        except h11.LocalProtocolError:  # either side has said that this was the last
            return False
        return True

    @property
    def usable(self) -> bool:
        """Whether the server has not closed it, as far as is known."""
        return self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        """Drop it, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio.Protocol ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`. What nobody asked for must not be the next request's reply."""
        if self._reply is None:
            self.close()
            return
        try:
            self._http.receive_data(data)
            self._read(self._reply)
        except (h11.RemoteProtocolError, OSError) as error:
            self._fail(error)

    def eof_received(self) -> None:
        """See `asyncio.Protocol`: the end may be what a reply without a length ends by."""
        self.data_received(b"")

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._fail(exc or ConnectionResetError())

    def _read(self, reply: asyncio.Future[Reply]) -> None:
        while not reply.done():
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                return
            if isinstance(event, h11.Response):
                self._status = event.status_code
            elif isinstance(event, h11.Data):
                self._size += len(event.data)
                if self._size > _REPLY_BYTES_MAX:
                    raise ConnectionAbortedError
                self._parts.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                reply.set_result((self._status, b"".join(self._parts)))
            elif not isinstance(event, h11.InformationalResponse):
                raise ConnectionResetError

    def _fail(self, error: Exception) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(error)


class HttpsLink:
    """Requests to one server. Made by `https_link`; for one event loop."""

    def __init__(self, address: str, context: ssl.SSLContext, limits: LinkLimits) -> None:
        parts = urlsplit(address)
        self.limits = limits
        self._host, self._port = parts.hostname or "", parts.port or _HTTPS_PORT
        self._named = parts.netloc
        self._context = context
        self._room = asyncio.Semaphore(limits.connections_max)
        self._idle: list[tuple[float, _Connection]] = []
        """Since when, the last one used last."""
        self._closed = False

    async def request(
        self, method: str, target: str, headers: Sequence[tuple[str, str]], body: bytes = b""
    ) -> Reply:
        """Send one request and return its reply, whatever its status.

        Args:
            method: Any that h11 takes.
            target: Path and query.
            headers: But for `Host` and `Content-Length`, which are put before them.
            body: Sent as it is.

        Raises:
            NotReachedError: it was not sent.
            BrokenOffError: it may have been, but no whole reply came.
        """
        own = [("Host", self._named), ("Content-Length", str(len(body)))]
        try:
            asked = h11.Request(method=method, target=target, headers=[*own, *headers])
        except (h11.LocalProtocolError, UnicodeEncodeError) as error:
            raise BrokenOffError from error
        connection = await self._taken()
        kept = False
        try:
            async with asyncio.timeout(self.limits.request_s):
                reply = await connection.ask(asked, body)
            kept = connection.renewed()
        except (OSError, h11.ProtocolError) as error:  # TimeoutError is an OSError
            raise BrokenOffError from error
        finally:
            self._put_back(connection, kept=kept)
        return reply

    async def _taken(self) -> _Connection:
        """Return a connection that nobody uses, to be put back."""
        try:
            async with asyncio.timeout(self.limits.request_s):
                await self._room.acquire()
        except TimeoutError as error:
            raise NotReachedError from error
        self._forget_idle()
        while self._idle:
            _, connection = self._idle.pop()
            if connection.usable:
                return connection
        try:
            return await self._opened()
        except BaseException:
            self._room.release()
            raise

    async def _opened(self) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.limits.connect_s):
                _, connection = await loop.create_connection(
                    _Connection, self._host, self._port, ssl=self._context
                )
        except OSError as error:
            raise NotReachedError from error
        return connection

    def _put_back(self, connection: _Connection, *, kept: bool) -> None:
        self._room.release()
        if kept and not self._closed:
            self._idle.append((asyncio.get_running_loop().time(), connection))
        else:
            connection.close()

    def _forget_idle(self) -> None:
        """Drop what nobody used for a while: its server may be gone without a word."""
        oldest_s = asyncio.get_running_loop().time() - _IDLE_S
        while self._idle and self._idle[0][0] < oldest_s:
            self._idle.pop(0)[1].close()

    def close(self) -> None:
        """Drop the connections that nobody uses, and from now on each that is no longer used."""
        self._closed = True
        while self._idle:
            self._idle.pop()[1].close()


@asynccontextmanager
async def https_link(address: str, ca: Path, limits: LinkLimits) -> AsyncIterator[HttpsLink]:
    """Hold connections to the server at `address` (`https://host:port`) while the block runs.

    Raises:
        OSError: `ca` (PEM) cannot be read or holds no certificate.
    """
    context = ssl.create_default_context(cafile=str(ca))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    link = HttpsLink(address, context, limits)
    try:
        yield link
    finally:
        link.close()
        await asyncio.sleep(0)  # so that their sockets are closed when we return
