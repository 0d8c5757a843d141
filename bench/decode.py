"""Tokens a second of the real model on this CPU: the torch engine, SmolLM2-135M, all cores.

Beside it llama.cpp (llama-cpp-python) on the same file with as many threads, in turns. Each is a
process of its own that sleeps while the other works. Without it in `var/llamacpp`, which `make
llamacpp` builds, what compares with it is left out, and the run says so. transformers, in fp32 on
the same weights, is the other baseline: left out where it is not installed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from typing import IO, TYPE_CHECKING, Any

from bench.catalogue import Figure, paired, repeated
from bench.children import ROOT
from inference.registry import checked_file, load_manifest
from inference.settings import InferenceSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.plan import Plan

ALONE, VERSUS = "smollm2_decode_tokens_per_s", "torch_decode_vs_llamacpp"
STREAMS, FIRST = "smollm2_8_streams_tokens_per_s", "smollm2_first_token_ms"
STREAMS_VERSUS = "smollm2_8_streams_vs_llamacpp"
FP32 = "torch_decode_vs_transformers"
NAMES = (ALONE, VERSUS, FP32, STREAMS, STREAMS_VERSUS, FIRST)
LLAMACPP = ROOT / "var" / "llamacpp"
CHECK = ROOT / "deploy" / "llamacpp_baseline.py"
MANY = 8
TOKENS = 64
PROMPT = "Write a long story about a lighthouse keeper and the sea."
TEMPLATE = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)


class Side:
    """A process that answers lines."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._in: IO[str] = process.stdin
        self._out: IO[str] = process.stdout
        self.born = self._told()

    def do(self, prompt: str, *, tokens: int, streams: int = 1) -> dict[str, float]:
        """Let it answer; see the children."""
        asked = {"prompt": prompt, "tokens": tokens, "streams": streams}
        self._in.write(json.dumps(asked) + "\n")
        self._in.flush()
        return self._told()

    def _told(self) -> dict[str, Any]:
        line = self._out.readline()
        if not line:
            msg = "a decoding process ended; its messages stand above"
            raise RuntimeError(msg)
        told: dict[str, Any] = json.loads(line)
        return told


async def measure(plan: Plan) -> list[Figure]:
    """Measure what is wanted."""
    tokens = 16 if plan.quick else TOKENS
    figures: list[Figure] = []
    with _running(sys.executable, "-m", "bench.decode_child") as ours:
        if plan.wants(ALONE):
            figures.append(_alone(plan, ours, tokens))
        if plan.wants(STREAMS):
            figures.append(_streams(plan, ours, 2 * tokens))
        if plan.wants(VERSUS, FIRST, STREAMS_VERSUS):
            figures += _against_llamacpp(plan, ours, tokens)
        if plan.wants(FP32):
            figures += _against_transformers(plan, ours, tokens)
    return [figure for figure in figures if plan.wants(figure.name)]


def _alone(plan: Plan, ours: Side, tokens: int) -> Figure:
    rates = [ours.do(PROMPT, tokens=tokens)["tokens_per_s"] for _ in range(plan.pairs + 1)]
    note = f"greedy, {tokens} tokens, time to the first token left out"
    return repeated(ALONE, tuple(rates[1:]), note=note)


def _streams(plan: Plan, ours: Side, tokens: int) -> Figure:
    many, one = [], []
    for _ in range(plan.pairs + 1):
        many.append(ours.do(PROMPT, tokens=tokens, streams=MANY)["tokens_per_s"])
        one.append(ours.do(PROMPT, tokens=tokens)["tokens_per_s"])
    note = f"{MANY} streams of up to {tokens} tokens, while all of them are decoded"
    return paired(STREAMS, tuple(many[1:]), tuple(one[1:]), note=note)


def _against_llamacpp(plan: Plan, ours: Side, tokens: int) -> list[Figure]:
    ready = subprocess.run(
        [sys.executable, str(CHECK), "--check", "--into", str(LLAMACPP)], check=False
    )
    if ready.returncode != 0:
        missing = f"{VERSUS}, {FIRST}, {STREAMS_VERSUS}"
        print(f"decode: no llama.cpp (`make llamacpp`); not measured: {missing}")
        return []
    command = (str(LLAMACPP / ".venv" / "bin" / "python"), str(ROOT / "bench/llamacpp_child.py"))
    figures = []
    if plan.wants(VERSUS, FIRST):
        mine, other, note = _turns(plan, ours, command, tokens)
        in_ms = [[1e3 * told["first_s"] for told in side[1:]] for side in (mine, other)]
        figures = [
            paired(VERSUS, *_rates(mine, other), note=f"llama-cpp-python {note}"),
            paired(FIRST, *map(tuple, in_ms), note=f"llama-cpp-python {note}"),
        ]
    if plan.wants(STREAMS_VERSUS):
        mine, other, note = _turns(plan, ours, command, 2 * tokens, streams=MANY)
        figures.append(
            paired(STREAMS_VERSUS, *_rates(mine, other), note=f"llama-cpp-python {note}")
        )
    return figures


def _against_transformers(plan: Plan, ours: Side, tokens: int) -> list[Figure]:
    if find_spec("transformers") is None:
        print(f"decode: transformers is not installed; not measured: {FP32}")
        return []
    command = (sys.executable, "-m", "bench.transformers_child")
    mine, other, note = _turns(plan, ours, command, tokens)
    return [paired(FP32, *_rates(mine, other), note=f"transformers, fp32, {note}")]


def _rates(*sides: list[dict[str, float]]) -> Iterator[tuple[float, ...]]:
    """Of each side, the tokens a second that it told, but for the first time."""
    return (tuple(told["tokens_per_s"] for told in side[1:]) for side in sides)


def _turns(
    plan: Plan, ours: Side, command: tuple[str, ...], tokens: int, streams: int = 1
) -> tuple[list[dict[str, float]], list[dict[str, float]], str]:
    """Let both answer the same in turns; return what each told (the first: warming up), a note."""
    settings = InferenceSettings.load()
    model = checked_file(load_manifest(settings.model), settings.models_dir)
    mine, other = [], []
    with _running(*command, str(model), str(settings.threads)) as theirs:
        for _ in range(plan.pairs + 1):
            mine.append(ours.do(PROMPT, tokens=tokens, streams=streams))
            other.append(theirs.do(TEMPLATE.format(PROMPT), tokens=tokens, streams=streams))
    counts = {told["prompt_tokens"] for told in (*mine, *other)}
    note = (
        f"{theirs.born['version']}, the same Q4_1 file, {settings.threads} threads"
        f" each; prompts of {', '.join(f'{count:.0f}' for count in sorted(counts))} tokens, greedy"
    )
    return mine, other, note


@contextmanager
def _running(*command: str) -> Iterator[Side]:
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Side(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
