"""The GPU's forward pass, its kernels run by Triton's interpreter on a CPU.

Everything but graphs and chained launches is the code that a GPU runs; those ran on an H100 by
`python -m bench.gpu` (docs/inference.md).
"""

import os

os.environ["TRITON_INTERPRET"] = "1"  # before the kernels are read

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 -- everybody's name for it
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.architecture import Architecture, RopeScaling
from inference.engines.cuda import kernels
from inference.engines.cuda.device import random_weights, turns
from inference.engines.cuda.prefill import Chunk
from inference.engines.cuda.products import Products, to_fp8
from inference.engines.cuda.runner import CudaRunner
from inference.scheduler import Scheduler
from meshkit.contract import Parameters

SHAPE = {
    "layers": 1, "width": 64, "hidden": 96, "heads": 4, "kv_heads": 2, "head": 16,
    "vocabulary": 101, "context_tokens": 192, "rope_base": 1e4, "norm_epsilon": 1e-5,
}  # fmt: skip
LLAMA = Architecture(**SHAPE)
QWEN2 = Architecture(**SHAPE | {"qkv_bias": True, "tied": False})
QWEN3 = Architecture(**SHAPE | {"qk_norm": True, "heads": 6})
SLOTS = 5

# Philox and masked-off lanes wrap and overflow by design; numpy, which the interpreter uses, warns.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


class Asked:
    """As much of an `Answer` as a runner reads."""

    def __init__(self, prompt, **parameters) -> None:
        self.prompt = tuple(prompt)
        self.parameters = Parameters(**{"temperature": 0.0} | parameters)
        self.seed = self.parameters.seed or 0
        self.tokens: list[int] = []


def reference(weights, tokens) -> torch.Tensor:
    """Logits of every position, by the book: no cache, no kernels, float64."""
    arch = weights.architecture
    cos, sin = (table.double() for table in turns(arch, len(tokens), "cpu"))

    def norm(x, weight):
        return F.rms_norm(x, (x.shape[-1],), weight.double(), arch.norm_epsilon)

    def turned(x, weight):
        if weight is not None:
            x = norm(x, weight)
        first, second = x.chunk(2, -1)
        c, s = cos[:, None], sin[:, None]
        return torch.cat([first * c - second * s, second * c + first * s], -1)

    x = weights.embedding.double()[torch.tensor(tokens)]
    for layer in weights.layers:
        bias = None if layer.qkv_bias is None else layer.qkv_bias.double()
        qkv = F.linear(norm(x, layer.attention_norm), layer.qkv.double(), bias)
        q, k, v = qkv.view(len(tokens), -1, arch.head).split(
            [arch.heads, arch.kv_heads, arch.kv_heads], 1
        )
        q, k = turned(q, layer.q_norm), turned(k, layer.k_norm)
        seen = F.scaled_dot_product_attention(
            *(part.transpose(0, 1)[None] for part in (q, k, v)), is_causal=True, enable_gqa=True
        )[0]
        seen = seen.transpose(0, 1).reshape(len(tokens), -1)
        x = x + F.linear(seen, layer.attention_out.double())
        gate, up = F.linear(norm(x, layer.feed_norm), layer.gate_up.double()).chunk(2, -1)
        x = x + F.linear(F.silu(gate) * up, layer.down.double())
    return F.linear(norm(x, weights.final_norm), weights.head.double())


