"""The commands of docs/operations.md, keys.md and backup.md, run against a house that runs."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = ("operations.md", "keys.md", "backup.md")
PAGE = "\n".join((ROOT / "docs" / name).read_text() for name in PAGES)
COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for line in block.strip().splitlines()
]


def metrics_port(house):
    places = (house.data / "services" / "gateway" / "log.jsonl", house.data / "appliance.log")
    log = next(place for place in places if place.exists())
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return next(line["port"] for line in lines if line["event"] == "metrics.serving")


def test_the_page_has_commands() -> None:
    assert len(COMMANDS) >= 5
    assert all(
        "not run here" in block for block in re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_works(house, command: str) -> None:
    known = {"DATA": str(house.data), "METRICS_PORT": str(metrics_port(house))}
    known["GATEWAY"] = house.facts["gateway"]
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=ROOT,
        env=os.environ | known | {"APPLIANCE_DATA_DIR": str(house.data)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout


def test_a_rotated_tenant_key_serves_on(house) -> None:
    words = ["deploy/operator.sh", str(house.data)]
    subprocess.run([*words, "write", "-f", "transit/keys/t-demo/rotate"], cwd=ROOT, check=True)
    read = subprocess.run(
        [*words, "read", "-field=latest_version", "transit/keys/t-demo"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert int(read.stdout) >= 2
    told = house.cli(
        "chat", "Say hello", "--target", house.facts["gateway"], "--tls", house.facts["tls"]
    )
    assert told.returncode == 0, told.stderr
