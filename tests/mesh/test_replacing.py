"""The command that has every service replaced; ports of strangers; ends before the start."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.children import Child, ChildError
from appliance.mesh import _free
from appliance.openbao import alone
from appliance.restarting import restart, restarting, restarts_asked
from meshkit.background import running
from meshkit.files import write_private
from meshkit.member import _told

ROOT = Path(__file__).parent.parent.parent


class House:
    """Replaces nothing, but says that it has."""

    def __init__(self, failed: str) -> None:
        self.restarts = 0
        self.failed = ""
        self._fails = failed

    async def restart(self) -> None:
        self.failed = self._fails
        self.restarts += 1

    def facts(self) -> dict[str, str | int]:
        return {"pid": os.getpid(), "restarts": self.restarts, "restart_failed": self.failed}


@pytest.mark.parametrize(
    ("failed", "code", "told"),
    [("", 0, "Every service was replaced\n"), ("cache", 1, "cache did not come up again: ")],
)
async def test_the_command_asks_waits_and_says_how_it_went(tmp_path, failed, code, told) -> None:
    """What is replaced, and that no call fails meanwhile, is in tests/chaos."""
    house = House(failed)
    ready = tmp_path / "ready.json"
    ready.write_text(json.dumps(house.facts()))
    async with running(restarting(house, ready, restarts_asked()), "restarts"):
        with alone(tmp_path):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "appliance.mesh", "restart",
                cwd=ROOT,
                env=os.environ | {"APPLIANCE_DATA_DIR": str(tmp_path)},
                stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            said, _ = await asyncio.wait_for(process.communicate(), 60)

    assert process.returncode == code
    assert said.decode().startswith(told)
    assert house.restarts == 1


def test_without_a_mesh_there_is_nothing_to_restart(tmp_path) -> None:
    said: list[str] = []

    assert restart(tmp_path / "ready.json", said.append) == 1
    assert said == ["No mesh serves on this data"]


def test_a_stranger_who_has_the_number_of_a_mesh_that_was_killed_is_not_asked(tmp_path) -> None:
    said: list[str] = []
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        ready = tmp_path / "ready.json"
        ready.write_text(json.dumps({"pid": stranger.pid, "restarts": 0, "restart_failed": ""}))

        assert restart(ready, said.append) == 1
        assert said == ["No mesh serves on this data"]
        assert stranger.poll() is None
        stranger.communicate(b"\n")
        assert stranger.returncode == 0


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


def test_who_ends_takes_its_ready_file_away_but_not_its_successors(tmp_path) -> None:
    file = tmp_path / "port"
    with _told(file, 1):
        assert file.read_bytes() == b"1"
    assert not file.exists()

    with _told(file, 1):
        write_private(file, b"2")  # as the one does that takes its place
    assert file.read_bytes() == b"2"


def test_a_service_that_is_still_starting_ends_at_once(tmp_path) -> None:
    """SIGTERM while a model loads, or OpenBao is waited for: nothing is under way yet."""
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "main.py").write_text(STARTING)
    with subprocess.Popen(
        [sys.executable, "-m", "slow.main"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:."},
        stdout=subprocess.PIPE,
    ) as process:
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