def continued(weights, prompt, count):
    """The likeliest tokens after a prompt, and how far ahead of the second each was."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(reference(weights, tokens)[-1].argmax()))
    return tokens[len(prompt) :]


def answered(runner, arrivals, *, chunk=48, leaving=()):
    """Drive a runner as the engine's thread does; return each request's tokens."""
    scheduler = Scheduler(slots=SLOTS, waiting_max=99, chunk_tokens=chunk, prompts=runner.prompts)
    open_jobs, unread, waiting = {}, [], list(arrivals)
    for now in range(1_000):
        while waiting and waiting[0][0] <= now:
            _, job, asked, most = waiting.pop(0)
            open_jobs[job] = (asked, most)
            scheduler.submit(job, len(asked.prompt))
        step = scheduler.plan()
        if step:
            unread.append(runner.run(step, {job: asked for job, (asked, _) in open_jobs.items()}))
        while len(unread) > (runner.ahead if step else 0):
            for job, token in unread.pop(0)():
                if job in open_jobs:
                    open_jobs[job][0].tokens.append(token)
        over = {job for job, (asked, most) in open_jobs.items() if len(asked.tokens) >= most}
        over |= {job for job, when in leaving if when == now and job in open_jobs}
        for job in sorted(over):
            del open_jobs[job]
            leave(runner, scheduler, job)
        if not (step or waiting or unread or open_jobs):
            return
    pytest.fail("a request was left behind")


def leave(runner, scheduler, job) -> None:
    for move in scheduler.remove(job):
        runner.move(move)
    runner.shrink(scheduler.running)


def prompt_of(length: int, seed: int):
    return torch.randint(0, 101, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def runner_of(arch):
    weights = random_weights(arch, device="cpu", dtype=torch.float32)
    runner = CudaRunner(weights, slots=SLOTS, context_tokens=arch.context_tokens)
    runner.shrink(0)
    return weights, runner


@pytest.mark.parametrize("arch", [LLAMA, QWEN2, QWEN3], ids=["llama", "qwen2", "qwen3"])
def test_answers_are_the_references_whoever_joins_and_leaves(arch) -> None:
    weights, runner = runner_of(arch)
    lengths = [3, 20, 1, 60, 5]
    asked = [Asked(prompt_of(length, number)) for number, length in enumerate(lengths)]
    counts = [4, 3, 3, 2, 3]
    jobs = [(n // 2, n, a, counts[n]) for n, a in enumerate(asked)]
    answered(runner, jobs, leaving=[(2, 2)])

    for number, (one, count) in enumerate(zip(asked, counts, strict=True)):
        want = continued(weights, one.prompt, count)
        assert one.tokens == want[: len(one.tokens)]
        assert number == 2 or len(one.tokens) == count


@settings(max_examples=3, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 24), min_size=1, max_size=3),
    chunk=st.integers(16, 40),
    layers=st.integers(1, 2),
)
def test_prompts_of_any_lengths_and_chunks_begin_as_the_reference_does(
    lengths, chunk, layers
) -> None:
    """The last block runs for their ends alone, and keeps what decoding reads of all of them."""
    weights, runner = runner_of(replace(LLAMA, layers=layers))
    asked = [Asked(prompt_of(length, number)) for number, length in enumerate(lengths)]

    answered(runner, [(0, number, one, 2) for number, one in enumerate(asked)], chunk=chunk)

    for one in asked:
        assert one.tokens[:2] == continued(weights, one.prompt, 2)


def test_the_last_block_reads_ends_alone(monkeypatch) -> None:
    """What comes after its keys and values has a row a prompt, none for one that goes on; those

    are kept of every token.
    """
    _, runner = runner_of(replace(LLAMA, layers=2))
    products, rows = runner._decoder.products, []
    activated = products.activated
    monkeypatch.setattr(products, "activated", lambda x: rows.append(len(x)) or activated(x))
    prefiller = runner._prefiller

    prefiller.run([Chunk(0, 0, (1, 2, 3, 4, 5), last=True), Chunk(1, 0, (6, 7), last=True)])
    assert rows == [2, 1, 5, 1]
    prefiller.run([Chunk(2, 0, (1, 2, 3), last=False)])
    assert rows == [2, 1, 5, 1, 3]
    prefiller.run([Chunk(2, 3, (4, 5), last=True)])
    assert rows == [2, 1, 5, 1, 3, 2, 1]
    for kept in (runner.slots.keys, runner.slots.values):
        torch.testing.assert_close(kept[:, 2, :, :5], kept[:, 0, :, :5])


def test_whom_a_broken_step_began_is_out_of_the_next_ones(monkeypatch) -> None:
    """The first prompt has its token when memory is out for the second."""
    weights, runner = runner_of(LLAMA)
    scheduler = Scheduler(slots=2, waiting_max=0, chunk_tokens=99, prompts=2)
    asked = {0: Asked(prompt_of(3, 0)), 1: Asked(prompt_of(20, 1))}
    for job, one in asked.items():
        scheduler.submit(job, len(one.prompt))
    together = runner._prefiller._together

    def full(group) -> None:
        if len(group[0].tokens) == 20:
            raise torch.OutOfMemoryError
        together(group)

    with monkeypatch.context() as patch:
        patch.setattr(runner._prefiller, "_together", full)
        with pytest.raises(torch.OutOfMemoryError):
            runner.run(scheduler.plan(), asked)
    assert runner.slots.positions.tolist().count(-1) == SLOTS - 1
    runner.shrink(0)
    assert set(runner.slots.positions.tolist()) == {-1}

    again = Asked(prompt_of(20, 1))
    answered(runner, [(0, 0, again, 2)])
    assert again.tokens == continued(weights, again.prompt, 2)


def test_a_seeded_request_draws_the_same_alone_and_in_company() -> None:
    drawn = []
    for company in (0, 2):
        _, runner = runner_of(LLAMA)
        subject = Asked(prompt_of(12, 1), temperature=1.0, top_p=0.9, seed=7)
        others = [Asked(prompt_of(9, 5 + n), temperature=1.0, seed=n) for n in range(company)]
        jobs = [(0, n, one, 4) for n, one in enumerate([*others, subject])]
        answered(runner, jobs)
        drawn.append(subject.tokens)

    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 4


def draw(logits, *, temperature, top_p, seeds) -> list[int]:
    rows = len(seeds)
    state = {
        "tokens": torch.zeros(rows, dtype=torch.int64),
        "results": torch.full((rows,), -7, dtype=torch.int32),
        "positions": torch.arange(rows, dtype=torch.int32),
    }
    kernels.sample[(rows,)](
        logits.expand(rows, -1).contiguous(), torch.arange(rows), state["tokens"],
        state["results"], state["positions"], torch.full((rows,), temperature),
        torch.full((rows,), top_p), torch.tensor(seeds), logits.shape[-1],
        rounds=18, block=64, chained=False,
    )  # fmt: skip
    assert state["positions"].tolist() == list(range(1, rows + 1))
    return state["results"].tolist()


def test_samples_follow_the_tempered_distribution_within_the_nucleus() -> None:
    shares = torch.tensor([0.5, 0.25, 0.15, 0.06, 0.04])
    logits = shares.log()[None] * 0.7  # temperature 0.7 gives the shares back
    count = 120  # some 50 ms each in the interpreter
    drawn = draw(logits, temperature=0.7, top_p=0.8, seeds=list(range(count)))

    kept = shares[:3] / shares[:3].sum()  # 0.5 + 0.25 is short of 0.8, so the third is in
    assert set(drawn) == {0, 1, 2}
    for token, share in enumerate(kept.tolist()):
        spread = math.sqrt(share * (1 - share) / count)
        assert abs(drawn.count(token) / count - share) < 4 * spread


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.3, 0.9, 1.0]), st.integers(1, 200))
def test_what_is_drawn_is_in_the_nucleus(seed: int, top_p: float, size: int) -> None:
    logits = torch.randn(1, size, generator=torch.Generator().manual_seed(seed)) * 3
    (token,) = draw(logits, temperature=1.0, top_p=top_p, seeds=[seed])
    mass = logits[0].double().softmax(-1)
    above = mass[logits[0] > logits[0, token]].sum()

    assert above <= top_p + 1e-3


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logits_that_are_no_numbers_are_told(bad: float) -> None:
    logits = torch.zeros(1, 70)
    logits[0, 66] = bad

    assert draw(logits, temperature=0.0, top_p=1.0, seeds=[1]) == [-1]


@pytest.mark.parametrize(("norm", "add", "silu"), [(True, False, True), (False, True, False)])
@pytest.mark.parametrize("columns", [60, 300])
def test_the_matrix_vector_kernel(norm, add, silu, columns) -> None:
    source = torch.Generator().manual_seed(1)
    rows = 37
    weight = torch.randn(rows * (2 if silu else 1), columns, generator=source)
    x, gain = torch.randn(1, columns, generator=source), torch.randn(columns, generator=source)
    addend, out = torch.randn(1, rows, generator=source), torch.full((1, rows), math.nan)
    kernels.gemv[(-(-rows // 4),)](
        x, weight, x, gain, addend, out, rows, columns, 1e-5, norm=norm, add=add, silu=silu,
        coded=False, whole=columns <= 64, block_rows=4, block=64, chained=False,
    )  # fmt: skip
    want = F.linear(F.rms_norm(x, (columns,), gain, 1e-5) if norm else x, weight)
    if silu:
        gate, up = want.chunk(2, -1)
        want = F.silu(gate) * up
    want = want + addend if add else want

    torch.testing.assert_close(out, want, rtol=1e-4, atol=1e-4)


def test_fp8_answers_as_its_dequantised_matrices_do_but_for_rounding() -> None:
    # All else in fp32: the interpreter's products of bf16 are wrong.
    weights = to_fp8(random_weights(LLAMA, device="cpu", dtype=torch.float32))
    runner = CudaRunner(weights, slots=2, context_tokens=64)
    plain = replace(
        weights,
        layers=tuple(
            replace(
                layer,
                qkv=layer.qkv.dequantised(),
                attention_out=layer.attention_out.dequantised(),
                gate_up=layer.gate_up.dequantised(),
                down=layer.down.dequantised(),
            )
            for layer in weights.layers
        ),
    )
    tokens = prompt_of(12, 3)
    want = reference(plain, tokens)

    told = runner.score(tokens).double()

    assert (told - want).norm() < 0.06 * want.norm()
    asked = Asked(tokens)
    answered(runner, [(0, 0, asked, 3)])
    for token, logits in zip(asked.tokens, follow(plain, tokens, asked.tokens), strict=True):
        assert logits.max() - logits[token] < 0.3 * logits.std()


def follow(weights, prompt, answer):
    """Logits in front of each token of an answer."""
    return reference(weights, [*prompt, *answer[:-1]])[len(prompt) - 1 :]


def test_a_row_times_a_matrix_in_fp8() -> None:
    source = torch.Generator().manual_seed(3)
    weights = random_weights(LLAMA, device="cpu", dtype=torch.float32)
    coded = to_fp8(weights)
    x, gain = torch.randn(1, 64, generator=source), torch.randn(64, generator=source)
    matrix = coded.layers[0].gate_up

    out = Products(coded).one_row(x, matrix, norm=gain, silu=True, chained=False)

    gate, up = F.linear(F.rms_norm(x, (64,), gain, 1e-5), matrix.dequantised()).chunk(2, -1)
    torch.testing.assert_close(out, F.silu(gate) * up, rtol=1e-4, atol=1e-4)
    lost = (matrix.dequantised() - weights.layers[0].gate_up).norm()
    assert lost < 0.04 * weights.layers[0].gate_up.norm()


def assert_coded(coded, want) -> None:
    """Scales exactly; codes to three bits behind the first, but for the carries of rounding,

    which Triton's interpreter loses and a GPU does not (`python -m bench.gpu --fp8 --check`).
    """
    torch.testing.assert_close(coded.scales, want.abs().amax(1, keepdim=True) / 448)
    near = torch.isclose(coded.dequantised(), want, rtol=0.07, atol=float(coded.scales.max()) / 64)
    assert near.float().mean() > 0.93


@pytest.mark.parametrize("norm", [True, False])
def test_rows_are_coded_in_fp8_with_a_scale_each(norm) -> None:
    source = torch.Generator().manual_seed(4)
    weights = to_fp8(random_weights(LLAMA, device="cpu", dtype=torch.float32))
    x = torch.randn(3, 64, generator=source) * torch.tensor([[1.0], [30.0], [0.01]])
    addend, gain = torch.randn(3, 64, generator=source), torch.randn(64, generator=source)
    products = Products(weights)
    want = F.rms_norm(x + addend, (64,), gain, 1e-5) if norm else x

    coded = products.normed(x, addend, gain) if norm else products.plain(x)

    assert_coded(coded, want)


def test_activations_are_coded_in_fp8() -> None:
    weights = to_fp8(random_weights(LLAMA, device="cpu", dtype=torch.float32))
    gate_up = torch.randn(2, 192, generator=torch.Generator().manual_seed(5))
    gate, up = gate_up.chunk(2, -1)

    coded = Products(weights).activated(gate_up)

    assert_coded(coded, F.silu(gate) * up)


def test_llama_3_stretches_slow_turns_and_keeps_fast_ones() -> None:
    scaling = RopeScaling(
        factor=8.0, low_frequency_factor=1.0, high_frequency_factor=4.0,
        original_context_tokens=8_192,
    )  # fmt: skip
    slow, fast = 2 * math.pi / 100_000, 2 * math.pi / 100

    assert scaling.rate(slow) == pytest.approx(slow / 8)
    assert scaling.rate(fast) == fast
