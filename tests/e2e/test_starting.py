"""A start that cannot go well: it says why in a line, ends with 1, takes nothing from others."""

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from appliance.openbao import alone

ROOT = Path(__file__).parent.parent.parent


def started(
    data: Path, topology: str = "appliance.main", **settings: str
) -> subprocess.CompletedProcess:
    places = {
        "APPLIANCE_DATA_DIR": str(data),
        "APPLIANCE_GATEWAY_PORT": "0",
        "APPLIANCE_AUDIT_PORT": "0",
        "APPLIANCE_CONSOLE_PORT": "0",
        "APPLIANCE_MODELS_DIR": str(ROOT / "var" / "models"),
    }
    return subprocess.run(
        [sys.executable, "-m", topology],
        cwd=ROOT,
        env=os.environ | places | settings,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("topology", ["appliance.main", "appliance.mesh"])
def test_a_second_one_on_the_same_folder_takes_nothing_from_the_first(tmp_path, topology) -> None:
    ready = tmp_path / "ready.json"
    ready.write_text("{}")
    with alone(tmp_path):
        told = started(tmp_path, topology)

    assert told.returncode == 1
    assert "in use by another appliance" in told.stdout + told.stderr
    assert ready.exists(), "scripts of the first one wait for it"


WRONG = {
    "APPLIANCE_DATA_DIRR": ("secretive", "unknown settings: APPLIANCE_DATA_DIRR"),
    "GATEWAY_IN_FLIGHT_MAX": ("secretive", "in_flight_max"),
    "APPLIANCE_TENANTS": ('["Secretive Tenant"]', "lower-case DNS label"),
    "APPLIANCE_MODELS_DIR": ("/no/such/folder", "fetch_models.py"),
}


@pytest.fixture(scope="module")
def refused_starts(tmp_path_factory) -> dict[str, subprocess.CompletedProcess]:
    """By setting; two at a time, for each is mostly Python reading its modules."""

    def start(name: str) -> subprocess.CompletedProcess:
        return started(tmp_path_factory.mktemp(name) / "data", **{name: WRONG[name][0]})

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(WRONG, pool.map(start, WRONG), strict=True))


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_in_a_line_without_the_value(refused_starts, name) -> None:
    told, reason = refused_starts[name], WRONG[name][1]

    assert told.returncode == 1
    assert "Cannot start: " in told.stdout
    assert reason in told.stdout
    assert "Traceback" not in told.stdout + told.stderr
    assert "ecretive" not in told.stdout + told.stderr


def test_a_port_that_is_taken_is_named(tmp_path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = started(tmp_path / "data", APPLIANCE_OPENBAO_PORT=str(port))

    assert told.returncode == 1
    assert f"Cannot start: port {port}" in told.stdout
