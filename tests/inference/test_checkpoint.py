"""Safetensors models: the same logits as transformers', and whatever is wrong is refused."""

import json
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from inference.checkpoint import architecture_of, load_checkpoint
from inference.engines.llama import Llama
from inference.registry import ModelFileError
from inference.safetensors_file import HEADER_BYTES_MAX, read_json, read_tensors
from tests.inference.toys import toy, write_model

LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
}  # fmt: skip
FAMILIES = {
    "llama": ("Llama", {"tie_word_embeddings": False}),
    "llama, tied, all heads their own": (
        "Llama",
        {"tie_word_embeddings": True, "num_key_value_heads": 4},
    ),
    "llama 3, scaled rope": ("Llama", {"rope_parameters": LLAMA3, "head_dim": 32}),
    "qwen2, biases": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen3, head norms": ("Qwen3", {"head_dim": 32, "tie_word_embeddings": False}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("toy"), toy("Llama"))


def loaded(folder):
    arch = architecture_of(read_json(folder / "config.json"))
    index = folder / "model.safetensors.index.json"
    files = sorted(folder.glob("*.safetensors"))
    return load_checkpoint(arch, read_tensors(files, index=index if index.exists() else None))


def altered(folder, tmp_path, change):
    """A copy whose tensors were changed."""
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    return tmp_path


@torch.inference_mode()
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_transformers(tmp_path, family) -> None:
    kind, changes = FAMILIES[family]
    reference = toy(kind, **changes)
    model = Llama(loaded(write_model(tmp_path, reference)), slots=2, context_tokens=96)
    tokens = torch.randint(0, 320, (70,)).tolist()
    want = reference(torch.tensor([tokens])).logits[0]

    assert torch.allclose(model.prefill(tokens[:33], slot=0, start=0), want[32], atol=2e-3)
    assert torch.allclose(model.prefill(tokens[33:60], slot=0, start=33), want[59], atol=2e-3)
    for at in range(60, 70):
        assert torch.allclose(model.decode([tokens[at]], [at])[0], want[at], atol=2e-3)
    assert want.std() > 0.5  # so that the tolerance means something


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_request_gets_the_same_bits_alone_and_in_company(tmp_path, dtype) -> None:
    weights = loaded(write_model(tmp_path, toy("Qwen2").to(dtype)))
    prompts = [torch.randint(0, 320, (n,)).tolist() for n in (5, 33, 1)]
    together, alone = (Llama(weights, slots=3, context_tokens=64) for _ in range(2))
    for slot, prompt in enumerate(prompts):
        together.prefill(prompt, slot=slot, start=0)
    rows = together.decode([1, 2, 3], [len(prompt) for prompt in prompts])

    for slot, prompt in enumerate(prompts):
        alone.prefill(prompt, slot=0, start=0)
        assert torch.equal(alone.decode([slot + 1], [len(prompt)])[0], rows[slot])


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["Llama", "Qwen2", "Qwen3"])
def test_a_gpu_gets_the_very_tensors_of_the_file(tmp_path, kind) -> None:
    """Rope's pairs become halves again, in norms of heads and biases, too."""
    from inference.engines.cuda.device import from_codes, from_state

    weights = loaded(write_model(tmp_path, toy(kind)))
    state = load_file(tmp_path / "model.safetensors")
    ours = from_codes(weights, device="cpu", dtype=torch.float32)
    theirs = from_state(weights.architecture, state, device="cpu", dtype=torch.float32)

    assert torch.equal(ours.head, theirs.head)
    for a, b in zip(ours.layers, theirs.layers, strict=True):
        for name in ("qkv", "attention_out", "gate_up", "down", "qkv_bias", "q_norm", "k_norm"):
            one, other = getattr(a, name), getattr(b, name)
            assert one is other is None or torch.equal(one, other)


