"""Model repositories for Triton: what is written, what is refused, what Triton's schema reads."""

import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2

from inference.triton_repository.config import (
    Batching,
    Instances,
    ModelConfig,
    Tensor,
    quoted,
    rendered,
)
from inference.triton_repository.folder import RepositoryError, check_text, write_model
from inference.triton_repository.own import write_own
from sealgate.cli import main
from tests.inference.triton_world import MODEL

IN = (Tensor(name="x", data_type="TYPE_INT64", dims=(-1,)),)
OUT = (Tensor(name="y", data_type="TYPE_FP32", dims=(-1, 7)),)


def read(text):
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def config(**changes):
    return ModelConfig(**{"name": "m", "backend": "python", "inputs": IN, "outputs": OUT} | changes)


@given(st.dictionaries(st.text(min_size=1, max_size=12), st.text(max_size=40), max_size=4))
@settings(max_examples=60)
def test_any_parameter_is_read_back_as_it_was(parameters) -> None:
    told = read(rendered(config(parameters=parameters))).parameters
    assert {key: value.string_value for key, value in told.items()} == parameters


@given(st.text(max_size=40))
def test_nothing_gets_out_of_its_quotes(text) -> None:
    inside = quoted(text)[1:-1]
    assert '"' not in inside
    assert inside.isascii()
    assert inside.isprintable()


def test_a_plan_with_batching_is_told_to_triton_as_it_is_meant() -> None:
    told = read(
        rendered(
            config(
                backend="", platform="tensorrt_plan", batch_max=16,
                instances=Instances(kind="KIND_GPU", count=2, gpus=(0, 1)),
                batching=Batching(preferred=(4, 8), queue_us=500, waiting_max=64, waiting_ms=20),
            )
        )
    )  # fmt: skip
    assert (told.platform, told.backend, told.max_batch_size) == ("tensorrt_plan", "", 16)
    assert [*told.dynamic_batching.preferred_batch_size] == [4, 8]
    assert told.dynamic_batching.max_queue_delay_microseconds == 500
    policy = told.dynamic_batching.default_queue_policy
    assert (policy.max_queue_size, policy.default_timeout_microseconds) == (64, 20_000)
    assert [*told.instance_group[0].gpus] == [0, 1]
    assert not told.model_transaction_policy.decoupled
    assert [*told.output[0].dims] == [-1, 7]


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "../m"},
        {"name": ""},
        {"platform": "tensorrt_plan"},
        {"backend": ""},
        {"batch_max": -1},
        {"batching": Batching()},
        {"batch_max": 4, "batching": Batching(preferred=(8,))},
        {"inputs": (Tensor(name='x"', data_type="TYPE_INT64", dims=(1,)),)},
        {"inputs": (Tensor(name="x", data_type="INT64", dims=(1,)),)},
    ],
)
def test_what_triton_would_read_otherwise_is_refused(wrong) -> None:
    with pytest.raises(ValueError, match=r"Triton|batching"):
        config(**wrong)


def test_a_text_that_is_no_configuration_is_refused() -> None:
    for text in ("nonsense: 1", 'name: "m', "instance_group [ { kind: KIND_TPU } ]"):
        with pytest.raises(RepositoryError):
            check_text(text)


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path) -> None:
    first = write_model(tmp_path, config(), {"model.py": b"one", "old.txt": b""})
    with pytest.raises(RepositoryError):
        write_model(tmp_path, config(), {"../model.py": b"two"})
    with pytest.raises(OSError, match="gone"):
        write_model(tmp_path, config(), {"model.py": tmp_path / "gone"})
    assert (first / "1" / "model.py").read_bytes() == b"one"

    write_model(tmp_path, config(), {"model.py": b"two"}, version=3)
    assert sorted(p.name for p in first.iterdir()) == ["3", "config.pbtxt"]
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_the_command_writes_what_triton_reads(tmp_path, capsys) -> None:
    out = ["--out", str(tmp_path), "--device", "cpu"]
    assert main(["models", "triton-repository", MODEL, *out, "--set", "slots=16"]) == 0
    folder = tmp_path / MODEL
    assert capsys.readouterr().out.strip() == str(folder)
    told = read((folder / "config.pbtxt").read_text())
    assert told.model_transaction_policy.decoupled
    assert told.parameters["slots"].string_value == "16"
    assert {each.name for each in told.input} >= {"roles", "contents", "salt"}
    assert (folder / "1" / "model.py").exists()

    before = (folder / "config.pbtxt").read_text()
    for wrong in (["--set", "slots=0"], ["--set", "slotz=1"]):
        assert main(["models", "triton-repository", MODEL, *out, *wrong]) == 1
        assert "slot" in capsys.readouterr().err
    assert main(["models", "triton-repository", "nobody", *out]) == 1
    assert main(["models", "triton-repository", MODEL, *out, "--set", "slots"]) == 2
    assert (folder / "config.pbtxt").read_text() == before


def test_a_setting_that_is_none_is_refused(tmp_path) -> None:
    with pytest.raises(RepositoryError, match="threads"):
        write_own(tmp_path, MODEL, settings={"threads": "many"})
    assert not any(tmp_path.iterdir())
