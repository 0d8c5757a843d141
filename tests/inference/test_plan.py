"""Plans: what builds them, what may become of the builder, and what is refused before a load."""

import hashlib
import io
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference.architecture import Architecture
from inference.engines.cuda.device import random_weights
from inference.tensorrt import builder
from inference.tensorrt.builder import (
    Limits,
    Shapes,
    build_plan,
    installed_version,
    probe_plan,
)
from inference.tensorrt.export import export_onnx
from inference.tensorrt.faults import Fault, TensorRtError
from inference.tensorrt.graph import Precision
from inference.tensorrt.making import make_plan, trtexec_command, write_to_triton
from inference.tensorrt.plan import (
    PLAN_FILE,
    PLAN_NOTES,
    must_load,
    read_plan_notes,
    version_in,
)
from inference.tensorrt.rtx_session import TensorRtSession

ROOT = Path(__file__).parents[2]
HOME = Path(os.environ.get("SEALGATE_TENSORRT_DIR", ROOT / "var" / "tensorrt"))
ARCH = Architecture(
    layers=1, width=32, hidden=48, heads=4, kv_heads=2, head=8,
    vocabulary=61, context_tokens=64, rope_base=10_000.0, norm_epsilon=1e-5,
)  # fmt: skip
SHAPES = Shapes(slots=2, chunk_tokens=16, context_tokens=64)

needs_library = pytest.mark.skipif(
    not (HOME / "ready.json").exists(), reason="`make tensorrt` fetches NVIDIA's library"
)


def fault_of(work, *args, **kwargs) -> Fault:
    with pytest.raises(TensorRtError) as caught:
        work(*args, **kwargs)
    assert str(caught.value) == caught.value.fault.value
    return caught.value.fault


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graph")
    weights = random_weights(ARCH, device="cpu", dtype=torch.float32)
    export_onnx(weights, folder, precision=Precision.FP16, positions=64, built_from="ab" * 32)
    return folder


@pytest.fixture(scope="module")
def built(graph, tmp_path_factory):
    """A plan of the real library: built without a GPU."""
    folder = tmp_path_factory.mktemp("plan")
    heard = []
    plan = make_plan(
        graph,
        folder,
        home=HOME,
        capabilities=["8.9"],
        shapes=SHAPES,
        tell=lambda phase, steps: heard.append((phase, steps)),
    )
    return folder, plan, heard


# --- the real library -----------------------------------------------------------------------


@needs_library
def test_a_plan_is_built_without_a_gpu_and_notes_what_it_is(built, graph) -> None:
    folder, plan, heard = built

    assert plan == read_plan_notes(folder / PLAN_NOTES)
    assert plan.version == installed_version(HOME)
    assert version_in((folder / PLAN_FILE).read_bytes()[:64]) == plan.version
    assert plan.step.built_from == "ab" * 32
    graph_bytes = (graph / "model.onnx").read_bytes()
    assert plan.graph_sha256 == hashlib.sha256(graph_bytes).hexdigest()
    assert plan.size_bytes == (folder / PLAN_FILE).stat().st_size
    assert heard
    assert names_in(folder) == [PLAN_FILE, PLAN_NOTES]


@needs_library
def test_without_a_gpu_a_plan_is_not_loaded(built) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    folder, plan, _ = built

    assert fault_of(must_load, plan, folder / PLAN_FILE, HOME) is Fault.NO_GPU
    session = {"dtype": torch.float16, "home": HOME}
    assert fault_of(TensorRtSession, folder / PLAN_FILE, **session) is Fault.NO_GPU


@needs_library
def test_what_is_no_plan_is_told_by_the_library(graph) -> None:
    assert fault_of(probe_plan, HOME, graph / "model.onnx") is Fault.PLAN_DAMAGED


@needs_library
def test_the_library_itself_has_no_hopper(graph, tmp_path, monkeypatch) -> None:
    """Asked past our own list of what there is."""
    monkeypatch.setitem(builder.CAPABILITIES, "9.0", "SM90")
    work = {"home": HOME, "capabilities": ["9.0"], "shapes": SHAPES}

    assert fault_of(make_plan, graph, tmp_path, **work) is Fault.CAPABILITY


@needs_library
def test_the_builder_has_no_more_memory_than_it_may(graph, tmp_path) -> None:
    limits = Limits(memory_bytes=100 << 20)
    work = {"home": HOME, "capabilities": ["8.9"], "shapes": SHAPES, "limits": limits}

    # The library says so, or dies of it.
    faults = {Fault.OUT_OF_MEMORY, Fault.KILLED}
    assert fault_of(make_plan, graph, tmp_path, **work) in faults
    assert names_in(tmp_path) == []


# --- what may become of the builder ---------------------------------------------------------


@pytest.fixture
def stand_in(tmp_path):
    """A builder that does what a line of shell says."""

    def make(script: str) -> Path:
        python = tmp_path / "home" / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
        (tmp_path / "home" / "ready.json").write_text("{}")
        return tmp_path / "home"

    return make


