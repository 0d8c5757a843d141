"""What `bench.gpu_peers` makes of vLLM's times; vLLM itself needs a GPU and is not run here."""

import os

os.environ["TRITON_INTERPRET"] = "1"  # before the kernels are read

import json
import subprocess
import sys

import pytest

from bench import gpu_peers
from bench.gpu import ANSWER_TOKENS, PROMPT_TOKENS
from bench.gpu_peers import bytes_a_step, measured, peer, ratios
from inference.architecture import Architecture
from inference.engines.cuda.decode import Slots
from inference.engines.cuda.device import random_weights

SHAPE = {
    "layers": 2, "width": 64, "hidden": 96, "heads": 4, "kv_heads": 2, "head": 16,
    "vocabulary": 101, "context_tokens": 192, "rope_base": 1e4, "norm_epsilon": 1e-5,
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
    here = {"shape": "8b", "slots": 8, "tokens_per_s": 1_000, "roofline": 0.8, "prompts_ms": 9.0}
    (line,) = ratios([here, here | {"shape": "smollm2"}], there)
    assert "slots    8" in line
    assert " 1.25 times" in line


def test_the_other_process_is_told_the_shape_and_its_own_words_are_passed_on(
    tmp_path, monkeypatch, capsys
):
    child = tmp_path / "child.py"
    child.write_text("import sys\nprint('some notice')\nprint(sys.argv[1])\n")
    monkeypatch.setattr(gpu_peers, "CHILD", child)
    (told,) = measured("8b", [8, 1], sys.executable)
    assert told["slots"] == [1, 8]
    assert told["config"]["hidden_size"] == 4_096
    assert capsys.readouterr().err == "some notice\n"


def test_a_process_that_fails_is_no_figure(tmp_path, monkeypatch):
    child = tmp_path / "child.py"
    child.write_text(f"print({json.dumps({'slots': 1})!r})\nraise SystemExit(3)\n")
    monkeypatch.setattr(gpu_peers, "CHILD", child)
    with pytest.raises(subprocess.CalledProcessError):
        list(measured("8b", [1], sys.executable))
