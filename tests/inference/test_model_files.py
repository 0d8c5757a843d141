"""Models as a store opens them: engines that answer, adapters, and manifests that lie."""

import asyncio
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from inference.checkpoint import architecture_of
from inference.engines.llama import Llama
from inference.engines.load import load_engine, opened_with_base
from inference.model_files import chat_parts
from inference.registry import ModelFileError
from inference.safetensors_file import read_json
from inference.store.manifest import Manifest
from inference.weights import Adapted, Codes4
from meshkit.contract import Ended, Message, Parameters, Role
from tests.inference.store_world import CLAIM, NAME, World
from tests.inference.toys import TEMPLATE, opened, toy, write_model, write_tokenizer

ASKED = [Message(Role.USER, "the end?")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("toy"), toy("Qwen3"))


@pytest.fixture(scope="module")
def base(folder):
    return opened(folder)


def answer(engine) -> tuple[str, Ended]:
    async def ask():
        engine.start()
        items = [item async for item in engine.generate(ASKED, Parameters(max_tokens=9, seed=4))]
        await engine.close()
        return "".join(piece.text for piece in items[:-1]), items[-1]

    return asyncio.run(ask())


def greedy(folder, prompt, count) -> list[int]:
    """What transformers would go on with."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    told = model.generate(torch.tensor([prompt]), max_new_tokens=count, do_sample=False)
    return told[0, len(prompt) :].tolist()


def test_an_engine_answers_with_transformers_tokens(folder, base, make_settings) -> None:
    engine = load_engine(make_settings(device="cpu", context_tokens_max=256), base)
    parts = chat_parts(base)
    prompt = parts.tokenizer.encode_chat(ASKED, default_system="")
    ids = greedy(folder, prompt, 9)
    text, ended = answer(engine)

    assert engine.info.digest == base.manifest.digest
    assert engine.info.context_tokens == 128  # the manifest's, below the file's 256
    assert (
        b"".join(map(parts.tokenizer.raw, ids[: ended.usage.completion_tokens]))
        .decode(errors="replace")
        .startswith(text)
    )
    assert text
    assert ended.usage.prompt_tokens == len(prompt)


def moved(folder, tmp_path, **files):
    """A copy of a folder with some files changed, or gone (None)."""
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    for name, content in files.items():
        path = tmp_path / name.replace("__", ".")
        path.unlink() if content is None else path.write_bytes(content)
    return tmp_path


LIES = {
    "another architecture": {"architecture": "llama"},
    "more context": {"context_tokens": 257},
    "another template": {"template_sha256": "0" * 64},
    "another format": {"format": "gguf"},
    "no model of ours": {"format": "onnx"},
    "an embedding": {"kind": "embedding"},
    "an adapter": {"kind": "adapter"},
}


NAMES = {
    "another architecture": "architecture",
    "more context": "context",
    "another template": "template",
}
"""What a record says of it, where it has a name of its own."""


@pytest.mark.parametrize("lie", LIES)
def test_a_manifest_that_lies_is_refused(folder, lie) -> None:
    with pytest.raises(ModelFileError) as caught:
        chat_parts(opened(folder, **LIES[lie]))
    assert caught.value.name == NAMES.get(lie, caught.value.name)


@pytest.mark.parametrize("name", ["config__json", "tokenizer__json", "tokenizer_config__json"])
@pytest.mark.parametrize("content", [None, b"{", b"[]", b"{}", b"\x80\x04."])
def test_a_file_that_is_missing_or_damaged_is_refused(folder, tmp_path, name, content) -> None:
    with pytest.raises(ModelFileError):
        chat_parts(opened(moved(folder, tmp_path, **{name: content})))


def test_a_gguf_under_a_safetensors_name_is_refused(folder, tmp_path, model_path) -> None:
    gguf = model_path.read_bytes()[:100_000]

    with pytest.raises(ModelFileError):
        chat_parts(opened(moved(folder, tmp_path, model__safetensors=gguf)))


def test_a_template_in_a_file_of_its_own_is_the_template(folder, tmp_path) -> None:
    write_tokenizer(moved(folder, tmp_path), template="{{ 'another' }}")
    (tmp_path / "chat_template.jinja").write_text(TEMPLATE)

    assert chat_parts(opened(tmp_path)).template.decode() == TEMPLATE


# --- adapters -------------------------------------------------------------------------------

CONFIG = {
    "peft_type": "LORA", "r": 4, "lora_alpha": 12, "bias": "none", "target_modules": [
        "q_proj", "v_proj", "o_proj", "up_proj", "down_proj"
    ],
}  # fmt: skip


def adapter_files(folder, state, config=CONFIG):
    """PEFT's layout, random; and the base's tensors merged by hand."""
    torch.manual_seed(5)
    parts, merged = {}, dict(state)
    for name, weight in state.items():
        module = name.split(".")[-2]
        if module in config["target_modules"] and "layers" in name:
            down = torch.randn(config["r"], weight.shape[1]) * 0.2
            up = torch.randn(weight.shape[0], config["r"]) * 0.2
            at = f"base_model.model.{name.removesuffix('.weight')}"
            parts[f"{at}.lora_A.weight"], parts[f"{at}.lora_B.weight"] = down, up
            scale = config["lora_alpha"] / config["r"]
            merged[name] = (weight.float() + scale * up @ down).to(weight.dtype)
    folder.mkdir()
    save_file(parts, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return merged


def adapter(folder, under, /, **claims):
    told = {"kind": "adapter", "base": under.manifest.digest.hex(), "template_sha256": ""}
    return opened(folder, **{"name": "tone"} | told | claims)


def same(ours, theirs) -> bool:
    a, b = (Llama(weights, slots=1, context_tokens=32) for weights in (ours, theirs))
    tokens = list(range(40, 60))
    logits = [model.prefill(tokens, slot=0, start=0) for model in (a, b)]
    return torch.allclose(*logits, atol=1e-4)


@torch.inference_mode()
def test_an_adapter_is_the_model_merged_by_hand(folder, base, tmp_path) -> None:
    merged = adapter_files(tmp_path / "lora", load_file(folder / "model.safetensors"))
    write_tokenizer(tmp_path)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    lora = adapter(tmp_path / "lora", base)
    parts = chat_parts(lora, base)
    save_file(merged, tmp_path / "model.safetensors")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (tmp_path / "lora" / name).unlink()
    (tmp_path / "lora").rmdir()

    assert same(parts.weights, chat_parts(opened(tmp_path)).weights)
    assert not same(parts.weights, chat_parts(base).weights)


def test_what_is_served_names_base_and_adapter(folder, base, tmp_path, make_settings) -> None:
    adapter_files(tmp_path / "lora", load_file(folder / "model.safetensors"))
    lora = adapter(tmp_path / "lora", base)
    info = load_engine(make_settings(device="cpu"), lora, base=base).info
    told = {document.digest: document.content for document in info.documents}

    assert (info.name, info.digest) == ("tone", lora.manifest.digest)
    assert Manifest.parse(told[info.digest]).base == base.manifest.digest.hex()
    assert Manifest.parse(told[base.manifest.digest]) == base.manifest
    assert told[info.template_digest].decode() == TEMPLATE


@torch.inference_mode()
def test_beside_codes_an_adapter_is_computed_apart(tmp_path, file_weights) -> None:
    """On SmolLM2's 4-bit weights: the codes stay, and the products are those of the sum."""
    from inference.engines.dense import linear_of
    from inference.lora import adapted, lora_config
    from inference.safetensors_file import read_tensors

    arch = replace(file_weights.architecture, layers=2)
    short = replace(file_weights, architecture=arch, layers=file_weights.layers[:2])
    shapes = {
        "self_attn.q_proj": (arch.width, arch.width), "mlp.down_proj": (arch.width, arch.hidden),
    }  # fmt: skip
    names = [f"model.layers.{i}.{m}.weight" for i in range(arch.layers) for m in shapes]
    state = {name: torch.zeros(shapes[".".join(name.split(".")[3:5])]) for name in names}
    config = CONFIG | {"target_modules": ["q_proj", "down_proj"]}
    adapter_files(tmp_path / "lora", state, config)
    told = adapted(
        short,
        lora_config(config),
        read_tensors([tmp_path / "lora" / "adapter_model.safetensors"]),
    )
    for matrix in (told.layers[1].qkv, told.layers[1].down):
        x = torch.randn(3, matrix.down.shape[1]).bfloat16()
        want = x.float() @ matrix.dequantised().T
        assert isinstance(matrix, Adapted)
        assert (linear_of(matrix)(x).float() - want).abs().max() < 0.02 * want.abs().max()
        alone = linear_of(matrix)(x[1:2])
        assert torch.equal(alone, linear_of(matrix)(x)[1:2])
    assert told.layers[1].qkv.base is file_weights.layers[1].qkv
    assert isinstance(told.layers[1].gate_up, Codes4)


