"""A real Redis for each test."""

import itertools

import pytest
import pytest_asyncio

from appliance.redis import USERS
from tests.redis_world import LOOKS, real_redis


@pytest_asyncio.fixture
async def server(tmp_path, monkeypatch):
    """With a third user, who may look around."""
    monkeypatch.setitem(USERS, "observer", ("*", LOOKS))
    async with real_redis(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def fresh():
    """Names nobody used before in this run."""
    return map("tenant-{}".format, itertools.count()).__next__