@torch.inference_mode()
def test_shards_are_one_model(folder, tmp_path) -> None:
    write_model(tmp_path, toy("Llama"), max_shard_size="60KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    whole, split = loaded(folder), loaded(tmp_path)

    assert len(shards) > 2
    assert torch.equal(whole.embedding.values, split.embedding.values)
    assert torch.equal(whole.layers[1].qkv, split.layers[1].qkv)


def test_an_index_that_does_not_fit_its_shards_is_refused(tmp_path) -> None:
    write_model(tmp_path, toy("Llama"), max_shard_size="60KB")
    index = tmp_path / "model.safetensors.index.json"
    told = json.loads(index.read_text())
    names = iter(told["weight_map"])
    first, second = next(names), list(names)[-1]
    told["weight_map"][first] = told["weight_map"][second]
    index.write_text(json.dumps(told))

    with pytest.raises(ModelFileError, match="index"):
        loaded(tmp_path)


@torch.inference_mode()
@pytest.mark.parametrize("precision", ["int4", "int8-weight"])
def test_a_quantised_variant_keeps_its_codes(folder, tmp_path, precision) -> None:
    """As `inference.precision.files` writes them: the very numbers, used as codes."""
    reference = toy("Llama")
    state = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        if name.endswith("norm.weight"):
            state[name] = tensor.bfloat16()
            reference.get_parameter(name).copy_(state[name])
            continue
        stem = name.removesuffix(".weight")
        four = precision == "int4" and "layers" in name
        groups = tensor.shape[1] // 32 if four else 1
        scale = tensor.abs().view(len(tensor), groups, -1).amax(-1) / (7 if four else 127)
        codes = (tensor.view(*scale.shape, -1) / scale[..., None]).round().flatten(1)
        zero = torch.randint(-1, 2, scale.shape).to(torch.int8) if four else None
        packed = (codes + 8).to(torch.uint8)
        state[f"{stem}._weight_qdata"] = (
            packed[:, ::2] | packed[:, 1::2] << 4 if four else codes.to(torch.int8)
        )
        state[f"{stem}._weight_scale"] = scale
        values = codes.view(*scale.shape, -1)
        if zero is not None:
            state[f"{stem}._weight_zero_point"] = zero
            values = values - zero[..., None]
        reference.get_parameter(name).copy_((values * scale[..., None]).flatten(1))
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    tokens = torch.randint(0, 320, (40,)).tolist()
    want = reference(torch.tensor([tokens])).logits[0, -1]
    model = Llama(loaded(tmp_path), slots=1, context_tokens=64)
    found = model.prefill(tokens[:-1], slot=0, start=0), model.decode(tokens[-1:], [39])[0]

    assert (found[1] - want).abs().max() < 0.1 * want.std()  # bf16 rows, an int8 head


BAD_STATES = {
    "a tensor is missing": lambda state: state.pop("model.norm.weight"),
    "a tensor is left over": lambda state: state.update(extra=torch.zeros(1)),
    "a bias that llama has not": lambda state: state.update(
        {"model.layers.0.self_attn.q_proj.bias": torch.zeros(64)}
    ),
    "a wrong shape": lambda state: state.update({"model.norm.weight": torch.ones(63)}),
    "a matrix on its side": lambda state: state.update(
        {"model.layers.0.mlp.down_proj.weight": torch.ones(96, 64)}
    ),
    "whole numbers": lambda state: state.update({"model.norm.weight": torch.ones(64).long()}),
    "not a number": lambda state: state["model.layers.1.mlp.up_proj.weight"][3].fill_(torch.nan),
    "infinite": lambda state: state["model.norm.weight"][:1].fill_(torch.inf),
}


@pytest.mark.parametrize("damage", BAD_STATES)
def test_tensors_that_are_not_the_architectures_are_refused(folder, tmp_path, damage) -> None:
    bad = altered(folder, tmp_path, BAD_STATES[damage])

    with pytest.raises(ModelFileError):
        loaded(bad)


W = "model.layers.0.mlp.down_proj"
BAD_CODES = {
    "codes without a shape": (torch.tensor(3, dtype=torch.uint8), torch.ones(64, 1)),
    "scales without a shape": (torch.zeros(64, 96, dtype=torch.int8), torch.tensor(1.0)),
    "no scales": (torch.zeros(64, 96, dtype=torch.int8), torch.ones(64, 0)),
    "beyond fp32 once multiplied": (
        torch.zeros(64, 96, dtype=torch.int8),
        torch.full((64, 3), 3e38),
    ),
}


@pytest.mark.parametrize("damage", BAD_CODES)
def test_codes_that_are_not_the_architectures_are_refused(folder, tmp_path, damage) -> None:
    def change(state):
        del state[f"{W}.weight"]
        state[f"{W}._weight_qdata"], state[f"{W}._weight_scale"] = BAD_CODES[damage]

    bad = altered(folder, tmp_path, change)

    with pytest.raises(ModelFileError):
        loaded(bad)


BAD_CONFIGS = {
    "another architecture": {"model_type": "gpt2"},
    "a pretender": {"model_type": ["llama"]},
    "another activation": {"hidden_act": "gelu"},
    "another rope": {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}},
    "a size of text": {"hidden_size": "64"},
    "a huge size": {"num_hidden_layers": 1 << 40},
    "no size": {"vocab_size": None},
    "more layers": {"num_hidden_layers": 3},
    "fewer layers": {"num_hidden_layers": 1},
    "heads that do not divide": {"num_key_value_heads": 3},
    "windows": {"use_sliding_window": True},
    "a number that is none here": {"rms_norm_eps": 10**400},
}


