"""The door of an aiohttp server: so many connections, each for so long. aiohttp itself has neither.

async with front_door(runner.server, Door(...), "127.0.0.1", 0, context) as port:

A connection counts from the moment it is accepted: one that never ends its handshake costs a file
as any other does, and the process has files to open that matter more. One too many is closed.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshkit.background import running

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from aiohttp.web_protocol import RequestHandler
    from aiohttp.web_server import Server

__all__ = ["Door", "front_door"]

_BACKLOG = 128
_PAUSE_S = 0.1
"""After an accept that failed: there are too many open files, and soon there may be fewer."""
_SWEEPS = 8
"""In the life of a connection: it is closed that much late at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """What is let in."""

    connections_max: int
    """At once, handshakes included."""
    life_s: float
    """Of a connection. Then it is closed once it has answered, and cut off after as long again."""
    handshake_s: float = 10.0


@asynccontextmanager
async def front_door(
    server: Server, door: Door, host: str, port: int, context: ssl.SSLContext | None
) -> AsyncIterator[int]:
    """Let connections in for as long as the block runs; yield the port.

    Args:
        server: Of a runner that is set up; cleaning that up closes what is still open.
        door: Limits.
        host: An address, or a name that stands for one.
        port: 0 asks the kernel for a free one.
        context: None: in the clear.

    Raises:
        OSError: the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=_BACKLOG) as listener:
        listener.setblocking(False)  # noqa: FBT003 -- the standard library's
        keeper = _Keeper(server, door, context)
        async with (
            running(keeper.accepting(listener), "front-door"),
            running(keeper.sweeping(), "front-door-life"),
        ):
            yield listener.getsockname()[1]
        await keeper.end()


class _Keeper:
    def __init__(self, server: Server, door: Door, context: ssl.SSLContext | None) -> None:
        self._server = server
        self._door = door
        self._context = context
        self._shaking: set[asyncio.Task[None]] = set()
        self._since: dict[RequestHandler, float] = {}

    async def accepting(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError:
                await asyncio.sleep(_PAUSE_S)
                continue
            if len(self._shaking) + len(self._server.connections) >= self._door.connections_max:
                connection.close()
                continue
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = asyncio.create_task(self._greet(connection))
            self._shaking.add(task)
            task.add_done_callback(self._shaking.discard)

    async def _greet(self, connection: socket.socket) -> None:
        limit_s = None if self._context is None else self._door.handshake_s
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._server, connection, ssl=self._context, ssl_handshake_timeout=limit_s
            )
        except OSError:  # no handshake, or none in time
            connection.close()

    async def sweeping(self) -> None:
        """Close what is open for too long."""
        loop, life_s = asyncio.get_running_loop(), self._door.life_s
        while True:
            await asyncio.sleep(min(1.0, life_s / _SWEEPS))
            now = loop.time()
            self._since = {one: self._since.get(one, now) for one in self._server.connections}
            for one, since in self._since.items():
                if now - since >= 2 * life_s:
                    one.force_close()
                elif now - since >= life_s:
                    one.close()

    async def end(self) -> None:
        for task in self._shaking:
            task.cancel()
        await asyncio.gather(*self._shaking, return_exceptions=True)
