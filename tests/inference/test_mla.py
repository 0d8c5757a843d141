"""DeepSeek-V3's shape at toy size: transformers' logits, through the same engine as any model."""

import asyncio
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from inference.engines.load import load_engine
from inference.engines.mla.experts import routed
from inference.engines.mla.model import Mla, latent_bytes_per_token
from inference.engines.mla.shape import mla_shape
from inference.engines.mla.weights import Experts, load_mla
from inference.model_files import chat_parts
from inference.registry import ModelFileError
from inference.safetensors_file import read_json, read_tensors
from inference.scheduler import Move
from meshkit.contract import Ended, Message, Parameters, Role
from tests.inference.toys import opened, toy, write_model

SIZES = {
    "num_key_value_heads": 4, "num_hidden_layers": 3, "first_k_dense_replace": 1,
    "kv_lora_rank": 16, "q_lora_rank": 24, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8,
    "v_head_dim": 12, "n_group": 4, "topk_group": 2, "n_routed_experts": 8, "n_shared_experts": 2,
    "num_experts_per_tok": 3, "moe_intermediate_size": 32, "num_nextn_predict_layers": 0,
}  # fmt: skip
YARN = {
    "rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "beta_fast": 32, "beta_slow": 1,
    "original_max_position_embeddings": 64, "mscale": 1.0, "mscale_all_dim": 0.7,
}  # fmt: skip
KINDS = {
    "plain rope": {},
    "yarn": {"rope_parameters": YARN},
    "yarn without scales": {
        "rope_parameters": {k: v for k, v in YARN.items() if not k.startswith("mscale")}
    },
    "queries not compressed": {"q_lora_rank": None, "norm_topk_prob": False},
    "no dense layer": {"first_k_dense_replace": 0, "rms_norm_eps": 1e-3},
}


def deepseek(**changes):
    model = toy("DeepseekV3", **SIZES | changes)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.copy_(torch.randn_like(buffer) * 0.2)
        for name, parameter in model.named_parameters():
            if name.endswith("mlp.gate.weight"):
                parameter.copy_(torch.randn_like(parameter) * 0.3)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("mla"), deepseek(rope_parameters=YARN))


def loaded(folder):
    shape = mla_shape(read_json(folder / "config.json"))
    return load_mla(shape, read_tensors([folder / "model.safetensors"]))


@torch.inference_mode()
@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_transformers(tmp_path, kind) -> None:
    reference = deepseek(**KINDS[kind])
    model = Mla(loaded(write_model(tmp_path, reference)), slots=2, context_tokens=128)
    tokens = torch.randint(0, 320, (110,)).tolist()
    want = reference(torch.tensor([tokens])).logits[0]

    assert torch.allclose(model.prefill(tokens[:40], slot=0, start=0), want[39], atol=2e-3)
    assert torch.allclose(model.prefill(tokens[40:100], slot=0, start=40), want[99], atol=2e-3)
    for at in range(100, 110):
        assert torch.allclose(model.decode([tokens[at]], [at])[0], want[at], atol=2e-3)
    assert want.std() > 0.5


@torch.inference_mode()
def test_a_request_gets_the_same_bits_alone_and_in_company(folder) -> None:
    weights = loaded(folder)
    prompts = [torch.randint(0, 320, (n,)).tolist() for n in (5, 33, 17)]
    together, alone = (Mla(weights, slots=3, context_tokens=64) for _ in range(2))
    for slot, prompt in enumerate(prompts):
        together.prefill(prompt, slot=slot, start=0)
    rows = together.decode([1, 2, 3], [len(prompt) for prompt in prompts])

    for slot, prompt in enumerate(prompts):
        alone.prefill(prompt, slot=0, start=0)
        assert torch.equal(alone.decode([slot + 1], [len(prompt)])[0], rows[slot])


@torch.inference_mode()
def test_a_moved_request_goes_on_as_if_nothing_had_happened(folder) -> None:
    model = Mla(loaded(folder), slots=3, context_tokens=64)
    prompt = list(range(40, 52))
    model.prefill(prompt, slot=0, start=0)
    stayed = model.decode([7], [12])[0]
    model.prefill(prompt[::-1], slot=0, start=0)
    model.prefill(prompt, slot=2, start=0)
    model.move(Move(2, 0))

    assert torch.equal(model.decode([7], [12])[0], stayed)


