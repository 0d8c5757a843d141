"""The compiled step against a forward pass in fp32, and against itself in other company."""

import gc
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from llvmlite.binding import get_host_cpu_features

from inference.engines.cpu import cpu_model, kept_bytes
from inference.engines.jit.compiled import cpu_dots
from inference.engines.jit.dots import AVX2, VNNI
from inference.engines.jit.model import KEPT, CompiledLlama, compiles
from inference.engines.jit.packing import Arena
from inference.engines.llama import Llama
from inference.engines.load import _on_cpu
from inference.engines.slots import bytes_per_token
from inference.scheduler import Move
from inference.weights import Architecture, Codes4, Codes8, Layer, Table, Weights, dense

pytestmark = pytest.mark.skipif(cpu_dots() is None, reason="this CPU has no AVX2")

ARCH = Architecture(
    layers=2,
    width=64,
    hidden=96,
    heads=6,
    kv_heads=2,
    head=32,
    vocabulary=144,
    context_tokens=128,
    rope_base=10_000.0,
    norm_epsilon=1e-5,
)
ROOM, SLOTS = 120, 6


def codes4(rows: int, columns: int) -> Codes4:
    groups = (rows, columns // 32)
    codes = torch.randint(0, 16, (rows, columns), dtype=torch.int8)
    d, m = torch.rand(groups).half() * 0.02, torch.rand(groups).half() * -0.16
    return Codes4(codes, d.float(), m.float())


@pytest.fixture(scope="module")
def weights() -> Weights:
    torch.manual_seed(0)
    a = ARCH
    return Weights(
        architecture=a,
        embedding=Codes8(
            torch.randint(-128, 128, (a.vocabulary, a.width), dtype=torch.int8),
            (torch.rand(a.vocabulary, a.width // 32) * 0.01).half().float(),
        ),
        layers=tuple(
            Layer(
                attention_norm=torch.rand(a.width) + 0.5,
                qkv=codes4((a.heads + 2 * a.kv_heads) * a.head, a.width),
                attention_out=codes4(a.width, a.heads * a.head),
                feed_norm=torch.rand(a.width) + 0.5,
                gate_up=codes4(2 * a.hidden, a.width),
                down=codes4(a.width, a.hidden),
            )
            for _ in range(a.layers)
        ),
        final_norm=torch.rand(a.width) + 0.5,
    )


@pytest.fixture(scope="module")
def model(weights) -> CompiledLlama:
    return CompiledLlama(weights, slots=SLOTS, context_tokens=ROOM, threads=2)


@pytest.fixture(scope="module")
def teams(weights, model) -> list[CompiledLlama]:
    """The same on one thread, two and three."""
    one, three = (
        CompiledLlama(weights, slots=SLOTS, context_tokens=ROOM, threads=threads)
        for threads in (1, 3)
    )
    return [one, model, three]


@pytest.fixture(scope="module")
def plain(weights) -> Llama:
    """The same weights in fp32, multiplied by PyTorch."""
    layers = tuple(
        replace(
            layer,
            qkv=dense(layer.qkv),
            attention_out=dense(layer.attention_out),
            gate_up=dense(layer.gate_up),
            down=dense(layer.down),
        )
        for layer in weights.layers
    )
    table = Table(weights.embedding.dequantised())
    return Llama(replace(weights, layers=layers, embedding=table), slots=1, context_tokens=ROOM)


@torch.inference_mode()
def test_it_computes_what_fp32_computes_but_for_quantised_rows(model, plain) -> None:
    tokens = torch.randint(0, ARCH.vocabulary, (ROOM,)).tolist()
    # More rows than one step takes, then a row at a time.
    ours = [model.prefill(tokens[:100], slot=3, start=0)]
    ours += [model.decode([tokens[at]], [at], [3])[0] for at in range(100, ROOM)]
    theirs = [plain.prefill(tokens[:100], slot=0, start=0)]
    theirs += [plain.decode([tokens[at]], [at])[0] for at in range(100, ROOM)]
    error, size = (torch.stack(ours) - torch.stack(theirs)), torch.stack(theirs)

    assert (error.square().mean() / size.square().mean()).sqrt() < 0.02
    assert (torch.stack(ours).argmax(-1) == torch.stack(theirs).argmax(-1)).float().mean() > 0.8


@torch.inference_mode()
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_a_row_has_the_same_bits_however_it_is_run(teams, model, data) -> None:
    """In one stretch or several, alone or beside others, as a prompt's or an answer's, by any."""
    tokens = data.draw(
        st.lists(st.integers(0, ARCH.vocabulary - 1), min_size=2, max_size=90), label="tokens"
    )
    whole = model.prefill(tokens, slot=0, start=0)
    other = data.draw(st.sampled_from(teams), label="threads")
    slot = data.draw(st.integers(0, SLOTS - 1), label="slot")
    others = [each for each in range(SLOTS) if each != slot]
    done = 0
    while done < len(tokens):
        stop = data.draw(st.integers(done + 1, len(tokens)), label="stop")
        if data.draw(st.booleans(), label="as a prompt"):
            last = other.prefill(tokens[done:stop], slot=slot, start=done)
        else:
            beside = data.draw(st.lists(st.sampled_from(others), unique=True), label="beside")
            count = stop - done
            of = [*sorted(beside), *[slot] * count]
            rows = other.decode(
                [7] * len(beside) + tokens[done:stop], [*[5] * len(beside), *range(done, stop)], of
            )
            last = rows[-1]
        done = stop

    assert torch.equal(last, whole)


@torch.inference_mode()
def test_a_moved_and_a_restored_request_go_on_as_if_nothing_had_happened(model) -> None:
    tokens = torch.randint(0, ARCH.vocabulary, (30,)).tolist()
    model.prefill(tokens, slot=2, start=0)
    kept = model.slots.kept(2, 0, 30)
    stayed = model.decode([7], [30], [2])
    model.move(Move(2, 1))
    model.slots.restore(4, 0, kept)

    assert torch.equal(model.decode([7, 7], [30, 30], [1, 4]), stayed.expand(2, -1))


@torch.inference_mode()
@pytest.mark.parametrize(
    ("tokens", "positions", "slots"),
    [
        ([ARCH.vocabulary], [0], [0]),
        ([-1], [0], [0]),
        ([1], [ROOM], [0]),
        ([1], [-1], [0]),
        ([1], [0], [SLOTS]),
        ([1, 1], [0, 0], [0, -1]),
    ],
)
def test_what_lies_out_of_range_never_reaches_machine_code(model, tokens, positions, slots) -> None:
    with pytest.raises(IndexError):
        model.decode(tokens, positions, slots)
    assert torch.isfinite(model.decode([1], [0], [0])).all()


@torch.inference_mode()
@pytest.mark.parametrize("dots", [VNNI, AVX2], ids=lambda dots: dots.name)
def test_any_instructions_give_the_same_bits(weights, model, monkeypatch, dots) -> None:
    features = get_host_cpu_features()
    if not all(features.get(name, False) for name in dots.needed):
        pytest.skip(f"this CPU has no {dots.name}")
    monkeypatch.setattr("inference.engines.jit.model.cpu_dots", lambda: dots)
    other = CompiledLlama(weights, slots=SLOTS, context_tokens=ROOM, threads=2)
    tokens = torch.randint(0, ARCH.vocabulary, (60,)).tolist()

    for each in (model, other):
        for slot in range(SLOTS):
            each.prefill(tokens, slot=slot, start=0)
    for rows in range(1, SLOTS + 1):
        asked = tokens[:rows], [60] * rows
        assert torch.equal(other.decode(*asked), model.decode(*asked))


@torch.inference_mode()
def test_the_largest_values_there_are_do_not_overflow(weights) -> None:
    """Every product of bytes at its largest: some CPUs would saturate sums of 16 bits."""
    full = Codes4(
        torch.full((ARCH.width, ARCH.hidden), 15, dtype=torch.int8),
        torch.ones(ARCH.width, ARCH.hidden // 32),
        torch.zeros(ARCH.width, ARCH.hidden // 32),
    )
    gates = Codes4(
        torch.full((2 * ARCH.hidden, ARCH.width), 15, dtype=torch.int8),
        torch.ones(2 * ARCH.hidden, ARCH.width // 32),
        torch.zeros(2 * ARCH.hidden, ARCH.width // 32),
    )
    layer = replace(weights.layers[0], gate_up=gates, down=full, feed_norm=torch.ones(ARCH.width))
    table = replace(weights.embedding, codes=weights.embedding.codes.clone())
    table.codes[0], table.codes[1] = -128, 127
    loud = replace(
        weights, embedding=table, layers=(layer, layer), final_norm=torch.ones(ARCH.width)
    )
    # The feed-forward part adds the same large number to all of the residual: its norm is all ones.
    logits = CompiledLlama(loud, slots=1, context_tokens=ROOM, threads=1).prefill(
        [5], slot=0, start=0
    )
    sums = table.dequantised().sum(dim=1)

    assert torch.allclose(logits.abs(), sums.abs(), rtol=0.02, atol=0.02)


@torch.inference_mode()
def test_keys_and_values_too_large_for_fp16_are_kept_as_its_largest(weights) -> None:
    layer = weights.layers[0]
    loud = replace(layer, qkv=replace(layer.qkv, d=layer.qkv.d * 3e5, m=layer.qkv.m * 3e5))
    model = CompiledLlama(
        replace(weights, layers=(loud, layer)), slots=1, context_tokens=ROOM, threads=1
    )
    logits = model.prefill([5, 6, 7], slot=0, start=0)

    assert model.slots.values[0, 0, :, :3].abs().max() == torch.finfo(KEPT).max
    assert torch.isfinite(logits).all()


def test_memory_for_keys_and_values_is_counted_as_they_are_kept(weights, model) -> None:
    assert kept_bytes(weights) == 2
    assert model.slots.bytes_per_token == bytes_per_token(ARCH, kept_bytes(weights))
    assert kept_bytes(replace(weights, head=weights.embedding)) == 4


@torch.inference_mode()
def test_a_budget_for_keys_and_values_is_in_tokens_as_they_are_kept(weights, make_settings) -> None:
    told = make_settings(slots=32, kv_memory_mib=1, threads=1)
    runner = _on_cpu(weights, told, 1_024)

    assert runner.tokens_max == (1 << 20) // bytes_per_token(ARCH, KEPT.itemsize)


@torch.inference_mode()
@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_what_is_not_a_number_or_infinite_stays_so(weights, number) -> None:
    broken = replace(weights, final_norm=weights.final_norm.clone())
    broken.final_norm[3] = number
    first, second = weights.layers
    norms = first.attention_norm.clone()
    norms[3] = number
    inside = replace(weights, layers=(replace(first, attention_norm=norms), second))
    scales = first.qkv.d.clone()
    scales[-1] = torch.nan  # of the last value's output: it is kept as fp16
    value = replace(weights, layers=(replace(first, qkv=replace(first.qkv, d=scales)), second))

    for each in (broken, inside, value):
        logits = CompiledLlama(each, slots=1, context_tokens=ROOM, threads=1).prefill(
            [5], slot=0, start=0
        )
        assert not torch.isfinite(logits).any()


def test_other_weights_are_left_to_pytorch(weights) -> None:
    layer = weights.layers[0]

    def with_layer(**changes: object) -> Weights:
        return replace(weights, layers=(replace(layer, **changes), weights.layers[1]))

    assert compiles(weights)
    assert not compiles(with_layer(qkv=dense(layer.qkv)))
    assert not compiles(with_layer(qkv_bias=torch.zeros(4)))
    assert not compiles(with_layer(q_norm=torch.ones(ARCH.head)))
    assert not compiles(replace(weights, head=torch.zeros(ARCH.vocabulary, ARCH.width)))
    assert not compiles(replace(weights, embedding=Table(torch.zeros(2, 2))))
    assert not compiles(replace(weights, architecture=replace(ARCH, head=16)))


@torch.inference_mode()
def test_a_model_that_is_gone_leaves_no_thread(weights) -> None:
    before = set(threading.enumerate())
    model = CompiledLlama(weights, slots=1, context_tokens=ROOM, threads=3)
    model.prefill([1, 2], slot=0, start=0)
    helpers = set(threading.enumerate()) - before
    del model
    gc.collect()
    for helper in helpers:
        helper.join(timeout=30)

    assert len(helpers) == 2
    assert not any(helper.is_alive() for helper in helpers)


def in_a_child(action) -> int:
    """Fork, act, end the child; return how it ended, -SIGALRM if it hung."""
    child = os.fork()
    if not child:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)
        try:
            action()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@torch.inference_mode()
def test_a_forked_child_neither_wakes_nor_waits_for_its_parents_threads(weights) -> None:
    held = [CompiledLlama(weights, slots=1, context_tokens=ROOM, threads=3)]
    stretches = [list(range(1, n)) for n in (40, 3, 70)]
    expected = [held[0].prefill(each, slot=0, start=0) for each in stretches]

    def run() -> None:
        with pytest.raises(RuntimeError):
            held[0].prefill([1], slot=0, start=0)

    def let_go() -> None:
        held.clear()
        gc.collect()

    for action in (run, let_go):
        assert in_a_child(action) == 0
        for each, logits in zip(stretches, expected, strict=True):
            assert torch.equal(held[0].prefill(each, slot=0, start=0), logits)


def test_a_team_that_cannot_be_raised_leaves_no_thread(weights, monkeypatch) -> None:
    before, start, started = set(threading.enumerate()), threading.Thread.start, []

    def one_starts(thread) -> None:
        if started:
            msg = "can't start new thread"
            raise RuntimeError(msg)
        started.append(thread)
        start(thread)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", one_starts)
        with pytest.raises(RuntimeError, match="new thread"):
            CompiledLlama(weights, slots=1, context_tokens=ROOM, threads=3)
    gc.collect()
    started[0].join(timeout=30)

    assert set(threading.enumerate()) <= before


def test_packed_weights_lie_where_huge_pages_can_be_had() -> None:
    """In private memory: shared memory has none unless the kernel is told so (`shmem_enabled`)."""
    arena = Arena(1 << 16)
    address = arena.keep(torch.ones(16, dtype=torch.uint8).numpy())
    for line in Path("/proc/self/maps").read_text().splitlines():
        where, rights, *_ = line.split()
        begin, end = (int(edge, 16) for edge in where.split("-"))
        if begin <= address < end:
            break

    assert rights == "rw-p"


@torch.inference_mode()
def test_a_cpu_without_the_instructions_has_the_forward_pass_in_pytorch(
    weights, model, monkeypatch
) -> None:
    monkeypatch.setattr("inference.engines.jit.model.cpu_dots", lambda: None)
    other = cpu_model(weights, slots=1, context_tokens=ROOM, threads=1)
    tokens = list(range(20))
    ours, theirs = (each.prefill(tokens, slot=0, start=0) for each in (other, model))

    assert isinstance(other, Llama)
    assert torch.nn.functional.cosine_similarity(ours, theirs, dim=0) > 0.99
