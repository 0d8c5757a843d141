"""A witness over HTTP: C2SP tlog-witness, a health answer, and the last checkpoints it cosigned.

    POST /add-checkpoint     see `meshkit.tlog.witnessing`
    GET  /checkpoint/<hex>   the newest checkpoint cosigned of the log whose origin has this
                             SHA-256, as the log signed it: evidence, if the log denies it. 404
    GET  /health             JSON: name, logs on the list, size and time cosigned last of each

What is decided is decided in one thread, one request after another: an fsync and 1 ms of CPU each.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import ssl
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from hashlib import sha256
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from audit.witness.keys import WitnessKeys
from audit.witness.memory import MEMORY, WitnessMemory
from audit.witness.witness import OK, LogList, Witness
from meshkit.front_door import Door, front_door
from meshkit.tlog import SIZE_CONTENT_TYPE, NoteInvalid

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from typing import TypeVar

    from audit.witness.settings import WitnessSettings
    from audit.witness.witness import Answer

    T = TypeVar("T")

__all__ = ["serving_witness"]

log = structlog.get_logger()

_CONFLICT = 409


class _Service:
    """The handlers. `_here` runs what blocks, in the one thread that may."""

    def __init__(
        self, settings: WitnessSettings, name: str, memory: WitnessMemory, logs: LogList
    ) -> None:
        self._settings = settings
        self._name = name
        self._memory = memory
        self._logs = logs
        self._busy = 0
        self.thread = ThreadPoolExecutor(1, "witness")
        self.witness: Witness | None = None

    async def _here(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.thread, work)

    async def add(self, request: web.Request) -> web.Response:
        """Answer POST /add-checkpoint."""
        if self._busy >= self._settings.requests_max:
            return web.Response(status=503, headers={"Retry-After": "1"})
        self._busy += 1
        try:
            async with asyncio.timeout(self._settings.request_timeout_ms / 1_000):
                body = await request.read()
            # Not cancelled half way: what was persisted is also answered.
            answer = await asyncio.shield(self._here(lambda: self._decide(body)))
        except TimeoutError:
            return web.Response(status=408)
        except sqlite3.Error as failure:
            log.error("witness.disk_failed", kind=type(failure).__name__)  # noqa: TRY400 -- no text
            return web.Response(status=503)
        finally:
            self._busy -= 1
        log.info("witness.answered", status=answer.status)
        return _response(answer)

    def _decide(self, body: bytes) -> Answer:
        assert self.witness is not None
        try:
            self._logs.refresh()
        except (OSError, NoteInvalid, UnicodeDecodeError) as failure:
            log.warning("witness.logs_rejected", kind=type(failure).__name__)
        return self.witness.add(body)

    async def checkpoint(self, request: web.Request) -> web.Response:
        """Answer GET /checkpoint/<hex of the origin's SHA-256>."""
        sizes = await self._here(self._memory.sizes)
        wanted = request.match_info["origin"]
        for origin in sizes:
            if sha256(origin.encode()).hexdigest() == wanted:
                last = await self._here(lambda origin=origin: self._memory.last(origin))  # type: ignore[misc] # a lambda's default has no type
                return web.Response(text=last.note, charset="utf-8")
        return web.Response(status=404)

    async def health(self, _request: web.Request) -> web.Response:
        """Answer GET /health."""
        try:
            sizes = await self._here(self._memory.sizes)
        except sqlite3.Error:
            return web.Response(status=503)
        told = {
            "name": self._name,
            "logs": len(self._logs),
            "cosigned": {o: {"size": s, "time": t} for o, (s, t) in sizes.items()},
        }
        return web.Response(text=json.dumps(told), content_type="application/json")


def _response(answer: Answer) -> web.Response:
    if answer.status == _CONFLICT:
        return web.Response(
            status=_CONFLICT,
            body=answer.body.encode(),
            headers={"Content-Type": SIZE_CONTENT_TYPE},
        )
    if answer.status == OK:
        return web.Response(text=answer.body, charset="utf-8")
    return web.Response(status=answer.status)


def _tls(settings: WitnessSettings) -> ssl.SSLContext | None:
    if settings.cert_chain is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(settings.cert_chain, settings.private_key)
    return context


@asynccontextmanager
async def serving_witness(settings: WitnessSettings) -> AsyncIterator[int]:
    """Serve a witness; yield the port. Leaving the block drains it.

    Raises:
        KeysUnusableError: there are no keys, they cannot be opened, or the memory is gone.
        NoteInvalid: a line of the list of logs is no verifier key.
        OSError: a file cannot be read, or the port is taken.
        sqlite3.Error: the memory cannot be opened.
    """
    passphrase = None
    if settings.passphrase_file is not None:
        passphrase = settings.passphrase_file.read_bytes().strip()
    keys = WitnessKeys.load(settings.data_dir, passphrase)
    logs = LogList(settings.logs_file)
    context = _tls(settings)
    async with AsyncExitStack() as owned:
        memory = WitnessMemory(settings.data_dir / MEMORY)
        owned.callback(memory.close)
        service = _Service(settings, keys.name, memory, logs)
        owned.callback(service.thread.shutdown)
        service.witness = Witness(keys, memory, logs)
        application = web.Application(client_max_size=settings.body_bytes_max)
        application.router.add_post("/add-checkpoint", service.add)
        application.router.add_get("/checkpoint/{origin:[0-9a-f]{64}}", service.checkpoint)
        application.router.add_get("/health", service.health)
        runner = web.AppRunner(
            application, access_log=None, shutdown_timeout=settings.drain_ms / 1_000
        )
        await runner.setup()
        owned.push_async_callback(runner.cleanup)
        assert runner.server is not None  # set up
        door = Door(
            connections_max=settings.connections_max, life_s=settings.connection_life_ms / 1_000
        )
        yield await owned.enter_async_context(
            front_door(runner.server, door, settings.host, settings.port, context)
        )
