"""OpenBao away, or refusing: the old certificate serves, it is told, and all mends itself."""

import asyncio
import os
import signal
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from appliance.bootstrap import BootstrapSettings, prepared
from appliance.openbao import OpenBaoSettings, openbao
from appliance.openbao_admin import policy_text
from meshkit import tls_renewal
from meshkit.contract import Reason, Refusal
from meshkit.counters import counters, gauges
from meshkit.tls_renewal import Renewal, kept_renewed
from tests.ports import unused_port
from tests.rotation.conftest import World, code_of, load_on, say_with, until

GAUGE = "tls.remaining_s.service.gateway"


async def test_openbao_killed_and_started_again(tmp_path) -> None:
    settings = OpenBaoSettings(data=tmp_path / "openbao", port=unused_port())
    async with AsyncExitStack() as first, AsyncExitStack() as owned:
        bao = await first.enter_async_context(openbao(settings))
        estate = await owned.enter_async_context(prepared(bao, BootstrapSettings()))
        logs = owned.enter_context(capture_logs())
        ends = await owned.enter_async_context(
            World(bao, estate).ends(server_ttl_s=9, client_ttl_s=9)
        )
        old = ends.client.certificate
        async with load_on(ends.line) as load:
            os.kill(bao.pid, signal.SIGKILL)
            await until(lambda: "tls.certificate_ending" in told(logs), 60)
            assert ends.client.certificate is old
            assert 0 < gauges()[GAUGE] <= 2
        assert load.failed == [], "the old certificate serves"
        assert set(load.presented) == {old.serial}

        await until(lambda: told(logs).count("tls.certificate_over") == 2, 60)
        assert gauges()[GAUGE] <= 0
        over = ends.client.channel_credentials()
        assert await code_of(say_with(ends.port, over)) == "UNAVAILABLE"

        await first.aclose()
        await owned.enter_async_context(openbao(settings))
        both = (ends.client, ends.server)
        await until(lambda: min(each.remaining_s for each in both) > 2, 30)
        assert ends.client.certificate is not old
        assert gauges()[GAUGE] > 2
        async with load_on(ends.line) as load:
            await asyncio.sleep(0.5)
        assert load.failed == []
        assert old.serial not in load.presented
        assert told(logs).count("tls.certificate_ending") == 2, "once each, server and client"


async def test_a_role_taken_away_and_given_back(world) -> None:
    """The policy says no: renewal goes on asking, and the token is not worn out by it."""
    failed = counters().get("tls.renewal_failed", 0)
    async with world.ends(server_ttl_s=60, client_ttl_s=9) as ends, load_on(ends.line) as load:
        mute = policy_text("gateway").replace("pki/issue/service.gateway", "pki/issue/nothing")
        await write_policy(world, mute)
        old = ends.client.certificate
        await until(lambda: counters().get("tls.renewal_failed", 0) > failed + 2, 60)
        assert ends.client.certificate is old
        await write_policy(world, policy_text("gateway"))
        await until(lambda: ends.client.certificate is not old, 60)
        await until(lambda: len(load.presented) >= 2, 60)
    assert load.failed == []
    assert ends.keys["gateway"].token.logins <= 4


async def write_policy(world, text: str) -> None:
    await world.estate.keys.ask("POST", "sys/policies/acl/gateway", {"policy": text})


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only as the renewal sleeps."""
    now = SimpleNamespace(s=1_000_000.0)
    rest = asyncio.sleep

    async def sleep(seconds: float) -> None:
        now.s += seconds
        await rest(0)

    asleep = SimpleNamespace(**vars(asyncio) | {"sleep": sleep})
    monkeypatch.setattr(tls_renewal, "asyncio", asleep)
    monkeypatch.setattr(tls_renewal, "time", SimpleNamespace(time=lambda: now.s))
    return now


@pytest.mark.parametrize("failure", [Refusal(Reason.KEYS_DOWN), OSError("disk full")])
async def test_a_renewal_is_tried_ten_times_before_the_end(failure, clock) -> None:
    tries: list[float] = []
    ends_s = clock.s + 12.0

    async def renew() -> float:
        tries.append(ends_s - clock.s)
        raise failure

    renewal = Renewal("test", renew, ends_s=ends_s, retry_s=60.0)
    with capture_logs() as logs:
        async with kept_renewed(renewal):
            await until(lambda: "tls.certificate_over" in told(logs), 60)
    assert tries[0] == pytest.approx(4.0), "not before two thirds"
    assert sum(left > 0.01 for left in tries) == 10
    assert told(logs).count("tls.certificate_ending") == 1
    assert told(logs).count("tls.certificate_over") == 1
    assert all(line["remaining_s"] <= 4 for line in logs)


def told(logs) -> list[str]:
    return [line["event"] for line in logs]


async def test_an_openbao_that_ends_is_started_again(tmp_path) -> None:
    """Killed twice: the same address, the same keys, the same logins."""
    settings = OpenBaoSettings(data=tmp_path / "openbao", restart_pause_s=0.2)
    async with openbao(settings) as bao, prepared(bao, BootstrapSettings()) as estate:
        pid = bao.pid
        async with World(bao, estate).vault_of("audit") as keys:
            signed = await keys.sign("audit-checkpoint", b"note")
            for _ in range(2):
                os.kill(pid, signal.SIGKILL)
                await until(lambda dead=pid: child_of(bao, dead) is not None, 20)
                pid = child_of(bao, pid)
                async with asyncio.timeout(20):
                    while not await keys.ready():
                        await asyncio.sleep(0.1)
                assert await keys.sign("audit-checkpoint", b"note") == signed
    assert child_of(bao, 0) is None, "the last one ends with the block"


def child_of(bao, but: int) -> int | None:
    """The process that runs on this data, if it is another one."""
    wanted = f"-config={bao.data / 'openbao.json'}".encode()
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            arguments = (process / "cmdline").read_bytes().split(b"\0")
            if arguments[1:3] == [b"server", wanted] and int(process.name) != but:
                return int(process.name)
    return None
