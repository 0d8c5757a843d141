"""`sealgate models quantize|prune|distill|report` as they are typed, over a store of its own."""

import json
from xml.etree import ElementTree as ET

import pytest

from inference.precision.schemes import Precision
from inference.precision.source import read_source
from inference.precision.variant import write_variant
from inference.store.changing import StoreChanger
from inference.store.claims import Claim
from inference.store.store import ModelStore
from sealgate.cli import DONE, REFUSED, UNAVAILABLE, main
from tests.inference.test_precision import toy

TRAINED = ("--steps", "2", "--batch", "2", "--tokens", "16", "--device", "cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A store with a toy model, and text."""
    top = tmp_path_factory.mktemp("world")
    source = toy()
    write_variant(top / "toy", source.network(), source, precision=Precision.FP32, about={})
    claim = Claim(name="toy", licence="MIT", source="random", languages=("en",))
    (top / "store").mkdir()
    StoreChanger(ModelStore(top / "store")).add(top / "toy", claim)
    (top / "text.txt").write_text("the cat sat on the mat and the dog sat on the log. " * 40)
    return top


@pytest.fixture
def run(world, capsys, monkeypatch):
    monkeypatch.chdir(world)

    def run_it(*words: object):
        code = main(["models", *map(str, words), "--store", "store"])
        told = capsys.readouterr()
        return code, told.out, told.err

    return run_it


def lines(out: str) -> list:
    return [json.loads(line) for line in out.splitlines()]


def test_a_variant_goes_into_the_store_under_a_manifest_that_names_its_base(run, world) -> None:
    base = ModelStore(world / "store").entry("toy").manifest
    code, out, _ = run("quantize", "toy", "--precision", "int4", "--json")
    told = lines(out)[-1]
    manifest = ModelStore(world / "store").entry("toy-int4").manifest

    assert code == DONE
    assert (told["name"], told["version"], told["base"]) == ("toy-int4", "1", base.digest.hex())
    assert told["digest"] == manifest.digest.hex()
    assert (manifest.licence, manifest.languages, manifest.kind) == ("MIT", ("en",), "chat")
    assert base.digest.hex() in manifest.source
    assert "4 bit" in manifest.precision
    assert list((world / "store" / "making").iterdir()) == []


def test_pruning_and_distilling_tell_how_far_they_are(run, world) -> None:
    code, out, _ = run(
        "prune", "toy", "--sparsity", "0.5", "--text", "text.txt", *TRAINED, "--json"
    )
    told = lines(out)

    assert code == DONE
    assert [one["done"] for one in told if one.get("stage") == "training"] == [1, 2]
    assert told[-1]["name"] == "toy-pruned-50"
    assert told[-1]["sparsity"] == 0.5
    code, out, err = run(
        "distill", "toy", "--keep", "2", "--text", "text.txt", *TRAINED, "--into", "small"
    )
    assert (code, out) == (DONE, "made small\n")
    assert "training" in err  # the bar
    assert read_source(world / "small").architecture.layers == 2


def test_a_report_is_written_three_ways(run, world) -> None:
    how = ("--text", "text.txt", "--tokens", "16", "--out", "report", "--no-speed")
    code, out, _ = run("report", "toy", "toy", *how)

    assert code == DONE
    assert (world / "report" / "report.md").read_text() in out
    rows = json.loads((world / "report" / "report.json").read_text())["variants"]
    assert [row["agreement"] for row in rows] == [1.0, 1.0]
    ET.parse(world / "report" / "report.svg")


@pytest.mark.parametrize(
    ("words", "code", "fault"),
    [
        (("quantize", "nobody", "--precision", "bf16"), REFUSED, "MODEL"),
        (("quantize", "toy", "--precision", "fp8-dynamic"), UNAVAILABLE, "NEEDS_GPU"),
        (("quantize", "./toy", "--precision", "bf16"), REFUSED, "NO_MANIFEST"),
        (("quantize", "toy", "--precision", "bf16", "--into", "toy"), REFUSED, "EXISTS"),
        (("quantize", "toy", "--precision", "int4", "--group", "7"), REFUSED, "GROUPS"),
        (("prune", "toy", "--sparsity", "0.5", "--text", "none.txt"), REFUSED, "TOO_LITTLE_TEXT"),
        (("prune", "toy", "--sparsity", "2", "--text", "text.txt", *TRAINED), REFUSED, "SPARSITY"),
        (("distill", "toy", "--keep", "9", "--text", "text.txt", *TRAINED), REFUSED, "NO_LAYERS"),
    ],
)
def test_what_cannot_be_done_is_told_and_leaves_nothing(run, world, words, code, fault) -> None:
    before = sorted(path.name for path in world.rglob("*"))
    given = (*words, "--json") if "--device" in words else (*words, "--device", "cpu", "--json")
    found, out, _ = run(*given)

    assert (found, lines(out)[-1]) == (code, {"error": fault})
    assert sorted(path.name for path in world.rglob("*")) == before
