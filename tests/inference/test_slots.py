"""Keys and values: rows of one slot in a pass, copies kept and put back, memory given back."""

from dataclasses import replace

import pytest
import torch

from inference.architecture import Architecture
from inference.engines.llama import Llama
from inference.engines.slots import KvSlots, bytes_per_token
from inference.weights import Codes4, Codes8, Layer, Weights

ARCH = Architecture(
    layers=2, width=64, hidden=96, heads=4, kv_heads=2, head=16,
    vocabulary=128, context_tokens=128, rope_base=10_000.0, norm_epsilon=1e-5,
)  # fmt: skip


def codes4(rows: int, columns: int) -> Codes4:
    groups = (rows, columns // 32)
    codes = torch.randint(0, 16, (rows, columns), dtype=torch.int8)
    return Codes4(codes, torch.rand(groups) * 0.02, torch.rand(groups) * -0.16)


@pytest.fixture(scope="module")
def weights() -> Weights:
    torch.manual_seed(3)
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


def text(count: int) -> list[int]:
    return torch.randint(0, ARCH.vocabulary, (count,)).tolist()


@torch.inference_mode()
def test_rows_of_one_slot_get_the_bits_of_steps_of_their_own(weights) -> None:
    """What speculation rests on: a pass over guessed tokens is that many steps at once."""
    prompts, told = [text(30), text(9)], text(5)
    steps, rows = (Llama(weights, slots=2, context_tokens=64) for _ in range(2))
    for model in (steps, rows):
        for slot, prompt in enumerate(prompts):
            model.prefill(prompt, slot=slot, start=0)
    one_by_one = [steps.decode([token], [30 + n])[0] for n, token in enumerate(told)]
    together = rows.decode([*told, 7], [30, 31, 32, 33, 34, 9], [0, 0, 0, 0, 0, 1])

    assert torch.equal(together[:5], torch.stack(one_by_one))
    assert rows.slots.filled == [35, 10]
    # A guess that was wrong leaves nothing behind: the next tokens overwrite it.
    assert torch.equal(rows.decode([8], [32])[0], steps.decode([8], [32])[0])


@torch.inference_mode()
def test_a_kept_copy_put_into_another_slot_goes_on_with_the_same_bits(weights) -> None:
    prompt, rest = text(48), text(20)
    model = Llama(weights, slots=3, context_tokens=96)
    model.prefill(prompt, slot=0, start=0)
    plain = model.prefill(rest, slot=0, start=48)
    parts = [model.slots.kept(0, 0, 32), model.slots.kept(0, 32, 48)]
    model.slots.restore(2, 0, parts[0])
    model.slots.restore(2, 32, parts[1])

    assert model.slots.filled[2] == 48
    assert parts[0].numel() * 4 == 32 * model.slots.bytes_per_token
    assert torch.equal(model.prefill(rest, slot=2, start=48), plain)


@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
def test_memory_of_a_slot_is_given_back_and_its_neighbours_stay(kind) -> None:
    arch = replace(ARCH, kv_heads=4, head=64)  # a layer of a slot has 32 pages of 4 KiB, or 16
    slots = KvSlots(arch, slots=3, context_tokens=128, kind=kind)
    slots.keys.fill_(1.0)
    slots.values.fill_(1.0)
    slots.filled = [128] * 3
    slots.forget(1)

    for cache in (slots.keys, slots.values):
        given = cache[:, 1].flatten(1)
        # A page given back reads as zeros; the two at the ends may be shared with neighbours.
        assert ((given == 0).sum(dim=1) >= given.shape[1] - 2 * 4_096 // kind.itemsize).all()
        assert (cache[:, 0] == 1).all()
        assert (cache[:, 2] == 1).all()
    assert slots.filled == [128, 0, 128]
    assert slots.bytes_per_token == bytes_per_token(arch, kind.itemsize)
    assert slots.bytes_per_token == 2 * 2 * 4 * 64 * kind.itemsize
