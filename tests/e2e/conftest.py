"""A running house of real parts, in processes of its own: the model, OpenBao, TLS, the log.

Tests here know only what a client, an auditor and an operator know (`ready.json`).
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sealgate import AsyncAuditReader, AsyncClient
from tests.ports import unused_port

ROOT = Path(__file__).parent.parent.parent
MODEL = "smollm2-135m-instruct"
START_S = 180
STOP_S = 60
MESH = {
    **{f"APPLIANCE_{name}_PORT": "0" for name in ("COMPLIANCE", "CACHE", "INFERENCE")},
    **{
        f"{name}_SERVING__LAME_DUCK_MS": "0"
        for name in ("COMPLIANCE", "CACHE", "INFERENCE", "AUDIT")
    },
    **{
        f"{name}_TELEMETRY__METRICS_PORT": "0"
        for name in ("COMPLIANCE", "CACHE", "INFERENCE", "AUDIT")
    },
}
"""What only services of their own are told."""


def spans_to_the_console() -> dict[str, str]:
    """Have one process send its spans to the console in it."""
    port = str(unused_port())
    return {
        "AUDIT_CONSOLE__SPANS_PORT": port,
        "GATEWAY_TELEMETRY__OTLP_TARGET": f"127.0.0.1:{port}",
        "GATEWAY_TELEMETRY__OTLP_METRICS": "false",
        "GATEWAY_TELEMETRY__OTLP_LOGS": "false",
        "GATEWAY_TELEMETRY__TRACE_SAMPLE_RATIO": "1",
        "GATEWAY_TELEMETRY__EXPORT_EVERY_MS": "200",
    }


@dataclass
class House:
    """One installation under `data`; may be stopped, killed and started again."""

    data: Path
    topology: str = "appliance.main"
    settings: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen | None = None

    def start(self) -> "House":
        self.data.mkdir(parents=True, exist_ok=True)
        (self.data / "ready.json").unlink(missing_ok=True)
        places = {
            "APPLIANCE_DATA_DIR": str(self.data),
            "APPLIANCE_MODELS_DIR": str(ROOT / "var" / "models"),
            "APPLIANCE_GATEWAY_PORT": "0",
            "APPLIANCE_AUDIT_PORT": "0",
            "APPLIANCE_CONSOLE_PORT": "0",
            "COMPLIANCE_CACHE_DIR": str(ROOT / "var" / "cache" / "compliance"),
            "GATEWAY_SERVING__LAME_DUCK_MS": "0",
            "GATEWAY_TELEMETRY__METRICS_PORT": "0",
        }
        if self.topology == "appliance.mesh":
            places |= MESH
        log = (self.data / "appliance.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", self.topology],
            cwd=ROOT,
            env=os.environ | places | self.settings,
            stdout=log,
            stderr=log,
        )
        log.close()
        deadline = time.monotonic() + START_S
        while not (self.data / "ready.json").exists():
            assert self.process.poll() is None, (self.data / "appliance.log").read_text()[-2_000:]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return self

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_S)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(STOP_S)

    @property
    def facts(self) -> dict[str, str]:
        return json.loads((self.data / "ready.json").read_text())

    @property
    def vkey(self) -> str:
        return Path(self.facts["vkey"]).read_text().strip()

    def client(self, **options) -> AsyncClient:
        return AsyncClient.from_folder(
            self.facts["gateway"], self.facts["tls"], vkey=self.vkey, **options
        )

    def reader(self, tls: str = "auditor_tls") -> AsyncAuditReader:
        return AsyncAuditReader.from_folder(self.facts["audit"], self.facts[tls], vkey=self.vkey)

    def cli(self, *words: str, **options) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "sealgate.cli", *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            **options,
        )


def files_in(folder: Path) -> dict[Path, bytes]:
    """All files below a folder of a running house; those that go meanwhile are left out."""
    found = {}
    for at, _, names in os.walk(folder):
        for path in (Path(at, name) for name in names):
            with suppress(FileNotFoundError):
                if path.is_file():
                    found[path] = path.read_bytes()
    return found


@pytest.fixture(scope="session", params=["appliance.main", "appliance.mesh"])
def topology(request):
    """One process, or five over the wire: the same house to whoever stands before it."""
    return request.param


@pytest.fixture(scope="session")
def house(tmp_path_factory, topology):
    """The one that most tests share: they add calls to it, and take nothing away."""
    spans = spans_to_the_console() if topology == "appliance.main" else {}
    running = House(tmp_path_factory.mktemp("house"), topology, spans).start()
    yield running
    assert running.stop() == 0


@pytest.fixture
def own_house(tmp_path, topology):
    """One to be broken."""
    houses = []

    def made(**settings: str) -> House:
        houses.append(House(tmp_path / "own", topology, settings))
        return houses[-1].start()

    yield made
    for each in houses:
        if each.process.poll() is None:
            each.kill()
