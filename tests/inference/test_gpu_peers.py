"""What `bench.gpu_peers` makes of vLLM's times; vLLM itself needs a GPU and is not run here."""

import os

os.environ["TRITON_INTERPRET"] = "1"  # before the kernels are read

import json
import subprocess
import sys

import pytest

from bench import gpu_peers, vllm_child
from bench.gpu import ANSWER_TOKENS, PROMPT_TOKENS, precision_of
from bench.gpu_peers import MARK, bytes_a_step, measured, peer, ratios
from inference.architecture import Architecture
from inference.engines.cuda.decode import Slots
from inference.engines.cuda.device import random_weights
from inference.engines.cuda.products import to_fp8

SHAPE = {
    "layers": 2, "width": 64, "hidden": 96, "heads": 4, "kv_heads": 2, "head": 16,
    "vocabulary": 101, "context_tokens": 192, "rope_base": 1e4, "norm_epsilon": 1e-5,
}  # fmt: skip
OURS = {
    "shape": "8b", "precision": "bf16", "slots": 8, "tokens_per_s": 1_000, "roofline": 0.8,
    "prompts_ms": 9.0,
}  # fmt: skip


@pytest.mark.parametrize("tied", [True, False])
def test_the_roofline_is_that_of_our_own_figures(tied):
    shape = Architecture(**SHAPE, tied=tied)
    weights = random_weights(shape, device="cpu")
    slots = Slots(weights, slots=3, context_tokens=64)
    context = PROMPT_TOKENS + ANSWER_TOKENS / 2
    assert bytes_a_step(shape, 3) == weights.bytes_read + 3 * context * slots.bytes_per_token


def test_a_step_is_what_the_answer_took_beyond_its_first_token():
    told = peer("8b", {"slots": 8, "prefill_s": 0.5, "all_s": 2.5}, 3e12)
    assert (told.step_ms, told.tokens_per_s, told.prefill_ms) == pytest.approx((10, 800, 500))
    assert told.roofline == pytest.approx(bytes_a_step(gpu_peers.SHAPES["8b"], 8) / 3e12 / 0.010)


def test_ratios_are_of_what_both_measured():
    there = [peer("8b", {"slots": n, "prefill_s": 0.5, "all_s": 2.5}, 3e12) for n in (1, 8)]
    (line,) = ratios([OURS, OURS | {"shape": "smollm2"}], there)
    assert "slots    8" in line
    assert " 1.25 times" in line


@pytest.mark.parametrize("other", [OURS | {"precision": "fp8"}, {"shape": "8b", "slots": 8}])
def test_what_is_not_known_to_be_bf16_is_not_compared(other):
    there = [peer("8b", {"slots": 8, "prefill_s": 0.5, "all_s": 2.5}, 3e12)]
    with pytest.raises(ValueError, match="bf16"):
        ratios([OURS, other], there)


def test_a_figure_says_of_what_precision_it_is():
    weights = random_weights(Architecture(**SHAPE), device="cpu")
    assert precision_of(weights) == "bf16"
    assert precision_of(to_fp8(weights)) == "fp8"


def test_the_other_process_is_told_the_shape_and_its_own_words_are_passed_on(
    tmp_path, monkeypatch, capsys
):
    child = tmp_path / "child.py"
    child.write_text(f"import sys\nprint('{{some notice')\nprint({MARK!r} + sys.argv[1])\n")
    monkeypatch.setattr(gpu_peers, "CHILD", child)
    (told,) = measured("8b", [8, 1], sys.executable)
    assert told["slots"] == [1, 8]
    assert told["config"]["hidden_size"] == 4_096
    assert capsys.readouterr().err == "{some notice\n"


def test_a_process_that_fails_is_no_figure(tmp_path, monkeypatch):
    child = tmp_path / "child.py"
    child.write_text(f"print({MARK + json.dumps({'slots': 1})!r})\nraise SystemExit(3)\n")
    monkeypatch.setattr(gpu_peers, "CHILD", child)
    with pytest.raises(subprocess.CalledProcessError):
        list(measured("8b", [1], sys.executable))


def test_the_lines_of_the_child_are_known_by_its_mark(capsys):
    vllm_child.tell({"slots": 1})
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == MARK + '{"slots": 1}'


def test_who_stops_reading_ends_the_other_process(tmp_path, monkeypatch):
    child, end = tmp_path / "child.py", tmp_path / "end"
    told = f"{MARK}{json.dumps({'slots': 1})}"
    child.write_text(
        f"import time\nprint({told!r}, flush=True)\ntime.sleep(20)\nopen({str(end)!r}, 'w')\n"
    )
    monkeypatch.setattr(gpu_peers, "CHILD", child)
    lines = measured("8b", [1], sys.executable)
    assert next(lines) == {"slots": 1}
    with pytest.raises(KeyboardInterrupt):
        lines.throw(KeyboardInterrupt)
    assert not end.exists()
