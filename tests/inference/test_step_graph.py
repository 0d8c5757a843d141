"""Exported steps against PyTorch, and ONNX files that nobody should run."""

import os
import shutil
from dataclasses import replace
from itertools import pairwise

import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from inference.architecture import Architecture
from inference.engines.cuda.device import from_codes, from_state
from inference.precision.network import network_of
from inference.scheduler import Move
from inference.tensorrt import export
from inference.tensorrt.accuracy import accuracy
from inference.tensorrt.assembly import GRAPH_FILE, WEIGHTS_FILE
from inference.tensorrt.calibration import measured_peaks
from inference.tensorrt.export import export_onnx, read_notes
from inference.tensorrt.faults import Fault, TensorRtError
from inference.tensorrt.files import checked_graph, notes_of
from inference.tensorrt.graph import Precision
from inference.tensorrt.model import StepModel
from inference.tensorrt.session import OnnxSession

SIZES = {
    "layers": 2, "width": 32, "hidden": 48, "heads": 4, "kv_heads": 2, "head": 8,
    "vocabulary": 61, "context_tokens": 64, "rope_base": 10_000.0, "norm_epsilon": 1e-5,
}  # fmt: skip
KINDS = {
    "llama": Architecture(**SIZES),
    "qwen2": Architecture(**SIZES, tied=False, qkv_bias=True),
    "qwen3": Architecture(**SIZES | {"head": 16}, qk_norm=True),
}


def state_of(arch: Architecture) -> dict[str, torch.Tensor]:
    """Weights that leave nothing at rest: norms and biases differ from 1 and 0."""
    torch.manual_seed(7)
    layers = range(arch.layers)
    widths = {"q": arch.heads * arch.head, "k": arch.kv_heads * arch.head}
    widths["v"] = widths["k"]
    state = {
        "model.embed_tokens.weight": torch.randn(arch.vocabulary, arch.width) * 0.2,
        "model.norm.weight": torch.rand(arch.width) + 0.5,
    }
    if not arch.tied:
        state["lm_head.weight"] = torch.randn(arch.vocabulary, arch.width)
    for prefix in (f"model.layers.{n}." for n in layers):
        for name, rows in widths.items():
            state[f"{prefix}self_attn.{name}_proj.weight"] = torch.randn(rows, arch.width) * 0.3
            if arch.qkv_bias:
                state[f"{prefix}self_attn.{name}_proj.bias"] = torch.randn(rows) * 0.3
        if arch.qk_norm:
            state[f"{prefix}self_attn.q_norm.weight"] = torch.rand(arch.head) + 0.5
            state[f"{prefix}self_attn.k_norm.weight"] = torch.rand(arch.head) + 0.5
        state[f"{prefix}self_attn.o_proj.weight"] = torch.randn(arch.width, widths["q"]) * 0.2
        state[f"{prefix}mlp.gate_proj.weight"] = torch.randn(arch.hidden, arch.width) * 0.3
        state[f"{prefix}mlp.up_proj.weight"] = torch.randn(arch.hidden, arch.width) * 0.3
        state[f"{prefix}mlp.down_proj.weight"] = torch.randn(arch.width, arch.hidden) * 0.2
        for name in ("input_layernorm", "post_attention_layernorm"):
            state[f"{prefix}{name}.weight"] = torch.rand(arch.width) + 0.5
    return state


def exported(folder, arch, precision=Precision.FP32, peaks=None):
    weights = from_state(arch, state_of(arch), device="cpu", dtype=torch.float32)
    return export_onnx(weights, folder, precision=precision, positions=64, peaks=peaks)


def step_of(folder, arch, precision=Precision.FP32, slots=4):
    session = OnnxSession(folder / GRAPH_FILE, precision=precision, threads=1)
    return StepModel(session, arch, slots=slots, context_tokens=64)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Two threads would wait for one another longer than these sizes take."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def llama_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    exported(folder, KINDS["llama"])
    return folder


@pytest.fixture(scope="module")
def llama(llama_folder):
    return step_of(llama_folder, KINDS["llama"]), network_of(
        KINDS["llama"], state_of(KINDS["llama"])
    )


def tokens(count: int) -> list[int]:
    return torch.randint(0, 61, (count,)).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_each_architecture_gives_pytorchs_logits(kind, tmp_path) -> None:
    arch = KINDS[kind]
    told = exported(tmp_path, arch)
    found = accuracy(network_of(arch, state_of(arch)), step_of(tmp_path, arch), [tokens(40)])

    assert read_notes(notes_of(checked_graph(tmp_path / GRAPH_FILE))) == told
    assert found.difference_max < 1e-3
    assert found.agreement == 1
    assert found.perplexity == pytest.approx(found.torch_perplexity, rel=1e-4)


