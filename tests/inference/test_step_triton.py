"""Steps of an exported model through the real Triton, by a stand-in with a plan's signature."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import tritonclient.grpc as triton_client

from inference.architecture import Architecture
from inference.engines.triton.settings import TritonSettings
from inference.tensorrt.builder import Shapes
from inference.tensorrt.export import export_onnx
from inference.tensorrt.faults import Fault, TensorRtError
from inference.tensorrt.graph import Precision
from inference.tensorrt.making import triton_config
from inference.tensorrt.model import StepModel
from inference.tensorrt.plan import Plan
from inference.tensorrt.session import OnnxSession
from inference.tensorrt.triton_session import TritonSession
from inference.triton_repository.config import Instances
from inference.triton_repository.folder import write_model
from tests.inference import triton_world as world

ARCH = Architecture(
    layers=2, width=32, hidden=48, heads=4, kv_heads=2, head=8,
    vocabulary=61, context_tokens=64, rope_base=10_000.0, norm_epsilon=1e-5,
)  # fmt: skip
HEADERS = {"triton-grpc-protocol-admin-key": world.ADMIN_KEY}


@pytest.fixture(scope="module")
def stepping(triton, tmp_path_factory):
    """The stand-in, loaded under a plan's configuration but for who runs it."""
    from inference.engines.cuda.device import random_weights

    folder = tmp_path_factory.mktemp("step")
    torch.manual_seed(1)
    weights = random_weights(ARCH, device="cpu", dtype=torch.float32)
    exported = export_onnx(weights, folder, precision=Precision.FP32, positions=64)
    shapes = Shapes(slots=2, chunk_tokens=16, context_tokens=64)
    plan = Plan(
        step=exported, version="0", capabilities=("8.9",), graph_sha256="", sha256="",
        size_bytes=1, slots=shapes.slots, chunk_tokens=16, context_tokens=64,
    )  # fmt: skip
    config = replace(
        triton_config("step", plan), platform="", backend="python", instances=Instances()
    )
    standin = Path(__file__).with_name("step_standin.py")
    files = {"model.py": standin, "model.onnx": folder / "model.onnx"}
    write_model(triton.repository, config, files)
    with triton_client.InferenceServerClient(f"127.0.0.1:{triton.port}") as client:
        client.load_model("step", headers=HEADERS)
        yield TritonSettings(url=f"127.0.0.1:{triton.port}"), folder
        client.unload_model("step", headers=HEADERS)


def test_steps_through_triton_are_those_of_the_graph(stepping) -> None:
    settings, folder = stepping
    there = TritonSession(settings, "step", arch=ARCH, precision=Precision.FP32)
    here = OnnxSession(folder / "model.onnx", precision=Precision.FP32, threads=1)
    models = [StepModel(each, ARCH, slots=2, context_tokens=64) for each in (there, here)]
    text = torch.randint(0, 61, (20,)).tolist()
    for slot, prompt in enumerate((text[:11], text[:4])):
        one, other = (model.prefill(prompt, slot=slot, start=0) for model in models)
        assert torch.allclose(one, other, atol=1e-4)
    one, other = (model.decode([7, 8], [11, 4]) for model in models)

    assert torch.allclose(one, other, atol=1e-4)
    assert torch.equal(
        models[0].slots.keys[:, 0, :, 11] != 0, models[1].slots.keys[:, 0, :, 11] != 0
    )


@pytest.mark.parametrize(
    ("model", "changes", "fault"),
    [
        ("step", {"vocabulary": 62}, Fault.NOT_A_STEP),
        ("step", {"layers": 3}, Fault.NOT_A_STEP),
        ("nobody", {}, Fault.NO_TRITON),
    ],
)
def test_a_model_of_another_signature_gets_no_prompt(stepping, model, changes, fault) -> None:
    with pytest.raises(TensorRtError) as caught:
        TritonSession(stepping[0], model, arch=replace(ARCH, **changes), precision=Precision.FP32)

    assert caught.value.fault is fault


def test_a_step_that_triton_refuses_is_a_fault_of_ours(stepping) -> None:
    """A past that is none: the stand-in's runtime raises, and its words stay there."""
    session = TritonSession(stepping[0], "step", arch=ARCH, precision=Precision.FP32)
    good = {
        "tokens": torch.zeros(1, 1, dtype=torch.int64),
        "past_tokens": torch.zeros(1, dtype=torch.int64),
        "past_keys": torch.zeros(2, 1, 2, 1, 8),
        "past_values": torch.zeros(2, 1, 2, 1, 8),
        "wanted": torch.zeros(1, dtype=torch.int64),
    }
    with pytest.raises(TensorRtError) as caught:
        session.run(good | {"wanted": torch.tensor([9])})

    assert caught.value.fault is Fault.NOT_RUN
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    assert session.run(good)["logits"].shape == (1, 1, 61)
