"""A real Redis for each test, with TLS and the users of the appliance."""

import itertools
import os
import signal
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import pytest_asyncio

from appliance.redis import USERS, RedisServerSettings, redis_server
from meshkit.redis_link import redis_link

PATIENT = {"timeout_ms": 5_000}
"""For what is no test of timeouts: the machine may be busy."""


@dataclass
class Server:
    """A Redis that can be killed, paused and started again on its port, with its data."""

    settings: RedisServerSettings
    _running: object = None
    it: object = None

    async def start(self) -> None:
        self._running = redis_server(self.settings)
        self.it = await self._running.__aenter__()
        self.settings = self.settings.model_copy(update={"port": self.it.port})

    async def stop(self) -> None:
        if self._running is not None:
            await self._running.__aexit__(None, None, None)
            self._running = None

    async def kill(self) -> None:
        self.signal(signal.SIGKILL)
        await self.stop()

    def signal(self, number: int) -> None:
        os.kill(self.it.pid, number)

    def link_settings(self, service, **changes):
        return self.it.link_settings(service, **PATIENT | changes)

    @asynccontextmanager
    async def link(self, service, **changes):
        async with redis_link(self.link_settings(service, **changes), name="test") as made:
            yield made


@pytest_asyncio.fixture
async def server(tmp_path, monkeypatch):
    """With a third user, who may look around."""
    looks = (
        "keys",
        "pttl",
        "get",
        "set",
        "hgetall",
        "hset",
        "type",
        "dbsize",
        "flushall",
        "zrange",
    )
    monkeypatch.setitem(USERS, "observer", ("*", looks))
    server = Server(RedisServerSettings(data=tmp_path / "redis"))
    await server.start()
    try:
        yield server
    finally:
        if server._running is not None:
            os.kill(server.it.pid, signal.SIGCONT)
        await server.stop()


@pytest.fixture
def fresh():
    """Names nobody used before in this run."""
    return map("tenant-{}".format, itertools.count()).__next__