@torch.inference_mode()
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.lists(st.integers(0, 60), min_size=1, max_size=9), min_size=1, max_size=3),
    st.lists(st.integers(1, 7), max_size=2),
    st.lists(st.integers(1, 3), min_size=1, max_size=2),
)
def test_any_division_into_steps_gives_the_logits_of_the_whole(
    llama, prompts, cuts, stretches
) -> None:
    """Prompts in chunks, then rows at different positions, several of one slot among them."""
    step, network = llama
    step.slots.keys.fill_(torch.nan)
    step.slots.values.fill_(torch.nan)
    for slot, prompt in enumerate(prompts):
        ends = sorted({0, *(cut for cut in cuts if cut < len(prompt)), len(prompt)})
        for start, stop in pairwise(ends):
            logits = step.prefill(prompt[start:stop], slot=slot, start=start)
        assert torch.allclose(logits, network(torch.tensor([prompt]))[0, -1], atol=1e-3)
    texts = [list(prompt) for prompt in prompts]
    for count in stretches:
        rows = [(slot, len(text) + n) for slot, text in enumerate(texts) for n in range(count)]
        for text in texts:
            text += [(text[-1] + n + 1) % 61 for n in range(count)]
        found = step.decode(
            [texts[slot][at] for slot, at in rows], [at for _, at in rows], [s for s, _ in rows]
        )
        whole = [network(torch.tensor([text]))[0] for text in texts]
        expected = torch.stack([whole[slot][at] for slot, at in rows])
        assert torch.allclose(found, expected, atol=1e-3)


@torch.inference_mode()
def test_a_slot_goes_on_where_it_was_moved_to(llama) -> None:
    step, network = llama
    text = tokens(9)
    step.prefill(text[:8], slot=3, start=0)
    step.move(Move(3, 0))

    found = step.decode([text[8]], [8])
    assert torch.allclose(found[0], network(torch.tensor([text]))[0, -1], atol=1e-3)


@pytest.mark.parametrize(("precision", "most"), [(Precision.FP16, 0.05), (Precision.FP8, 2.5)])
def test_lower_precisions_come_as_near_as_they_may(precision, most, tmp_path) -> None:
    arch = KINDS["llama"]
    network, text = network_of(arch, state_of(arch)), tokens(40)
    exported(tmp_path, arch, precision, measured_peaks(network, [text]))
    found = accuracy(network, step_of(tmp_path, arch, precision), [text])

    assert 0 < found.difference_max < most
    assert found.agreement > (0.95 if precision is Precision.FP16 else 0.6)


def test_a_scale_of_its_own_is_what_saves_fp8_from_large_inputs(tmp_path) -> None:
    """Inputs beyond 448 are cut off unless their product is scaled by what was measured."""
    arch, state = KINDS["llama"], state_of(KINDS["llama"])
    for number in range(arch.layers):
        state[f"model.layers.{number}.mlp.up_proj.weight"] *= 300
        state[f"model.layers.{number}.mlp.down_proj.weight"] /= 300
    network, text = network_of(arch, state), tokens(40)
    weights = from_state(arch, state, device="cpu", dtype=torch.float32)
    peaks = measured_peaks(network, [text])
    differences = []
    for given_peaks in (peaks, {}):
        export_onnx(weights, tmp_path, precision=Precision.FP8, positions=64, peaks=given_peaks)
        step = step_of(tmp_path, arch, Precision.FP8)
        differences.append(accuracy(network, step, [text]).difference_max)

    assert max(peaks.values()) > 448
    assert differences[0] < differences[1] / 2


