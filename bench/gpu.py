"""Figures of the forward pass on an NVIDIA GPU; needs one, and PyTorch with CUDA.

    python -m bench.gpu --shape 8b --slots 1,8,32,128
    python -m bench.gpu --shape smollm2 --temperature 0.8 --top-p 0.95 --json gpu.json

Random weights of the named shape, prompts of 256 tokens, then 200 steps. The scheduler plans every
step, the device samples every token, the host reads each one step behind, as behind the service.
The roofline is the bytes a step must read (weights, and keys and values at the mean context) at the
bandwidth that a large read reached on this card, in this run. Of prompts three times are told: to
the first token of any, to the first tokens of all while those that have one go on, and to the first
tokens of all if nobody goes on. Each figure is the best of three rounds.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 -- everybody's name for it

from inference.architecture import Architecture
from inference.engines.cuda.device import random_weights, turns
from inference.engines.cuda.products import Fp8, to_fp8
from inference.engines.cuda.runner import CudaRunner
from inference.scheduler import Scheduler, Step
from meshkit.contract import Parameters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference.engines.cuda.device import DeviceWeights
    from inference.engines.cuda.products import Matrix

PROMPT_TOKENS, ANSWER_TOKENS = 256, 200
SHAPES = {
    "smollm2": Architecture(
        layers=30, width=576, hidden=1_536, heads=9, kv_heads=3, head=64, vocabulary=49_152,
        context_tokens=1_024, rope_base=1e5, norm_epsilon=1e-5,
    ),
    "half-depth": Architecture(
        layers=15, width=576, hidden=1_536, heads=9, kv_heads=3, head=64, vocabulary=49_152,
        context_tokens=1_024, rope_base=1e5, norm_epsilon=1e-5,
    ),
    "8b": Architecture(
        layers=32, width=4_096, hidden=14_336, heads=32, kv_heads=8, head=128, vocabulary=128_256,
        context_tokens=1_024, rope_base=5e5, norm_epsilon=1e-5, tied=False,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rate:
    """One line: what a number of slots gave."""

    shape: str
    precision: str
    slots: int
    tokens_per_s: float
    step_ms: float
    roofline: float
    first_token_ms: float
    prefill_ms: float
    prompts_ms: float
    """Of prompts alone, without the steps of those who have begun."""


class Asked:
    """As much of an answer as a runner reads."""

    def __init__(self, prompt: Sequence[int], parameters: Parameters, seed: int) -> None:
        self.prompt = tuple(prompt)
        self.parameters = parameters
        self.seed = seed
        self.tokens: list[int] = []
        self.first_s = 0.0


def reference(weights: DeviceWeights, tokens: Sequence[int]) -> torch.Tensor:
    """Logits of every position in fp32, without cache or kernels of ours."""
    arch = weights.architecture
    cos, sin = turns(arch, len(tokens), "cuda")

    def turned(x: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, -1)
        c, s = cos[:, None], sin[:, None]
        return torch.cat([first * c - second * s, second * c + first * s], -1)

    def norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, (arch.width,), weight.float(), arch.norm_epsilon)

    def full(matrix: Matrix) -> torch.Tensor:
        return matrix.dequantised() if isinstance(matrix, Fp8) else matrix.float()

    x = weights.embedding[torch.tensor(tokens, device="cuda")].float()
    heads = [arch.heads, arch.kv_heads, arch.kv_heads]
    for layer in weights.layers:
        qkv = F.linear(norm(x, layer.attention_norm), full(layer.qkv))
        q, k, v = torch.split(qkv.view(len(tokens), -1, arch.head), heads, 1)
        q, k, v = (part.transpose(0, 1)[None] for part in (turned(q), turned(k), v))
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)[0]
        x = x + F.linear(seen.transpose(0, 1).flatten(1), full(layer.attention_out))
        gate, up = F.linear(norm(x, layer.feed_norm), full(layer.gate_up)).chunk(2, -1)
        x = x + F.linear(F.silu(gate) * up, full(layer.down))
    return F.linear(norm(x, weights.final_norm), weights.head.float())


def check(weights: DeviceWeights, slots: int) -> float:
    """Answer prompts of all lengths greedily; return the worst regret in logits, by the reference.

    The regret of a token is how far its logit is below the largest one, over their spread: bf16
    may pick another of two near-equal ones, and nothing else.
    """
    runner = CudaRunner(weights, slots=slots, context_tokens=900)
    runner.warm_up()
    greedy = Parameters(temperature=0.0, max_tokens=1_000)
    source = torch.Generator().manual_seed(slots)
    asked = []
    for number in range(slots):
        length = int(torch.randint(1, 600, (1,), generator=source))
        prompt = torch.randint(0, weights.architecture.vocabulary, (length,), generator=source)
        asked.append(Asked(prompt.tolist(), greedy, number))
    drive(runner, asked, chunk=700)
    worst = 0.0
    for one in asked[:8]:
        logits = reference(weights, (*one.prompt, *one.tokens[:-1]))[len(one.prompt) - 1 :]
        chosen = logits.gather(1, torch.tensor(one.tokens, device="cuda")[:, None])[:, 0]
        worst = max(worst, float(((logits.max(1).values - chosen) / logits.std(1)).max()))
    return worst


def bandwidth() -> float:
    """Bytes a second of a large read."""
    block = torch.empty(2**32, dtype=torch.uint8, device="cuda").view(torch.int64)
    block.fill_(1)
    block.max()
    times = []
    for _ in range(5):
        torch.cuda.synchronize()
        began = time.perf_counter()
        block.max()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return block.numel() * 8 / min(times)


def drive(runner: CudaRunner, asked: Sequence[Asked], *, chunk: int) -> tuple[list[float], float]:
    """Answer all, as the engine's thread does.

    Returns:
        When each step of all rows ended, and after how long every prompt had its first token.
    """
    scheduler, answers = _submitted(runner, asked, chunk)
    unread: list[Any] = []
    ends: list[float] = []
    began = time.perf_counter()
    filled = 0.0
    while answers:
        step = scheduler.plan()
        if step:
            unread.append((len(step.decode), runner.run(step, answers)))
        while len(unread) > (runner.ahead if step else 0):
            rows, read = unread.pop(0)
            told = read()
            now = time.perf_counter()
            for one, token in ((answers[job], token) for job, token in told if job in answers):
                one.first_s = one.first_s or now - began
                one.tokens.append(token)
            if all(one.tokens for one in asked):
                filled = filled or now - began
            if rows == len(asked):
                ends.append(now)
            for job in [j for j, one in answers.items() if len(one.tokens) > ANSWER_TOKENS]:
                del answers[job]
                _leave(runner, scheduler, job)
    return ends, filled


def prompts_alone(runner: CudaRunner, asked: Sequence[Asked], *, chunk: int) -> float:
    """Seconds until all prompts have their first token, if nobody goes on."""
    scheduler, answers = _submitted(runner, asked, chunk)
    began = time.perf_counter()
    steps = iter(scheduler.plan, Step((), tuple(range(len(asked)))))
    for read in [runner.run(Step(step.prefills, ()), answers) for step in steps]:
        read()
    took = time.perf_counter() - began
    runner.slots.clear(0, runner.slots.count)
    runner.shrink(0)
    return took


def _submitted(
    runner: CudaRunner, asked: Sequence[Asked], chunk: int
) -> tuple[Scheduler, dict[int, Any]]:
    scheduler = Scheduler(
        slots=len(asked), waiting_max=0, chunk_tokens=chunk, prompts=runner.prompts
    )
    for job, one in enumerate(asked):
        scheduler.submit(job, len(one.prompt))
    return scheduler, dict(enumerate(asked))


def _leave(runner: CudaRunner, scheduler: Scheduler, job: int) -> None:
    for move in scheduler.remove(job):
        runner.move(move)
    runner.shrink(scheduler.running)


def precision_of(weights: DeviceWeights) -> str:
    """Say of what the matrices of the blocks are: bf16 or fp8."""
    return "fp8" if isinstance(weights.layers[0].qkv, Fp8) else "bf16"


def measure(
    name: str,
    weights: DeviceWeights,
    slots: int,
    parameters: Parameters,
    *,
    read_bps: float,
    chunk: int,
) -> Rate:
    """Warm up, then take the best of three rounds."""
    arch = weights.architecture
    runner = CudaRunner(weights, slots=slots, context_tokens=PROMPT_TOKENS + ANSWER_TOKENS + 8)
    runner.warm_up()
    told: list[tuple[float, float, float, float]] = []
    for round_ in range(3):
        source = torch.Generator().manual_seed(round_)
        prompts = torch.randint(0, arch.vocabulary, (slots, PROMPT_TOKENS), generator=source)
        asked = [Asked(row, parameters, n) for n, row in enumerate(prompts.tolist())]
        ends, filled = drive(runner, asked, chunk=chunk)
        step = (ends[-5] - ends[5]) / (len(ends) - 10)
        first = min(one.first_s for one in asked)
        told.append((step, first, filled, prompts_alone(runner, asked, chunk=chunk)))
    step, first, filled, alone = map(min, zip(*told, strict=True))
    context = PROMPT_TOKENS + ANSWER_TOKENS / 2
    floor = (weights.bytes_read + slots * context * runner.slots.bytes_per_token) / read_bps
    return Rate(
        shape=name,
        precision=precision_of(weights),
        slots=slots,
        tokens_per_s=slots / step,
        step_ms=step * 1e3,
        roofline=floor / step,
        first_token_ms=first * 1e3,
        prefill_ms=filled * 1e3,
        prompts_ms=alone * 1e3,
    )


def main() -> None:
    """Print a line a number of slots."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, action="append")
    parser.add_argument("--slots", default="1,8,32,128")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--chunk", type=int, default=8_192, help="prompt tokens in one step")
    parser.add_argument("--fp8", action="store_true", help="matrices of the blocks in e4m3")
    parser.add_argument("--check", action="store_true", help="against fp32, before anything else")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    parameters = Parameters(temperature=args.temperature, top_p=args.top_p, max_tokens=1_000)
    read_bps = bandwidth()
    print(f"{torch.cuda.get_device_name()}: reads {read_bps / 1e12:.2f} TB/s")
    rates = []
    for name in args.shape or ("smollm2", "8b"):
        with torch.inference_mode():
            weights = random_weights(SHAPES[name], device="cuda")
            if args.fp8:
                weights = to_fp8(weights)
            for slots in (1, 8, 40) if args.check else ():
                print(f"{name:10} slots {slots:4}  worst regret {check(weights, slots):.4f}")
            for slots in map(int, args.slots.split(",")):
                rate = measure(
                    name, weights, slots, parameters, read_bps=read_bps, chunk=args.chunk
                )
                rates.append(rate)
                print(
                    f"{name:10} slots {slots:4}  {rate.tokens_per_s:9,.0f} tokens/s  "
                    f"{rate.step_ms:7.3f} ms a step  {rate.roofline:5.1%} of the roofline  "
                    f"first token {rate.first_token_ms:6.1f} ms, all {rate.prefill_ms:6.1f} ms, "
                    f"prompts alone {rate.prompts_ms:6.1f} ms",
                    flush=True,
                )
                torch.cuda.empty_cache()
        del weights
        torch.cuda.empty_cache()
    if args.json:
        args.json.write_text(json.dumps([asdict(rate) for rate in rates], indent=2))


if __name__ == "__main__":
    main()