BUILDERS = {
    "disk full": ('echo \'{"fault": "DISK_FULL"}\'', Fault.DISK_FULL),
    "killed": ("kill -9 $$", Fault.KILLED),
    "crashed": ("kill -SEGV $$", Fault.KILLED),
    "silent": ("cat >/dev/null", Fault.KILLED),
    "died on the way": ('echo \'{"phase": "x", "steps": 1}\'; kill -9 $$', Fault.KILLED),
    "told, then died": ('echo \'{"version": "1", "bytes": 1}\'; exit 1', Fault.KILLED),
    "wrote no JSON": ("echo prompt was canary", Fault.KILLED),
    "unknown fault": ('echo \'{"fault": "NEW"}\'', Fault.NOT_BUILT),
    "hangs": ("exec sleep 60", Fault.OUT_OF_TIME),
}


@pytest.mark.parametrize("case", BUILDERS)
def test_however_the_builder_ends_it_is_one_fault_and_nothing_stays(
    case, stand_in, graph, tmp_path
) -> None:
    script, fault = BUILDERS[case]
    home = stand_in(f"{script}")
    plan = tmp_path / PLAN_FILE
    plan.write_bytes(b"the plan of before")
    (tmp_path / f".{PLAN_FILE}.part").write_bytes(b"half")
    found = fault_of(
        build_plan,
        home,
        graph / "model.onnx",
        plan,
        capabilities=["8.9"],
        profiles=SHAPES.profiles(ARCH),
        limits=Limits(time_s=0.5 if case == "hangs" else 60),
    )

    assert found is fault
    assert plan.read_bytes() == b"the plan of before"
    assert not (tmp_path / f".{PLAN_FILE}.part").exists()


def test_the_builder_sees_nothing_of_our_environment(stand_in, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("VAULT_TOKEN", "secret")
    home = stand_in(f'env > {tmp_path}/seen; echo "{{\\"version\\": \\"$(pwd)\\"}}"')
    where = installed_version(home)

    names = {line.partition("=")[0] for line in (tmp_path / "seen").read_text().splitlines()}
    assert names <= {"PATH", "TMPDIR", "HOME", "PWD", "OLDPWD", "SHLVL", "_"}
    assert not Path(where).exists()


def test_what_is_not_installed_is_said_plainly(graph, tmp_path) -> None:
    work = {"home": tmp_path / "none", "shapes": SHAPES}

    found = fault_of(make_plan, graph, tmp_path / "a", capabilities=["8.9"], **work)
    assert found is Fault.NOT_INSTALLED
    assert "make tensorrt" in found.value


@pytest.mark.parametrize(
    ("capabilities", "fault"),
    [
        (["9.0"], Fault.CAPABILITY),
        (["8.9", "10.0"], Fault.CAPABILITY),
        (["hopper"], Fault.CAPABILITY),
        ([], Fault.CAPABILITY),
    ],
)
def test_gpus_that_there_is_no_plan_for_are_refused(capabilities, fault, graph, tmp_path) -> None:
    work = {"home": HOME, "capabilities": capabilities, "shapes": SHAPES}

    assert fault_of(make_plan, graph, tmp_path, **work) is fault


def test_a_precision_or_a_length_that_cannot_be_is_refused(graph, tmp_path) -> None:
    weights = random_weights(ARCH, device="cpu", dtype=torch.float32)
    export_onnx(weights, tmp_path, precision=Precision.FP8, positions=64)
    work = {"home": HOME, "shapes": SHAPES}
    longer = {"home": HOME, "capabilities": ["8.9"], "shapes": replace(SHAPES, context_tokens=65)}

    refused = fault_of(make_plan, tmp_path, tmp_path, capabilities=["8.9", "8.6"], **work)
    assert refused is Fault.PRECISION
    assert fault_of(make_plan, graph, tmp_path, **longer) is Fault.POSITIONS


# --- before a load --------------------------------------------------------------------------


@pytest.fixture
def noted(tmp_path, graph):
    """Notes and a plan that fit one another; the plan is none that a GPU would run."""
    plan = b"vtrt" + bytes(20) + bytes((1, 7, 1, 116)) + bytes(100)
    (tmp_path / PLAN_FILE).write_bytes(plan)
    step = {
        "architecture": {**_sizes(), "rope_scaling": None},
        "precision": "fp16", "positions": 64, "built_from": "",
    }  # fmt: skip
    told = {
        "schema": "sealgate/plan/v1", "builder": "tensorrt-rtx", "step": step,
        "version": "1.7.1.116", "capabilities": ["8.9"], "slots": 2, "chunk_tokens": 16,
        "context_tokens": 64, "graph_sha256": "00" * 32, "size_bytes": len(plan),
        "sha256": hashlib.sha256(plan).hexdigest(),
    }  # fmt: skip

    def write(**changes: object) -> Path:
        (tmp_path / PLAN_NOTES).write_text(json.dumps(told | changes))
        return tmp_path

    return write


def _sizes() -> dict[str, object]:
    return {name: getattr(ARCH, name) for name in ARCH.__slots__}


def load(folder: Path, home: Path) -> None:
    must_load(read_plan_notes(folder / PLAN_NOTES), folder / PLAN_FILE, home)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"schema": "sealgate/plan/v0"}, Fault.PLAN_UNKNOWN),
        ({"builder": "tensorrt"}, Fault.PLAN_UNKNOWN),
        ({"slots": 0}, Fault.PLAN_UNKNOWN),
        ({"slots": True}, Fault.PLAN_UNKNOWN),
        ({"version": None}, Fault.PLAN_UNKNOWN),
        ({"step": {}}, Fault.PLAN_UNKNOWN),
        ({"more": 1}, Fault.PLAN_UNKNOWN),
        ({"sha256": "11" * 32}, Fault.PLAN_DAMAGED),
        ({"size_bytes": 1}, Fault.PLAN_DAMAGED),
        ({"version": "1.7.2.0"}, Fault.OTHER_VERSION),
    ],
)
def test_notes_that_do_not_fit_are_refused_before_the_library_is_asked(
    change, fault, noted, tmp_path
) -> None:
    assert fault_of(load, noted(**change), tmp_path / "no library") is fault


