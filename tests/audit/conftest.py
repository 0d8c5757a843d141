from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import pytest_asyncio

from appliance.bootstrap import BootstrapSettings, prepared
from appliance.openbao import OpenBaoSettings, openbao
from meshkit.vault import vault
from tests.audit.world import MemoryLock, World


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


@pytest.fixture
def memory_lock():
    return MemoryLock()


@asynccontextmanager
async def started_bao(folder):
    """A real OpenBao, prepared as the appliance does; the audit service's client, and `stop`."""
    async with AsyncExitStack() as server:
        bao = await server.enter_async_context(openbao(OpenBaoSettings(data=folder)))
        async with prepared(bao, BootstrapSettings(tenants=("acme",))) as estate:
            login = await estate.admin.login("audit")
        async with vault(bao.vault_settings(), login) as connected:
            yield connected, server.aclose


@pytest.fixture
def bao():
    return started_bao


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bao_login(tmp_path_factory):
    async with openbao(OpenBaoSettings(data=tmp_path_factory.mktemp("bao"))) as bao:
        async with prepared(bao, BootstrapSettings(tenants=("acme",))) as estate:
            login = await estate.admin.login("audit")
        yield bao.vault_settings(), login


@pytest_asyncio.fixture
async def keys(bao_login):
    async with vault(*bao_login) as connected:
        yield connected
