"""What a mesh tells its services of Redis is what they read."""

from types import SimpleNamespace

import pytest

from appliance.mesh import Mesh, MeshHouseSettings, _environment
from appliance.redis import USERS
from cache.settings import CacheSettings
from gateway.app import limits_of
from gateway.redis_limits import RedisLimits
from gateway.settings import GatewaySettings
from meshkit.redis_link import redis_link
from tests.redis_world import PATIENT


@pytest.fixture
def house(server, tmp_path):
    bao = SimpleNamespace(address="https://127.0.0.1:1", ca=tmp_path / "ca.pem")
    return Mesh(data=tmp_path, children={}, bao=bao, estate=None, redis=server.it)


@pytest.fixture
def told(house, monkeypatch):
    """Settings of a service, as it would read them."""

    def read(service, kind, prefix):
        for name, value in _environment(service, MeshHouseSettings(redis=True), house).items():
            if name.startswith((f"{prefix}_REDIS__", f"{prefix}_LIMITS")):
                monkeypatch.setenv(name, value)
        return kind.load()

    return read


async def test_cache_and_gateway_reach_it(told) -> None:
    cache = told("cache", CacheSettings, "CACHE").redis
    async with redis_link(cache.model_copy(update=PATIENT), name="test") as link:
        assert await link.call("GET", "sealgate:cache:x") is None
    gateway = told("gateway", GatewaySettings, "GATEWAY")
    async with limits_of(gateway) as limits:
        assert isinstance(limits, RedisLimits)
    async with redis_link(gateway.redis.model_copy(update=PATIENT), name="test") as link:
        assert await link.call("GET", "sealgate:limits:x") is None


def test_nobody_else_is_told_and_nothing_secret_is(house, server) -> None:
    settings = MeshHouseSettings(redis=True)
    for service in ("audit", "inference"):
        assert not any("REDIS" in name for name in _environment(service, settings, house))
    secrets = [p.read_text() for p in (server.it.data / "users").iterdir()]
    told = " ".join(_environment("cache", settings, house).values())

    assert len(secrets) == len(USERS)
    assert not any(secret in told for secret in secrets)


def test_without_redis_there_is_none(tmp_path) -> None:
    bao = SimpleNamespace(address="https://127.0.0.1:1", ca=tmp_path / "ca.pem")
    alone = Mesh(data=tmp_path, children={}, bao=bao, estate=None)

    assert not MeshHouseSettings().redis
    for service in ("cache", "gateway"):
        environment = _environment(service, MeshHouseSettings(), alone)
        assert not any("REDIS" in name for name in environment)
