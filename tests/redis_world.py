"""A real Redis for tests: with TLS and the users of the appliance, to be killed and paused."""

import os
import signal
from contextlib import asynccontextmanager
from dataclasses import dataclass

from appliance.redis import RedisServerSettings, redis_server
from meshkit.redis_link import redis_link
from tests.ports import unused_port

PATIENT = {"timeout_ms": 5_000}
"""For what is no test of timeouts: the machine may be busy."""

LOOKS = ("keys", "pttl", "get", "set", "hgetall", "hset", "flushall", "zcard", "unlink")
"""What the user `observer` may do, whom tests add, to all keys."""


@dataclass
class Server:
    """A Redis that can be killed, paused and started again on its port."""

    settings: RedisServerSettings
    _running: object = None
    it: object = None

    async def start(self) -> None:
        self._running = redis_server(self.settings)
        self.it = await self._running.__aenter__()
        self.settings = self.settings.model_copy(update={"port": self.it.port})

    async def stop(self) -> None:
        if self._running is not None:
            running, self._running = self._running, None
            await running.__aexit__(None, None, None)

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


@asynccontextmanager
async def real_redis(data):
    server = Server(RedisServerSettings(data=data, port=unused_port()))
    await server.start()
    try:
        yield server
    finally:
        if server._running is not None:
            server.signal(signal.SIGCONT)
        await server.stop()