def test_a_plan_of_another_version_is_refused_before_it_is_loaded(noted, stand_in) -> None:
    """The installed library names another version; it is never handed the plan."""
    home = stand_in('grep -q probe && kill -9 $$; echo \'{"version": "1.8.0.1"}\'')

    assert fault_of(load, noted(), home) is Fault.OTHER_VERSION


def test_a_plan_that_fits_is_shown_to_the_library(noted, stand_in) -> None:
    told, version = '{"fault": "GPU_REFUSED"}', '{"version": "1.7.1.116"}'
    home = stand_in(f"grep -q probe && echo '{told}' || echo '{version}'")

    assert fault_of(load, noted(), home) is Fault.GPU_REFUSED


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=9), st.lists),
    st.sampled_from(["version", "capabilities", "slots", "step", "size_bytes", "sha256"]),
)
def test_any_value_in_the_notes_is_understood_or_refused(noted, value, field) -> None:
    folder = noted(**{field: value})
    try:
        plan = read_plan_notes(folder / PLAN_NOTES)
    except TensorRtError:
        return
    assert json.loads(plan.written())[field] == value


# --- the library's words --------------------------------------------------------------------


@pytest.fixture
def worker(monkeypatch):
    """The builder's own module, beside a stand-in for NVIDIA's."""
    stand_in = SimpleNamespace(ILogger=object, IProgressMonitor=object)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", stand_in)
    monkeypatch.delitem(sys.modules, "inference.tensorrt.rtx_worker", raising=False)
    from inference.tensorrt import rtx_worker

    yield rtx_worker
    sys.modules.pop("inference.tensorrt.rtx_worker", None)


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        # As an H100 was told.
        ("The engine cannot run on this GPU, which has compute capability 9.0.", Fault.GPU_REFUSED),
        # As seen without a GPU.
        ("(cudaError 35: CUDA driver version is insufficient for CUDA runtime)", Fault.NO_GPU),
        ("Serialization assertion header.magicTag == kEXPECTED", Fault.PLAN_DAMAGED),
        ("std::bad_alloc", Fault.OUT_OF_MEMORY),
        ("something else", None),
    ],
)
def test_the_librarys_words_become_one_of_our_faults(message, fault, worker) -> None:
    kind = worker.kind_of(message)

    assert (kind and Fault[kind.value]) is fault


def test_whatever_the_builder_can_tell_is_a_fault_of_ours(worker) -> None:
    assert {kind.value for kind in worker.Kind} <= set(Fault.__members__)


def test_a_full_disk_is_told_as_such(worker, monkeypatch, capsys) -> None:
    monkeypatch.setattr(worker, "build", lambda _: worker.write("/dev/full", memoryview(b"plan")))
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"do": "build"}'))
    worker.main()

    assert json.loads(capsys.readouterr().out) == {"fault": Fault.DISK_FULL.name}


# --- for Triton -----------------------------------------------------------------------------


def test_tritons_own_schema_reads_what_a_plan_is_described_by(noted, tmp_path) -> None:
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    placed = write_to_triton(tmp_path / "repository", "toy", noted())
    config = model_config_pb2.ModelConfig()
    text_format.Parse((placed / "config.pbtxt").read_text(), config)

    assert (config.platform, config.max_batch_size) == ("tensorrt_plan", 0)
    assert {tensor.name: list(tensor.dims) for tensor in config.input} == {
        "tokens": [-1, -1],
        "past_tokens": [-1],
        "past_keys": [1, -1, 2, -1, 8],
        "past_values": [1, -1, 2, -1, 8],
        "wanted": [-1],
    }
    assert names_in(placed / "1") == [PLAN_FILE, PLAN_NOTES]


def test_full_tensorrt_is_told_both_profiles(graph) -> None:
    words = trtexec_command(graph / "model.onnx", SHAPES)

    assert "--profile=0" in words
    assert "--maxShapes=tokens:2x1,past_tokens:2,past_keys:1x2x2x64x8" in words
    assert "--maxShapes=tokens:2x16,past_tokens:2" in words
