"""One real OpenBao for the room, prepared as the appliance prepares it."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import pytest
import pytest_asyncio

from appliance.bootstrap import BootstrapSettings, Estate, prepared
from appliance.openbao import OpenBao, OpenBaoSettings, openbao
from appliance.openbao_admin import Admin
from meshkit.vault import AppRole, Vault, vault

SETTINGS = BootstrapSettings(tenants=("demo", "acme"))


@dataclass(frozen=True)
class World:
    bao: OpenBao

    async def login_of(self, service: str) -> AppRole:
        """A login of its own for each test: `Estate.logins` ends those that were there."""
        if service in {"operator", "keyholder", "model-admin"}:
            stored = json.loads((self.bao.data / f"{service}.json").read_text())
            return AppRole(stored["role_id"], stored["secret_id"])
        operator = AppRole(**json.loads((self.bao.data / "operator.json").read_text()))
        async with vault(self.bao.vault_settings(), operator) as keys:
            return await Admin(keys).login(service)

    @asynccontextmanager
    async def vault_of(self, service: str) -> AsyncIterator[Vault]:
        async with vault(self.bao.vault_settings(), await self.login_of(service)) as keys:
            yield keys


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    data = tmp_path_factory.mktemp("openbao")
    async with openbao(OpenBaoSettings(data=data)) as bao:
        async with prepared(bao, SETTINGS):
            pass
        yield World(bao)


@pytest.fixture
def bao(world: World) -> OpenBao:
    return world.bao


@pytest_asyncio.fixture
async def estate(bao: OpenBao) -> AsyncIterator[Estate]:
    """The operator's view."""
    async with prepared(bao, SETTINGS) as estate:
        yield estate


@pytest_asyncio.fixture
async def audit(world: World) -> AsyncIterator[Vault]:
    async with world.vault_of("audit") as keys:
        yield keys


@pytest.fixture
def vault_of(world: World) -> Callable[[str], AbstractAsyncContextManager[Vault]]:
    return world.vault_of
