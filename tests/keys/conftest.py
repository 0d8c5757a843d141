"""One real OpenBao for the room, prepared as the appliance prepares it."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import pytest
import pytest_asyncio

from appliance.bootstrap import SERVICES, BootstrapSettings, Estate, prepared
from appliance.openbao import OpenBao, OpenBaoSettings, openbao
from meshkit.vault import AppRole, Vault, vault

LOGIN = BootstrapSettings(tenants=("demo", "acme"))


@dataclass(frozen=True)
class World:
    bao: OpenBao
    logins: dict[str, AppRole]

    def vault_of(self, service: str) -> AbstractAsyncContextManager[Vault]:
        return vault(self.bao.vault_settings(), self.logins[service])


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    data = tmp_path_factory.mktemp("openbao")
    async with openbao(OpenBaoSettings(data=data)) as bao:
        async with prepared(bao, LOGIN) as estate:
            logins = {name: await estate.admin.login(name) for name in SERVICES}
        yield World(bao, logins)


@pytest.fixture
def bao(world: World) -> OpenBao:
    return world.bao


@pytest_asyncio.fixture
async def estate(bao: OpenBao) -> AsyncIterator[Estate]:
    """The operator's view."""
    async with prepared(bao, LOGIN) as estate:
        yield estate


@pytest_asyncio.fixture
async def audit(world: World) -> AsyncIterator[Vault]:
    async with world.vault_of("audit") as keys:
        yield keys


@pytest.fixture
def vault_of(world: World) -> Callable[[str], AbstractAsyncContextManager[Vault]]:
    return world.vault_of
