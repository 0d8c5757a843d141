"""A Redis that ends by itself is started again where it was, if that is asked for."""

import asyncio
import os
import signal
from pathlib import Path

from appliance.redis import RedisServerSettings, redis_server
from meshkit.redis_link import RedisAway, redis_link
from tests.ports import unused_port
from tests.redis_world import PATIENT


async def test_a_killed_redis_comes_back_at_its_port_and_empty(tmp_path) -> None:
    settings = RedisServerSettings(
        data=tmp_path / "redis", port=unused_port(), restart_pause_s=0.05
    )
    async with redis_server(settings) as server:
        port, before = server.port, server.pid
        login = server.link_settings("gateway", **PATIENT)
        async with redis_link(login, name="test") as link:
            await link.call("SET", "sealgate:limits:x", b"1", "PX", 60_000)
        os.kill(before, signal.SIGKILL)
        async with asyncio.timeout(20):
            while server.pid == before:
                await asyncio.sleep(0.01)
            while not await is_empty(login):
                await asyncio.sleep(0.05)
        after = server.pid

    assert server.port == port
    assert after != before
    assert not Path(f"/proc/{after}").exists()


async def is_empty(login) -> bool:
    """Whether it answers, and knows nothing of before."""
    async with redis_link(login, name="test") as link:
        try:
            return await link.call("GET", "sealgate:limits:x") is None
        except RedisAway:
            return False