BAD_ADAPTERS = {
    "another base": ({"base": "0" * 64}, {}),
    "a base by name": ({"base": "toy"}, {}),
    "a template of its own": ({"template_sha256": "1" * 64}, {}),
    "more context": ({"context_tokens": 200}, {}),
    "no adapter": ({"kind": "chat"}, {}),
    "a huge rank": ({}, {"r": 1 << 20}),
    "no rank": ({}, {"r": 0}),
    "another rank": ({}, {"r": 5}),
    "a scale of text": ({}, {"lora_alpha": "12"}),
    "infinite": ({}, {"lora_alpha": 1e400}),
    "a scale beyond all numbers": ({}, {"lora_alpha": 10**400}),
    "a scale that makes them infinite": ({}, {"lora_alpha": 1e300}),
    "weights of DoRA": ({}, {"use_dora": True}),
    "biases": ({}, {"bias": "all"}),
    "whole modules": ({}, {"modules_to_save": ["lm_head"]}),
    "the embedding": ({}, {"target_modules": ["embed_tokens"]}),
    "a pattern": ({}, {"target_modules": ".*"}),
    "fewer modules than tensors": ({}, {"target_modules": ["q_proj"]}),
    "more modules than tensors": ({}, {"target_modules": ["q_proj", "k_proj"]}),
    "another method": ({}, {"peft_type": "IA3"}),
}


