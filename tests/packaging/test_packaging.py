"""What an installation brings: each service its own needs, and the files that are not Python."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

HEAVY = {
    "torch",
    "onnxruntime",
    "hyperscan",
    "cedarpy",
    "tokenizers",
    "gguf",
    "numpy",
    "jwt",
    "yaml",
}

ENTRANCES = {
    "sealgate": ("sealgate", set()),
    "gateway": ("gateway.app", {"cedarpy", "jwt"}),
    "audit": ("audit.log.opening, audit.servicer", {"cedarpy"}),
    "witness": ("audit.witness.main", set()),
    "compliance": (
        "compliance.service",
        {"hyperscan", "onnxruntime", "numpy", "tokenizers", "yaml"},
    ),
    "cache": ("cache.service", set()),
    "inference": ("inference.service", {"torch", "gguf", "tokenizers", "numpy", "yaml"}),
}
"""service -> (modules that pull in all of it, heavy packages its extra brings)."""


@pytest.mark.parametrize("service", ENTRANCES)
def test_a_service_loads_nothing_heavy_but_its_own(service: str) -> None:
    """A gateway image must not carry torch."""
    entrance, own = ENTRANCES[service]
    script = f"import {entrance}; import sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    tops = {name.partition(".")[0] for name in loaded.stdout.split()}
    assert tops & HEAVY <= own


def test_the_sdk_loads_no_server_code() -> None:
    script = "import sealgate; import sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    tops = {name.partition(".")[0] for name in loaded.stdout.split()}
    assert not tops & {"structlog", "pydantic", "httpx2", "opentelemetry", "gateway", "appliance"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    into = tmp_path_factory.mktemp("wheel")
    # A copy: building leaves a folder behind, whose stale files would be in the next wheel.
    made = shutil.ignore_patterns(".*", "var", "build", "node_modules", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, into / "source", ignore=made)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir"]
    subprocess.run([*build, into, into / "source"], check=True, capture_output=True)
    (built,) = into.glob("sealgate-*.whl")
    return zipfile.ZipFile(built).namelist()


@pytest.mark.parametrize(
    "name",
    [
        "sealgate/py.typed",
        "sealgate/v1/gateway_pb2.py",
        "sealgate/v1/gateway_pb2_grpc.pyi",
        "appliance/openbao_policies/audit.hcl",
        "meshkit/policies/schema.cedarschema",
        "meshkit/policies/entities.json",
        "compliance/policies/default.yaml",
        "inference/manifests/smollm2-135m-instruct.json",
    ],
)
def test_the_wheel_carries_what_is_read_at_run_time(wheel: list[str], name: str) -> None:
    assert name in wheel


def test_the_wheel_carries_neither_tests_nor_benchmarks(wheel: list[str]) -> None:
    assert not [name for name in wheel if name.startswith(("tests/", "bench/", "var/"))]