def test_latents_take_less_room_than_keys_and_values(folder) -> None:
    shape = loaded(folder).architecture
    expanded = shape.layers * shape.heads * (shape.plain + shape.turned + shape.value) * 4

    assert latent_bytes_per_token(shape) == 3 * (16 + 8) * 4 == expanded / 6


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1_000))
def test_experts_are_chosen_as_the_paper_says(folder_shape, seed) -> None:
    """By hand: two best of a group judge it, the best of open groups win, shares know no bias."""
    shape = folder_shape
    torch.manual_seed(seed)
    x, router, bias = torch.randn(3, 64), torch.randn(8, 64) * 0.2, torch.randn(8)
    chosen, shares = routed(shape, Experts(router, bias, (), None), x)
    for row, numbers, parts in zip(x, chosen.tolist(), shares.tolist(), strict=True):
        scores = torch.sigmoid(router.double() @ row.double()).tolist()
        judged = [score + extra for score, extra in zip(scores, bias.tolist(), strict=True)]
        groups = [sum(sorted(judged[2 * g : 2 * g + 2])[-2:]) for g in range(4)]
        best = sorted(range(4), key=groups.__getitem__)[-2:]
        opened_ones = [n for n in range(8) if n // 2 in best]
        wanted = sorted(opened_ones, key=judged.__getitem__)[-3:]
        total = sum(scores[n] for n in wanted)
        assert sorted(numbers) == sorted(wanted)
        for number, part in zip(numbers, parts, strict=True):
            assert part == pytest.approx(2.5 * scores[number] / total, rel=1e-4)


@pytest.fixture(scope="module")
def folder_shape(folder):
    return mla_shape(read_json(folder / "config.json"))


def test_it_is_served_by_the_same_engine(folder, make_settings) -> None:
    from transformers import AutoModelForCausalLM

    files = opened(folder)
    engine = load_engine(make_settings(device="cpu", context_tokens_max=96, slots=2), files)
    asked = [Message(Role.USER, "the end?")]
    tokenizer = chat_parts(files).tokenizer
    prompt = tokenizer.encode_chat(asked, default_system="")
    model = AutoModelForCausalLM.from_pretrained(folder)
    told = model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)
    want = told[0, len(prompt) :].tolist()

    async def both():
        engine.start()

        async def ask():
            stream = engine.generate(asked, Parameters(max_tokens=12))
            return [item async for item in stream]

        answers = await asyncio.gather(ask(), ask())
        await engine.close()
        return answers

    first, second = asyncio.run(both())
    texts = ["".join(piece.text for piece in items[:-1]) for items in (first, second)]
    ended = first[-1]

    assert isinstance(ended, Ended)
    assert texts[0] == texts[1]
    raw = b"".join(map(tokenizer.raw, want[: ended.usage.completion_tokens]))
    assert texts[0]
    assert raw.decode(errors="replace").startswith(texts[0])


def test_a_budget_for_latents_gives_as_many_slots_as_it_holds(folder, make_settings) -> None:
    """Latents are laid out: no slot gives memory back, so none is promised twice."""
    shape = mla_shape(read_json(folder / "config.json"))
    chosen = make_settings(device="cpu", context_tokens_max=256, slots=32, kv_memory_mib=1)
    files = opened(folder, context_tokens=256)
    engine = load_engine(chosen, files)

    async def twice():
        engine.start()
        asked = [Message(Role.USER, "the end?")]
        for _ in range(2):
            stream = engine.generate(asked, Parameters(max_tokens=3))
            told = [item async for item in stream]
        await engine.close()
        return told[-1]

    assert isinstance(asyncio.run(twice()), Ended)
    assert engine._slots == (1 << 20) // (256 * latent_bytes_per_token(shape)) == 14


BAD = {
    "another score": {"scoring_func": "softmax"},
    "groups that do not divide": {"n_group": 3},
    "groups of one": {"n_group": 8},
    "more groups than there are": {"topk_group": 5},
    "more experts than are open": {"num_experts_per_tok": 5},
    "no experts": {"n_routed_experts": 0},
    "halves": {"rope_interleave": False},
    "blocks of fp8": {"quantization_config": {"quant_method": "fp8"}},
    "another stretch": {"rope_parameters": YARN | {"rope_type": "longrope"}},
    "another rank": {"kv_lora_rank": 8},
    "fewer experts": {"n_routed_experts": 4, "n_group": 2, "num_experts_per_tok": 2},
    "more dense layers": {"first_k_dense_replace": 2},
}


@pytest.mark.parametrize("fault", BAD)
def test_a_configuration_that_lies_is_refused(folder, tmp_path, fault) -> None:
    told = read_json(folder / "config.json") | BAD[fault]
    (tmp_path / "config.json").write_text(json.dumps(told))
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())

    with pytest.raises(ModelFileError):
        loaded(tmp_path)


def test_an_expert_that_is_no_number_is_refused(folder, tmp_path) -> None:
    state = load_file(folder / "model.safetensors")
    state["model.layers.2.mlp.experts.5.up_proj.weight"][0, 0] = torch.inf
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())

    with pytest.raises(ModelFileError, match="not a number"):
        loaded(tmp_path)