@pytest.mark.parametrize("lie", BAD_CONFIGS)
def test_a_configuration_that_lies_is_refused(folder, tmp_path, lie) -> None:
    told = read_json(folder / "config.json") | BAD_CONFIGS[lie]
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(told))

    with pytest.raises(ModelFileError):
        loaded(tmp_path)


def file_with(header: object, data: bytes = b"") -> bytes:
    told = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(told)) + told + data


def tensor(shape, start, stop, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


BAD_FILES = {
    "empty": b"",
    "a huge header": struct.pack("<Q", HEADER_BYTES_MAX + 1) + b"{}",
    "a header beyond the file": struct.pack("<Q", 1 << 62) + b"{}",
    "no JSON": file_with(b"{"),
    "a list": file_with([1]),
    "deep JSON": file_with(b"[" * 100_000),
    "cut off": file_with({"a": tensor([2], 0, 8)}, bytes(7)),
    "more than it says": file_with({"a": tensor([2], 0, 8)}, bytes(9)),
    "a gap": file_with({"a": tensor([1], 4, 8)}, bytes(8)),
    "an overlap": file_with({"a": tensor([2], 0, 8), "b": tensor([1], 4, 8)}, bytes(8)),
    "a shape with other bytes": file_with({"a": tensor([3], 0, 8)}, bytes(8)),
    "a negative size": file_with({"a": tensor([-1, -2], 0, 8)}, bytes(8)),
    "a huge shape": file_with({"a": tensor([1 << 62, 0], 0, 0)}),
    "a size that is true": file_with({"a": tensor([True], 0, 4)}, bytes(4)),
    "an unknown type": file_with({"a": tensor([1], 0, 8, "C64")}, bytes(8)),
    "many dimensions": file_with({"a": tensor([1] * 9, 0, 4)}, bytes(4)),
    "a zip, as PyTorch writes": b"PK\x03\x04" + bytes(64),
    "a pickle": b"\x80\x04\x95" + bytes(64),
}


@pytest.mark.parametrize("damage", BAD_FILES)
def test_what_is_no_safetensors_is_refused(tmp_path, damage) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(BAD_FILES[damage])

    with pytest.raises(ModelFileError) as caught:
        read_tensors([file])

    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("name", ["model.bin", "model.pt", "weights.CKPT", "a.pkl"])
def test_a_pickle_is_refused_by_its_name_alone(folder, tmp_path, name) -> None:
    (tmp_path / name).write_bytes((folder / "model.safetensors").read_bytes())

    with pytest.raises(ModelFileError, match="pickle"):
        read_tensors([tmp_path / name])


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "small.safetensors"
    save_file({"a": torch.ones(2, 3), "b": torch.zeros(4)}, path)
    return path.read_bytes()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_damage_gives_anything_but_tensors_or_a_typed_error(tmp_path_factory, small, data):
    raw = bytearray(small)
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    try:
        tensors = read_tensors([path])
        found = {name: tensors.get(name).shape for name in tensors.notes}
    except ModelFileError:
        return
    assert sorted(shape.numel() for shape in found.values()) == [4, 6]