@pytest.mark.parametrize("fault", BAD_ADAPTERS)
def test_an_adapter_that_does_not_fit_is_refused(folder, base, tmp_path, fault) -> None:
    claims, config = BAD_ADAPTERS[fault]
    adapter_files(tmp_path / "lora", load_file(folder / "model.safetensors"))
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(CONFIG | config))

    with pytest.raises(ModelFileError):
        chat_parts(adapter(tmp_path / "lora", base, **claims), base)


def test_numbers_of_an_adapter_that_are_none_are_refused(folder, base, tmp_path) -> None:
    adapter_files(tmp_path / "lora", load_file(folder / "model.safetensors"))
    path = tmp_path / "lora" / "adapter_model.safetensors"
    state = load_file(path)
    next(iter(state.values()))[0, 0] = torch.nan
    save_file(state, path)

    with pytest.raises(ModelFileError, match="not a number"):
        chat_parts(adapter(tmp_path / "lora", base), base)


def test_base_and_adapter_come_out_of_a_store_sealed_and_signed(
    folder, tmp_path, make_settings
) -> None:
    world = World(tmp_path / "world")
    world.plain.mkdir(parents=True)
    tone = tmp_path / "lora"
    adapter_files(tone, load_file(folder / "model.safetensors"))
    changer = world.changer()
    under = changer.add(folder, replace(CLAIM, context_tokens=96), seal=True)
    claim = replace(CLAIM, name="acme-tone", kind="adapter", base=NAME, context_tokens=None)
    over = changer.add(tone, claim, seal=True)
    for name in (NAME, "acme-tone"):
        changer.sign(name)
    with opened_with_base(world.store(), "acme-tone") as (lora, base):
        engine = load_engine(make_settings(device="cpu"), lora, base=base)
    text, ended = answer(engine)

    assert text
    assert isinstance(ended, Ended)
    assert (engine.info.name, engine.info.digest) == ("acme-tone", over.digest)
    assert under.digest in {document.digest for document in engine.info.documents}
    assert engine.info.context_tokens == 96
    world.changer().remove(NAME, "1")
    with pytest.raises(ModelFileError), opened_with_base(world.store(), "acme-tone"):
        pass


def test_the_toy_is_what_it_seems(folder) -> None:
    assert architecture_of(read_json(folder / "config.json")).qk_norm
