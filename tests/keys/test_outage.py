"""OpenBao killed, sealed or hung while events come in (13 of the 20 tests of an audit log).

Keys in memory carry the load for as long as they may, then it is closed, and it opens by itself.
What would take 15 minutes takes a second and a half here: the rules are the same.
"""

import asyncio
import json
import os
import signal
import time
from dataclasses import replace

import pytest
import pytest_asyncio

from appliance.bootstrap import BootstrapSettings, prepared
from appliance.openbao import OpenBaoSettings, openbao
from appliance.openbao_admin import Admin
from meshkit.held_keys import KeyringSettings
from meshkit.vault import AppRole, StaticToken, vault
from tests.keys.audit_house import Load, audit_house

RULES = KeyringSettings(fresh_s=0.6, stale_s=1.6, tick_s=0.05, hold_off_s=0.05)
HASTY_S = 0.3
"""How long an OpenBao is waited for that hangs."""
SETTINGS = BootstrapSettings(tenants=("demo",))

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bao(tmp_path_factory):
    """An OpenBao to be hurt; started again when it ends by itself."""
    data = tmp_path_factory.mktemp("openbao")
    async with openbao(OpenBaoSettings(data=data, restart_pause_s=0.05)) as bao:
        root = json.loads((data / "init.json").read_text())["root_token"]
        async with vault(bao.vault_settings(), StaticToken(root)) as keys:
            made = await keys.ask("POST", "auth/token/create-orphan", {"policies": ["root"]})
        bao_token = made.body["auth"]["client_token"]
        async with prepared(bao, SETTINGS):
            pass
        yield bao, bao_token


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(bao, tmp_path_factory):
    bao, _ = bao
    stored = json.loads((bao.data / "operator.json").read_text())
    async with vault(bao.vault_settings(), AppRole(**stored)) as operator:
        login = await Admin(operator).login("audit")
    async with (
        vault(bao.vault_settings(attempts_max=1), login) as keys,
        audit_house(bao, keys, SETTINGS, tmp_path_factory.mktemp("house"), RULES) as house,
    ):
        link = keys._http._link
        link.limits = replace(link.limits, connect_s=HASTY_S, request_s=HASTY_S)
        yield house


def confirmed_s(house):
    """When OpenBao last vouched for both of the keys in use: payloads' and names'.

    In a day's last hour tomorrow's are there as well, and not in use.
    """
    today = time.time() // 86_400
    rings = (house.held.sealer, house.held.naming.ring)
    held = [[one for one in ring._held._at.values() if one.wrapped.day <= today] for ring in rings]
    return min(max(one.confirmed_s for one in keys) for keys in held)


@pytest.mark.parametrize("fault", ["killed", "sealed", "paused"])
async def test_keys_in_memory_carry_the_load_to_their_end_and_it_opens_again(
    bao, house, fault
) -> None:
    bao, token = bao
    load = Load(house.log, "demo", opens=False)
    async with load.running():
        await load.goes_on()
        assert load.failed == []
        async with asyncio.timeout(60):
            while time.monotonic() - confirmed_s(house) > RULES.fresh_s:
                await asyncio.sleep(0.01)
        held_s = confirmed_s(house)
        async with away(bao, token, fault):
            async with asyncio.timeout(60):
                while not load.failed:
                    await asyncio.sleep(0.01)
            behind = house.log.stats.durable - house.log.stats.published
        mended_s = time.monotonic()
        async with asyncio.timeout(60):
            while load.failed_s[-1] > time.monotonic() - 0.3:
                await asyncio.sleep(0.01)
    async with asyncio.timeout(60):
        while house.log.stats.published < house.log.stats.durable:
            await asyncio.sleep(0.01)

    assert load.failed_s[0] - held_s >= RULES.stale_s
    assert set(load.failed) == {"KEYS_DOWN"}
    assert behind > 0  # publishing waited: it needs OpenBao to sign
    assert load.failed_s[-1] - mended_s < 60


class away:  # noqa: N801 -- reads as a sentence: async with away(...)
    """Take OpenBao away in one of three ways, and bring it back at the end of the block."""

    def __init__(self, bao, token, how):
        self.bao, self.token, self.how = bao, token, how
        self.pid = bao.pid

    async def __aenter__(self):
        if self.how == "sealed":
            async with vault(self.bao.vault_settings(), StaticToken(self.token)) as root:
                await root.ask("POST", "sys/seal", {})
        elif self.how == "paused":
            os.kill(self.pid, signal.SIGSTOP)
        else:
            # Its seal key is away meanwhile, or it would be back before anybody noticed.
            self.seal = self.bao.data / "seal.key"
            self.seal.rename(self.seal.with_suffix(".away"))
            os.kill(self.pid, signal.SIGKILL)

    async def __aexit__(self, *_):
        if self.how == "sealed":
            os.kill(self.pid, signal.SIGKILL)  # static seal: it unseals itself at its start
        elif self.how == "paused":
            os.kill(self.pid, signal.SIGCONT)
        else:
            self.seal.with_suffix(".away").rename(self.seal)
