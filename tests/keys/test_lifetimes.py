"""Tokens that end, an OpenBao that goes away and comes back, and what is left behind."""

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from appliance.bootstrap import BootstrapSettings, prepared
from appliance.openbao import OpenBao, OpenBaoError, OpenBaoSettings, openbao
from meshkit.vault import AppRole, Vault, VaultDown, vault

SETTINGS = BootstrapSettings()
AAD = b"v1|demo|2026-11-21|payload"


async def until(condition, seconds: float) -> bool:
    """Whether an asynchronous condition came true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if await condition():
            return True
        await asyncio.sleep(0.1)
    return False


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest_asyncio.fixture
async def own_bao(tmp_path: Path) -> AsyncIterator[tuple[OpenBao, AppRole]]:
    """An OpenBao that a test may break, with a login of the audit service."""
    async with openbao(OpenBaoSettings(data=tmp_path / "bao")) as bao:
        async with prepared(bao, SETTINGS) as estate:
            login = await estate.admin.login("audit")
        yield bao, login


# --- tokens -------------------------------------------------------------------------------------


async def test_a_token_is_renewed_and_at_its_end_replaced(estate, bao) -> None:
    brief = {"ttl_s": 2, "max_ttl_s": 5, "ranges": ("127.0.0.1/32",)}
    await estate.admin.login_role("gateway", **brief)
    async with vault(bao.vault_settings(), await estate.admin.login("gateway")) as keys:
        first = keys.token.value
        answers = []
        asked_s = time.monotonic()

        async def replaced() -> bool:
            nonlocal asked_s
            ready, before_s, asked_s = await keys.ready(), asked_s, time.monotonic()
            # Who was held up himself for as long as a renewal has time proves nothing.
            answers.append(ready or asked_s - before_s > 0.5)
            return keys.token.logins >= 2

        assert await until(replaced, 30)
        answers.append(await keys.ready())

        assert all(answers), "no request ever found the token over"
        assert keys.token.renewals >= 2
        assert keys.token.logins >= 2, "max_ttl was passed"
        assert keys.token.value != first


async def test_a_revoked_token_is_replaced_soon(estate, bao) -> None:
    async with vault(bao.vault_settings(), await estate.admin.login("inference")) as keys:
        await keys.token.revoke_self()
        assert not await keys.ready()

        assert await until(keys.ready, 30)
        assert keys.token.logins == 2


async def test_the_token_is_given_back_at_the_end(estate, bao) -> None:
    async with vault(bao.vault_settings(), await estate.admin.login("inference")) as keys:
        token = keys.token.value
    async with vault(bao.vault_settings(), await estate.admin.login("inference")) as keys:
        keys.token._value = token
        assert not await keys.ready()


async def test_a_doubted_token_does_not_hinder_the_end(estate, bao) -> None:
    """`asyncio.wait_for` of Python 3.11 lost the cancellation here, and the block never ended."""
    async with asyncio.timeout(30):
        async with vault(bao.vault_settings(), await estate.admin.login("inference")) as keys:
            await asyncio.sleep(0.05)
            keys.token.doubt()


# --- faults -------------------------------------------------------------------------------------


async def test_a_full_audit_disk_is_openbao_being_down(own_bao) -> None:
    """/dev/full answers each write with ENOSPC, as a full disk does."""
    bao, login = own_bao
    log = bao.data / "audit" / "openbao.jsonl"
    async with vault(bao.vault_settings(backoff_ms=1), login) as keys:
        assert await keys.ready()
        log.rename(log.with_suffix(".kept"))
        log.symlink_to("/dev/full")
        os.kill(bao.pid, signal.SIGHUP)

        assert await until(lambda: negated(keys), 30)
        assert (await keys.health()).active, "which is why health is not what we ask"
        with pytest.raises(VaultDown) as down:
            await keys.datakey("t-demo", aad=AAD)
        assert down.value.status == 500

        log.unlink()
        log.with_suffix(".kept").rename(log)
        os.kill(bao.pid, signal.SIGHUP)
        assert await until(keys.ready, 30)


async def negated(keys: Vault) -> bool:
    return not await keys.ready()


async def test_killed_it_is_down_and_started_again_it_knows_everything(tmp_path) -> None:
    place = OpenBaoSettings(data=tmp_path / "bao")
    async with openbao(place) as bao:
        async with prepared(bao, SETTINGS) as estate:
            login = await estate.admin.login("audit")
        async with vault(bao.vault_settings(attempts_max=2, backoff_ms=1), login) as keys:
            made = await keys.datakey("t-demo", aad=AAD)
            public = await keys.signing_keys("audit-checkpoint")
            await keys.kv_put("audit/checkpoint-lock", {"note": "7"}, cas=0)
            os.kill(bao.pid, signal.SIGKILL)
            assert await until(lambda: negated(keys), 30)
            with pytest.raises(VaultDown):
                await keys.decrypt("t-demo", made.wrapped, aad=AAD)

    async with openbao(place) as bao, vault(bao.vault_settings(), login) as keys:
        assert await keys.decrypt("t-demo", made.wrapped, aad=AAD) == made.plaintext
        assert await keys.signing_keys("audit-checkpoint") == public
        entry = await keys.kv_get("audit/checkpoint-lock")
        assert entry is not None
        assert dict(entry.data) == {"note": "7"}


# --- the server beside us -----------------------------------------------------------------------


async def test_a_second_start_prepares_nothing_anew(tmp_path) -> None:
    place = OpenBaoSettings(data=tmp_path / "bao")
    seen = []
    for _ in range(2):
        async with openbao(place) as bao, prepared(bao, SETTINGS) as estate:
            login = (await estate.logins())["audit"]
            async with vault(bao.vault_settings(), login) as keys:
                ca, public = await keys.ca_chain(), await keys.signing_keys("audit-checkpoint")
                seen.append((ca, public, (await keys.secret("pseudonym-key")).values))

    assert seen[0] == seen[1]


async def test_nothing_secret_lies_open(own_bao) -> None:
    bao, _ = own_bao
    modes = {
        path.relative_to(bao.data): stat.S_IMODE(path.stat().st_mode)
        for path in bao.data.rglob("*")
    }
    assert stat.S_IMODE(bao.data.stat().st_mode) == 0o700
    assert {mode for path, mode in modes.items() if path.suffix in {".key", ".json"}} == {0o600}
    assert "root_token" not in json.loads((bao.data / "init.json").read_text())


async def test_the_root_token_is_gone(tmp_path) -> None:
    async with openbao(OpenBaoSettings(data=tmp_path / "bao")) as bao:
        root = json.loads((bao.data / "init.json").read_text())["root_token"]
        async with prepared(bao, SETTINGS) as estate:
            estate.keys.token._value, mine = root, estate.keys.token.value
            assert not await estate.keys.ready()
            estate.keys.token._value = mine


async def test_an_older_copy_of_the_operators_login_is_worth_nothing(own_bao) -> None:
    bao, _ = own_bao
    older = json.loads((bao.data / "operator.json").read_text())
    async with prepared(bao, SETTINGS):
        pass
    with pytest.raises(VaultDown):
        async with vault(bao.vault_settings(), AppRole(**older)):
            pass


async def test_a_missing_program_is_told(tmp_path) -> None:
    settings = OpenBaoSettings(data=tmp_path, program=tmp_path / "bao")
    with pytest.raises(OpenBaoError, match="no OpenBao program"):
        async with openbao(settings):
            pass


async def test_a_taken_port_is_told(tmp_path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OpenBaoError, match=f"port {port} .* is taken"):
            async with openbao(OpenBaoSettings(data=tmp_path, port=port)):
                pass


async def test_data_in_use_is_told(own_bao) -> None:
    bao, _ = own_bao
    with pytest.raises(OpenBaoError, match="in use by another appliance"):
        async with openbao(OpenBaoSettings(data=bao.data)):
            pass


async def test_data_without_its_seal_key_is_told(tmp_path) -> None:
    (tmp_path / "raft").mkdir()
    (tmp_path / "raft" / "vault.db").touch()
    with pytest.raises(OpenBaoError, match=r"seal.key is missing"):
        async with openbao(OpenBaoSettings(data=tmp_path)):
            pass


async def test_a_program_that_ends_is_told(tmp_path) -> None:
    settings = OpenBaoSettings(data=tmp_path, program=Path("/bin/false"))
    with pytest.raises(OpenBaoError, match="ended with 1 while starting"):
        async with openbao(settings):
            pass


def test_kill_9_leaves_no_orphan(tmp_path) -> None:
    script = textwrap.dedent("""
        import asyncio, sys
        from pathlib import Path
        from appliance.openbao import OpenBaoSettings, openbao
        async def main():
            async with openbao(OpenBaoSettings(data=Path(sys.argv[1]))) as bao:
                print(bao.pid, flush=True)
                await asyncio.sleep(60)
        asyncio.run(main())
    """)
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        pid = 0
        for line in parent.stdout or ():
            if line.strip().isdigit():
                pid = int(line)
                break
        assert is_alive(pid)
        parent.kill()

    end = time.monotonic() + 30
    while is_alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    orphaned = is_alive(pid)
    if orphaned:
        os.kill(pid, signal.SIGKILL)
    assert not orphaned