def test_a_gguf_models_weights_come_out_of_rope_order(file_weights) -> None:
    """Pairs of neighbours become halves of a head; what is not turned stays."""
    first = replace(file_weights, layers=file_weights.layers[:1])
    dense = from_codes(first, device="cpu", dtype=torch.float32)
    arch = file_weights.architecture
    pairs = file_weights.layers[0].qkv.dequantised()[: arch.head].view(arch.head // 2, 2, -1)

    assert torch.equal(dense.layers[0].qkv[: arch.head // 2], pairs[:, 0])
    assert torch.equal(dense.layers[0].qkv[arch.head // 2 : arch.head], pairs[:, 1])
    assert torch.equal(dense.layers[0].qkv[-1], file_weights.layers[0].qkv.dequantised()[-1])


def test_equal_weights_give_equal_bytes(llama_folder, tmp_path) -> None:
    exported(tmp_path, KINDS["llama"])

    assert (tmp_path / GRAPH_FILE).read_bytes() == (llama_folder / GRAPH_FILE).read_bytes()


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """A graph whose weights lie in a file beside it, as those beyond 2 GiB do."""
    folder = tmp_path_factory.mktemp("outside")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "INLINE_BYTES_MAX", 0)
        exported(folder, KINDS["llama"])
    return folder


def test_large_weights_lie_beside_the_graph(outside, llama) -> None:
    text = tokens(12)
    found = step_of(outside, KINDS["llama"]).prefill(text, slot=0, start=0)

    assert (outside / WEIGHTS_FILE).stat().st_size > (outside / GRAPH_FILE).stat().st_size
    assert torch.equal(found, llama[0].prefill(text, slot=1, start=0))


def test_a_full_disk_is_told_as_such(tmp_path) -> None:
    (tmp_path / GRAPH_FILE).symlink_to("/dev/full")
    with pytest.raises(TensorRtError) as caught:
        exported(tmp_path, KINDS["llama"])

    assert caught.value.fault is Fault.DISK_FULL


# --- files of strangers ---------------------------------------------------------------------


def placed(model: onnx.ModelProto, **place: str) -> None:
    """Move the first external tensor."""
    (tensor,) = [t for t in model.graph.initializer if t.external_data][:1]
    kept = {entry.key: entry.value for entry in tensor.external_data}
    del tensor.external_data[:]
    for key, value in (kept | place).items():
        tensor.external_data.add(key=key, value=value)


def with_a_subgraph(model: onnx.ModelProto) -> None:
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=body))


def with_a_node_of_strangers(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def with_a_hidden_tensor(model: onnx.ModelProto) -> None:
    """An external tensor in a node's attribute, not among the weights."""
    value = TensorProto(name="v", data_type=TensorProto.FLOAT, dims=[1])
    value.data_location = TensorProto.EXTERNAL
    value.external_data.add(key="location", value="../secret")
    model.graph.node.append(helper.make_node("Constant", [], ["hidden"], value=value))


WRONG = {
    "weights_above": (lambda m: placed(m, location="../secret"), Fault.OUTSIDE),
    "weights_at_the_root": (lambda m: placed(m, location="/etc/passwd"), Fault.OUTSIDE),
    "weights_in_a_folder": (lambda m: placed(m, location="sub/file"), Fault.OUTSIDE),
    "weights_by_a_link": (lambda m: placed(m, location="link"), Fault.OUTSIDE),
    "weights_nowhere": (lambda m: placed(m, location="none"), Fault.WEIGHTS_SHORT),
    "weights_beyond_the_end": (lambda m: placed(m, offset="999999999"), Fault.WEIGHTS_SHORT),
    "weights_that_go_on_beyond": (lambda m: placed(m, length="99999999"), Fault.WEIGHTS_SHORT),
    "weights_before_the_start": (lambda m: placed(m, offset="-1"), Fault.WEIGHTS_SHORT),
    "weights_at_no_number": (lambda m: placed(m, offset="x"), Fault.WEIGHTS_SHORT),
    "a_hidden_tensor": (with_a_hidden_tensor, Fault.OUTSIDE),
    "a_subgraph": (with_a_subgraph, Fault.GRAPH_REFUSED),
    "a_node_of_strangers": (with_a_node_of_strangers, Fault.GRAPH_REFUSED),
    "no_nodes": (lambda m: m.graph.ClearField("node"), Fault.GRAPH_REFUSED),
    "another_output": (lambda m: m.graph.output.pop(), Fault.NOT_A_STEP),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_graph_is_found_before_it_is_run(case, outside, tmp_path) -> None:
    change, fault = WRONG[case]
    (tmp_path / "secret").write_bytes(bytes(1 << 20))
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copy(outside / WEIGHTS_FILE, folder)
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "sub").mkdir()
    (folder / "sub" / "file").write_bytes(bytes(1 << 20))
    model = onnx.ModelProto.FromString((outside / GRAPH_FILE).read_bytes())
    change(model)
    (folder / GRAPH_FILE).write_bytes(model.SerializeToString())
    with pytest.raises(TensorRtError) as caught:
        checked_graph(folder / GRAPH_FILE)

    assert caught.value.fault is fault
    assert str(caught.value) == fault.value


@pytest.mark.parametrize("content", [b"", b"hello\n", b"\x08\x0a", os.urandom(512)])
def test_what_is_no_graph_is_refused(content, tmp_path) -> None:
    (tmp_path / GRAPH_FILE).write_bytes(content)
    with pytest.raises(TensorRtError) as caught:
        checked_graph(tmp_path / GRAPH_FILE)

    assert caught.value.fault in {Fault.GRAPH_REFUSED, Fault.NOT_A_STEP}
    with pytest.raises(TensorRtError):
        OnnxSession(tmp_path / GRAPH_FILE, precision=Precision.FP32, threads=1)
    with pytest.raises(TensorRtError) as caught:
        checked_graph(tmp_path / "none.onnx")
    assert caught.value.fault is Fault.GRAPH_MISSING


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 4_000), st.binary(min_size=1, max_size=8), st.booleans())
def test_a_damaged_graph_is_refused_or_sound(outside, tmp_path, at, patch, cut) -> None:
    """Whatever is altered: one of our own faults, or a graph that still may be run."""
    raw = (outside / GRAPH_FILE).read_bytes()
    path = tmp_path / GRAPH_FILE
    path.write_bytes(raw[:at] if cut else raw[:at] + patch + raw[at + len(patch) :])
    if not (tmp_path / WEIGHTS_FILE).exists():
        shutil.copy(outside / WEIGHTS_FILE, tmp_path)
    try:
        model = checked_graph(path)
    except TensorRtError:
        return
    assert "tokens" in {each.name for each in model.graph.input}
