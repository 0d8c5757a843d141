"""The forward pass against a textbook one: fp32, one request, no cache, rope by halves."""

import math

import pytest
import torch
from gguf import GGUFReader, dequantize
from llvmlite.binding import get_host_cpu_features
from structlog.testing import capture_logs

from inference.engines.linear import Head
from inference.engines.llama import Llama
from inference.gguf_file import read_gguf
from inference.registry import ModelFileError
from inference.scheduler import Move
from inference.weights import Architecture, Codes4, Codes8, Layer, Weights

ARCH = Architecture(
    layers=2,
    width=64,
    hidden=96,
    heads=4,
    kv_heads=2,
    head=16,
    vocabulary=128,
    context_tokens=64,
    rope_base=10_000.0,
    norm_epsilon=1e-5,
)


def codes4(rows: int, columns: int) -> Codes4:
    groups = (rows, columns // 32)
    codes = torch.randint(0, 16, (rows, columns), dtype=torch.int8)
    return Codes4(codes, torch.rand(groups) * 0.02, torch.rand(groups) * -0.16)


@pytest.fixture(scope="module")
def weights() -> Weights:
    torch.manual_seed(0)
    a = ARCH
    return Weights(
        architecture=a,
        embedding=Codes8(
            torch.randint(-128, 128, (a.vocabulary, a.width), dtype=torch.int8),
            torch.rand(a.vocabulary, a.width // 32) * 0.01,
        ),
        layers=tuple(
            Layer(
                attention_norm=torch.rand(a.width) + 0.5,
                qkv=codes4((a.heads + 2 * a.kv_heads) * a.head, a.width),
                attention_out=codes4(a.width, a.width),
                feed_norm=torch.rand(a.width) + 0.5,
                gate_up=codes4(2 * a.hidden, a.width),
                down=codes4(a.width, a.hidden),
            )
            for _ in range(a.layers)
        ),
        final_norm=torch.rand(a.width) + 0.5,
    )


def norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + ARCH.norm_epsilon).sqrt() * weight


def rope(x: torch.Tensor) -> torch.Tensor:
    """As in the paper: pairs (2i, 2i+1) of a head turn by position * base^(-2i/d)."""
    out = x.clone()
    for position in range(x.shape[0]):
        for i in range(ARCH.head // 2):
            angle = position * ARCH.rope_base ** (-2 * i / ARCH.head)
            even, odd = x[position, :, 2 * i], x[position, :, 2 * i + 1]
            out[position, :, 2 * i] = even * math.cos(angle) - odd * math.sin(angle)
            out[position, :, 2 * i + 1] = even * math.sin(angle) + odd * math.cos(angle)
    return out


def textbook(weights: Weights, tokens: list[int]) -> torch.Tensor:
    a = ARCH
    table = weights.embedding.dequantised()
    x = table[tokens]
    for layer in weights.layers:
        rows = norm(x, layer.attention_norm) @ layer.qkv.dequantised().T
        q, k, v = rows.view(len(tokens), -1, a.head).split([a.heads, a.kv_heads, a.kv_heads], 1)
        q, k = rope(q), rope(k)
        seen = torch.empty(len(tokens), a.heads, a.head)
        for head in range(a.heads):
            kv = head // (a.heads // a.kv_heads)
            scores = q[:, head] @ k[:, kv].T / math.sqrt(a.head)
            scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -math.inf)
            seen[:, head] = scores.softmax(-1) @ v[:, kv]
        x = x + seen.flatten(1) @ layer.attention_out.dequantised().T
        gate, up = (norm(x, layer.feed_norm) @ layer.gate_up.dequantised().T).chunk(2, -1)
        x = x + (torch.sigmoid(gate) * gate * up) @ layer.down.dequantised().T
    return norm(x, weights.final_norm) @ table.T


def close(ours: torch.Tensor, reference: torch.Tensor) -> bool:
    """Within what bf16 products and an int8 head may lose."""
    return bool((ours - reference).abs().max() < 0.05 * reference.std())


@torch.inference_mode()
def test_prefill_in_chunks_and_decode_agree_with_the_textbook(weights) -> None:
    tokens = torch.randint(0, ARCH.vocabulary, (40,)).tolist()
    reference = textbook(weights, tokens)
    model = Llama(weights, slots=2, context_tokens=64)

    assert close(model.prefill(tokens[:20], slot=0, start=0), reference[19])
    assert close(model.prefill(tokens[20:33], slot=0, start=20), reference[32])
    assert close(model.prefill(tokens[33:34], slot=0, start=33), reference[33])
    for at in range(34, 40):
        assert close(model.decode([tokens[at]], [at])[0], reference[at])


@torch.inference_mode()
def test_a_request_gets_the_same_bits_alone_and_in_company(weights) -> None:
    prompts = [torch.randint(0, ARCH.vocabulary, (n,)).tolist() for n in (5, 33, 17, 60)]
    alone = Llama(weights, slots=4, context_tokens=64)
    together = Llama(weights, slots=4, context_tokens=64)
    for slot, prompt in enumerate(prompts):
        together.prefill(prompt, slot=slot, start=0)
    rows = together.decode([1, 2, 3, 4], [len(prompt) for prompt in prompts])

    for slot, prompt in enumerate(prompts):
        alone.prefill(prompt, slot=0, start=0)
        assert torch.equal(alone.decode([slot + 1], [len(prompt)])[0], rows[slot])


@torch.inference_mode()
def test_a_moved_request_goes_on_as_if_nothing_had_happened(weights) -> None:
    prompt = torch.randint(0, ARCH.vocabulary, (12,)).tolist()
    model = Llama(weights, slots=3, context_tokens=64)
    model.prefill(prompt, slot=0, start=0)
    stayed = model.decode([7], [12])[0]
    model.prefill(prompt[::-1], slot=0, start=0)
    model.prefill(prompt, slot=2, start=0)
    model.move(Move(2, 0))

    assert torch.equal(model.decode([7], [12])[0], stayed)


def test_the_file_is_read_as_its_own_library_reads_it(model_path, model_file, file_weights) -> None:
    """Metadata, names and shapes are equal; so is every weight, since no code is quantised anew."""
    theirs = GGUFReader(model_path)
    ours = {name: value for name, value in theirs.fields.items() if not name.startswith("GGUF.")}
    assert {name: field.contents() for name, field in ours.items()} == model_file.fields
    tensors = {tensor.name: tensor for tensor in theirs.tensors}
    assert {name: tuple(reversed(tensor.shape)) for name, tensor in tensors.items()} == {
        name: tensor.shape for name, tensor in model_file.tensors.items()
    }

    def truth(*names: str) -> torch.Tensor:
        found = [tensors[f"{name}.weight"] for name in names]
        return torch.cat([torch.tensor(dequantize(t.data, t.tensor_type)) for t in found])

    for index in (0, 29):
        layer, at = file_weights.layers[index], f"blk.{index}."
        for codes, names in (
            (layer.qkv, ("attn_q", "attn_k", "attn_v")),
            (layer.attention_out, ("attn_output",)),
            (layer.gate_up, ("ffn_gate", "ffn_up")),
            (layer.down, ("ffn_down",)),
        ):
            assert torch.equal(codes.dequantised(), truth(*(at + name for name in names)))
        assert torch.equal(layer.attention_norm, truth(f"{at}attn_norm"))
    embedding = truth("token_embd")
    assert torch.equal(file_weights.embedding.dequantised(), embedding)
    assert torch.equal(file_weights.embedding.rows(torch.tensor([3, 9])), embedding[[3, 9]])


@pytest.mark.parametrize("damage", ["magic", "short", "empty"])
def test_what_is_no_gguf_is_refused(tmp_path, model_path, damage) -> None:
    start = model_path.read_bytes()[:5_000]
    raw = {"magic": b"GGML" + start[4:], "short": start, "empty": b"GGUF"}[damage]
    file = tmp_path / "damaged.gguf"
    file.write_bytes(raw)

    with pytest.raises(ModelFileError, match="no whole GGUF"):
        read_gguf(file)


@torch.inference_mode()
@pytest.mark.parametrize("saturates", [False, True])
def test_the_head_does_not_trust_a_cpu_that_saturates(monkeypatch, saturates) -> None:
    torch.manual_seed(1)
    weight, x = torch.randn(96, 64), torch.randn(3, 64)
    multiply = Head._multiply
    if saturates:
        monkeypatch.setattr(Head, "_multiply", lambda head, codes: multiply(head, codes) * 0.7)
    with capture_logs() as logs:
        head = Head(weight)

    told = [entry["event"] for entry in logs]
    assert told == ["inference.int8_saturates"] * (saturates or not _adds_in_32_bits())
    assert close(head(x), x @ weight.T)


def _adds_in_32_bits() -> bool:
    features = get_host_cpu_features()
    return any(features.get(name, False) for name in ("avx512vnni", "avxvnni"))
