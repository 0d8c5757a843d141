"""`sealgate models export-onnx|build-engine|check-engine|compare`, as they are typed."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog
import torch

from inference.architecture import Architecture
from inference.engines.cuda.device import random_weights
from inference.tensorrt import answering, comparing
from inference.tensorrt.comparison import Answered, Ran
from inference.tensorrt.export import export_onnx
from inference.tensorrt.graph import Precision
from sealgate.cli import BAD_USAGE, DONE, REFUSED, UNAVAILABLE, main
from tests.inference.toys import toy, write_model

ROOT = Path(__file__).parents[2]
HOME = os.environ.get("SEALGATE_TENSORRT_DIR", str(ROOT / "var" / "tensorrt"))
ARCH = Architecture(
    layers=1, width=32, hidden=48, heads=4, kv_heads=2, head=8,
    vocabulary=61, context_tokens=64, rope_base=10_000.0, norm_epsilon=1e-5,
)  # fmt: skip
SIZES = ("--slots", "2", "--chunk-tokens", "16", "--context-tokens", "64")

needs_library = pytest.mark.skipif(
    not (Path(HOME) / "ready.json").exists(), reason="`make tensorrt` fetches NVIDIA's library"
)


@pytest.fixture
def models(capsys):
    def run(*words: object) -> tuple[int, str, str]:
        code = main(["models", *map(str, words)])
        told = capsys.readouterr()
        return code, told.out, told.err

    before = structlog.is_configured()
    yield run
    if not before:  # a command logs to the standard error of its test, which is closed after it
        structlog.reset_defaults()


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graph")
    weights = random_weights(ARCH, device="cpu", dtype=torch.float32)
    export_onnx(weights, folder, precision=Precision.FP16, positions=64)
    return folder


@needs_library
def test_a_plan_is_built_put_into_a_repository_and_checked(models, graph, tmp_path) -> None:
    into, repository = tmp_path / "plan", tmp_path / "repository"
    where = ("--into", into, "--tensorrt", HOME, "--triton", repository, "--name", "toy")
    code, out, _ = models("build-engine", graph, "--for", "8.6", *SIZES, *where)

    assert code == DONE
    assert "compute capability 8.6" in out
    assert (repository / "toy" / "config.pbtxt").exists()
    if not torch.cuda.is_available():
        assert models("check-engine", into, "--tensorrt", HOME)[0] == UNAVAILABLE
    (into / "model.plan").write_bytes((into / "model.plan").read_bytes()[:-1])
    code, out, _ = models("check-engine", into, "--tensorrt", HOME, "--json")
    assert (code, json.loads(out)) == (REFUSED, {"error": "plan_damaged"})


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("--for", "9.0"), REFUSED, "builds for compute capability"),
        (("--library", "tensorrt"), UNAVAILABLE, "full TensorRT cannot be had from PyPI"),
        (("--tensorrt", "/nowhere"), UNAVAILABLE, "make tensorrt"),
        (("--context-tokens", "65"), REFUSED, "fewer positions"),
    ],
)
def test_what_cannot_be_had_is_said_plainly(words, code, sentence, models, graph) -> None:
    into = graph.with_name("into")
    found, _, error = models("build-engine", graph, "--into", into, *SIZES, *words)

    assert found == code
    assert sentence in error


def test_full_tensorrt_comes_with_the_command_for_nvidias_container(
    models, graph, tmp_path
) -> None:
    _, out, _ = models("build-engine", graph, "--into", tmp_path, "--library", "tensorrt", *SIZES)

    assert out.startswith("trtexec ")
    assert "--saveEngine=model.plan" in out


def test_a_folder_without_a_graph_is_wrong_usage(models, tmp_path) -> None:
    assert models("build-engine", tmp_path, "--into", tmp_path)[0] == BAD_USAGE


def test_a_model_that_nobody_knows_is_refused(models, tmp_path) -> None:
    where = ("--into", tmp_path / "out", "--store", tmp_path)

    assert models("export-onnx", "nobody", *where)[0] == REFUSED
    (tmp_path / "x.gguf").write_bytes(b"GGUF and no more")
    assert models("export-onnx", tmp_path / "x.gguf", *where)[0] == REFUSED
    assert not (tmp_path / "out").exists()


def test_texts_that_are_too_short_or_no_texts_are_told(models, tmp_path) -> None:
    folder, short, binary = write_model(tmp_path / "toy", toy("Llama")), *texts_in(tmp_path)
    export = ("export-onnx", folder, "--into", tmp_path / "out", "--store", tmp_path)

    code, _, error = models(*export, "--check", short)
    assert (code, "too little text" in error) == (REFUSED, True)
    code, _, error = models(*export, "--precision", "fp8", "--texts", short)
    assert (code, "too little text" in error) == (REFUSED, True)
    for words in ((*export, "--check", binary), ("compare", "a", "b", "--prompts", binary)):
        code, _, error = models(*words)
        assert (code, "the text is not UTF-8" in error) == (REFUSED, True)


def texts_in(folder: Path) -> tuple[Path, Path]:
    short, binary = folder / "short.txt", folder / "binary.txt"
    short.write_text("Too short.\n")
    binary.write_bytes(b"\xff\xfe\x00")
    return short, binary


def test_two_models_are_compared_as_a_table_and_as_json(models, tmp_path, monkeypatch) -> None:
    def ran(job) -> Ran:
        answers = (
            Answered(text=prompt, tokens=3, first_s=0.1, rest_s=1) for prompt in job["prompts"]
        )
        return Ran(
            name=job["model"], precision="p", format="onnx", load_s=1.0, memory_bytes=1 << 20,
            answers=tuple(answers),
        )  # fmt: skip

    monkeypatch.setattr(comparing, "_ran", ran)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("one\n\ntwo\n")
    words = ("compare", "a", "b", "--prompts", prompts)
    code, out, _ = models(*words)
    told = json.loads(models(*words, "--json")[1])

    assert code == DONE
    assert "2 prompts: 100% of answers equal" in out
    assert (told["prompts"], told["same"], told["b"]["name"]) == (2, 1, "b")
    prompts.write_text("\n")
    assert models(*words)[0] == REFUSED


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("exec cat >/dev/null", "died before it had answered"),
        ("kill -9 $$", "died before it had answered"),
        ('echo \'{"fault": "no such model"}\'', "no such model"),
    ],
)
def test_an_engine_that_dies_or_cannot_be_loaded_is_told(
    script, sentence, models, tmp_path, monkeypatch
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(comparing, "sys", SimpleNamespace(executable=str(python)))
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("one\n")
    code, _, error = models("compare", "a", "b", "--prompts", prompts)

    assert code == REFUSED
    assert sentence in error


def test_the_process_of_an_engine_says_why_it_has_no_answers(tmp_path) -> None:
    job = {"models_dir": str(tmp_path), "model": "nobody", "threads": 1, "max_tokens": 1}
    told = answering._main(job | {"prompts": ["one"]})

    assert set(told) == {"fault"}
    assert str(tmp_path) not in told["fault"]
