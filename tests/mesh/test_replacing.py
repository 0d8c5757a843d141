"""A mesh whose every service is replaced while it is asked: by the command that operators use."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.children import Child, ChildError
from appliance.mesh import _free
from appliance.restarting import restart
from sealgate import SealgateError
from tests.e2e.conftest import MODEL, House

SERVICES = ("gateway", "compliance", "cache", "inference", "audit")
CALLERS = 4


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    settings = {"APPLIANCE_REDIS": "true"}
    running = House(tmp_path_factory.mktemp("replaced"), "appliance.mesh", settings).start()
    yield running
    assert running.stop() == 0


def pids(house) -> set[int]:
    return {house.facts[f"{service}_pid"] for service in SERVICES}


async def restarted(house) -> tuple[int, str]:
    """Run `python -m appliance.mesh restart` on the house's data."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "appliance.mesh", "restart",
        cwd=Path(__file__).parent.parent.parent,
        env=os.environ | {"APPLIANCE_DATA_DIR": str(house.data)},
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    told, _ = await asyncio.wait_for(process.communicate(), 300)
    return process.returncode, told.decode()


@pytest.mark.slow
async def test_no_call_fails_while_every_service_is_replaced(house) -> None:
    """The real model; unary calls and streams, over connections of their own."""
    before = pids(house)
    failed: list[SealgateError] = []
    answered, over = 0, False

    async def asking(number: int) -> None:
        nonlocal answered
        async with house.client() as client:
            while not over:
                text = f"Say {number} of {answered}."
                try:
                    if number % 2:
                        async with client.stream(text, model=MODEL, max_tokens=8) as stream:
                            async for _ in stream:
                                pass
                    else:
                        await client.chat(text, model=MODEL, max_tokens=8)
                    answered += 1
                except SealgateError as failure:
                    failed.append(failure)

    callers = [asyncio.create_task(asking(number)) for number in range(CALLERS)]
    code, told = await restarted(house)
    over = True
    await asyncio.gather(*callers)

    assert (code, told) == (0, "Every service was replaced\n")
    assert failed == []
    assert answered > 20
    assert not before & pids(house)
    assert house.facts["restarts"] == 1
    for pid in before:
        assert not Path(f"/proc/{pid}").exists()


async def test_one_that_cannot_be_replaced_goes_on_and_is_told(house) -> None:
    """No login for its successor can be written."""
    in_the_way = house.data / "services" / "compliance" / "wrapped_secret_id"
    before = pids(house)
    in_the_way.mkdir()
    try:
        code, told = await restarted(house)
    finally:
        in_the_way.rmdir()

    assert code == 1
    assert told.startswith("compliance did not come up again")
    assert house.facts["compliance_pid"] in before
    async with house.client() as client:
        assert (await client.chat("Say so.", model=MODEL, max_tokens=4)).receipt is not None


def test_without_a_mesh_there_is_nothing_to_restart(tmp_path) -> None:
    said: list[str] = []

    assert restart(tmp_path / "ready.json", said.append) == 1
    assert said == ["No mesh serves on this data"]


def test_a_port_that_a_stranger_has_is_told(tmp_path) -> None:
    """A service that may share its port would share it with another mesh, too."""
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        child = Child(
            service="cache",
            folder=tmp_path,
            settings={},
            login=None,
            port=stranger.getsockname()[1],
        )
        with pytest.raises(ChildError, match="taken"):
            _free(child)
    _free(child)


def test_a_service_that_is_still_starting_ends_at_once(tmp_path) -> None:
    """SIGTERM while a model loads, or OpenBao is waited for: nothing is under way yet."""
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "main.py").write_text(STARTING)
    process = subprocess.Popen(
        [sys.executable, "-m", "slow.main"],
        cwd=Path(__file__).parent.parent.parent,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:."},
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"loading\n"
    process.send_signal(signal.SIGTERM)

    assert process.wait(20) == 0


STARTING = """
import asyncio, time
from meshkit.member import _end_at_once

async def main():
    _end_at_once()
    print("loading", flush=True)
    await asyncio.to_thread(time.sleep, 60)

asyncio.run(main())
"""
