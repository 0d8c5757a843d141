"""Variants of a toy model: made, written, read back, served, pruned, taught, measured."""

import errno
import json
import math
import os
import resource
import signal
import struct
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch.nn import functional

from inference.architecture import Architecture
from inference.checkpoint import architecture_of, load_checkpoint
from inference.engines.llama import Llama
from inference.precision import files, making
from inference.precision.corpus import order_of, read_corpus, split
from inference.precision.distilling import Distilling, distilling_loss, layers_kept, student_of
from inference.precision.faults import Fault, PrecisionError
from inference.precision.making import Making, device_of, distil, prune, quantised_variant
from inference.precision.measure import accuracy_of, bytes_in_memory, speed_of
from inference.precision.network import Cache, Network, network_of
from inference.precision.picture import picture
from inference.precision.pruning import kept_of
from inference.precision.report import markdown, report_json
from inference.precision.reporting import Measuring, measured
from inference.precision.schemes import Precision, quantise
from inference.precision.source import Source, read_source
from inference.precision.training import Training, train
from inference.precision.variant import write_variant
from inference.safetensors_file import read_json, read_tensors
from inference.weights import interleaved
from tests.inference.toys import tokenizer_told

ARCH = Architecture(
    layers=4, width=64, hidden=96, heads=4, kv_heads=2, head=16, vocabulary=320,
    context_tokens=256, rope_base=10_000.0, norm_epsilon=1e-5,
)  # fmt: skip
ARCH_OF_SMOLLM = Architecture(
    layers=30, width=576, hidden=1536, heads=9, kv_heads=3, head=64, vocabulary=49_152,
    context_tokens=8_192, rope_base=100_000.0, norm_epsilon=9.999999747378752e-06,  # 1e-5 in fp32
)  # fmt: skip
CPU = torch.device("cpu")
QUANTISED = [Precision.INT8_WEIGHT, Precision.INT8_DYNAMIC, Precision.INT4, Precision.FP8_WEIGHT]
NEAR = {Precision.INT8_WEIGHT: 0.08, Precision.INT8_DYNAMIC: 0.1, Precision.INT4: 0.6}
NEAR |= {Precision.FP8_WEIGHT: 0.2}
"""How far logits may be from fp32's, as a share of their length; bf16 alone costs 0.04."""


def toy(arch: Architecture = ARCH, *, seed: int = 0) -> Source:
    torch.manual_seed(seed)
    network = Network(arch)
    for weight in network.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, 0, 0.15)
    state = {name: tensor.detach() for name, tensor in network.state_dict().items()}
    return Source(
        architecture=arch, state=state, tokenizer=json.dumps(tokenizer_told()),
        template="t", precision=Precision.FP32, ends=(2,),
    )  # fmt: skip


@pytest.fixture(scope="module")
def source() -> Source:
    return toy()


@pytest.fixture(scope="module")
def text() -> torch.Tensor:
    """Stretches with something to learn: each token names the next, most of the time."""
    draw = torch.Generator().manual_seed(1)
    rows = [torch.randint(0, 320, (16, 1), generator=draw)]
    for _ in range(31):
        rows.append((rows[-1] * 7 + 3) % 320)
    return torch.cat(rows, dim=1)


def made(target: Path, **changes) -> Making:
    return Making(target=target, base="ab" * 32, device=CPU, **changes)


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def apart(found: torch.Tensor, want: torch.Tensor) -> float:
    return float((found.float() - want).norm() / want.norm())


@contextmanager
def refused(fault: Fault):
    with pytest.raises(PrecisionError) as caught:
        yield
    assert caught.value.fault is fault
    assert str(caught.value) == fault.value


# --- the forward pass -----------------------------------------------------------------------


@torch.no_grad()
def test_the_network_computes_what_the_engine_computes(source, tmp_path, text) -> None:
    write_variant(tmp_path / "v", source.network(), source, precision=Precision.FP32, about={})
    config = architecture_of(read_json(tmp_path / "v" / "config.json"))
    weights = load_checkpoint(config, read_tensors([tmp_path / "v" / "model.safetensors"]))
    engine = Llama(weights, slots=1, context_tokens=64)

    found = engine.prefill(text[0].tolist(), slot=0, start=0)

    assert torch.allclose(found, source.network()(text[:1])[0, -1], atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"qkv_bias": True}, {"qk_norm": True, "tied": False}])
def test_reading_step_by_step_is_reading_at_once(text, changes) -> None:
    network = toy(replace(ARCH, **changes)).network()
    whole = network(text[:2])
    cache = Cache.empty(network.arch, batch=2, room=40, device=CPU, dtype=torch.float32)
    network(text[:2, :20], cache=cache)
    for at in range(20, 32):
        step = network(text[:2, at : at + 1], cache=cache, positions=torch.tensor([at]))
        assert torch.allclose(step[:, 0], whole[:, at], atol=1e-4)


def test_a_gguf_file_s_weights_are_those_of_the_engine(model_path, file_weights) -> None:
    source = read_source(model_path)
    last = file_weights.layers[-1]
    at = f"model.layers.{ARCH_OF_SMOLLM.layers - 1}."
    q, k = (source.state[f"{at}self_attn.{name}_proj.weight"] for name in "qk")
    turned = interleaved(torch.cat([q, k]), ARCH_OF_SMOLLM.head)

    assert source.architecture == file_weights.architecture == ARCH_OF_SMOLLM
    assert torch.equal(turned, last.qkv.dequantised()[: len(turned)])
    assert torch.equal(source.state[f"{at}mlp.down_proj.weight"], last.down.dequantised())
    embedding = source.state["model.embed_tokens.weight"]
    assert torch.equal(embedding, file_weights.embedding.dequantised())
    words = source.encoder().encode("Paris, 12", add_special_tokens=False)
    assert words.tokens == ["Paris", ",", "Ġ", "1", "2"]


# --- precisions -----------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("precision", QUANTISED)
def test_what_is_quantised_saved_and_loaded_answers_alike(source, text, tmp_path, precision):
    want = source.network()(text)
    quantised_variant(source, made(tmp_path / "v"), precision=precision)
    back = read_source(tmp_path / "v")
    found = back.network()(text)

    assert 0 < apart(found, want) < NEAR[precision]
    assert torch.equal(found, quantise(source.network(), precision)(text))
    assert back.precision is precision
    assert (back.architecture, back.template, back.ends) == (ARCH, "t", (2,))


@torch.no_grad()
@pytest.mark.parametrize("precision", [Precision.BF16, Precision.FP16, *QUANTISED])
def test_the_engine_serves_every_variant_from_its_codes(source, text, tmp_path, precision) -> None:
    quantised_variant(source, made(tmp_path / "v"), precision=precision)
    arch = architecture_of(read_json(tmp_path / "v" / "config.json"))
    weights = load_checkpoint(arch, read_tensors([tmp_path / "v" / "model.safetensors"]))
    engine = Llama(weights, slots=1, context_tokens=64)
    want = read_source(tmp_path / "v").network()(text[:1])[0, -1]

    assert apart(engine.prefill(text[0].tolist(), slot=0, start=0), want.float()) < 0.06


def test_int4_takes_half_a_byte_a_weight_and_says_so(source, tmp_path) -> None:
    quantised_variant(source, made(tmp_path / "v"), precision=Precision.INT4)
    with safe_open(tmp_path / "v" / "model.safetensors", framework="pt") as file:
        codes = file.get_tensor("model.layers.0.mlp.down_proj._weight_qdata")
        metadata = file.metadata()

    assert (codes.dtype, tuple(codes.shape)) == (torch.uint8, (64, 48))
    assert metadata["sealgate.precision"] == "int4"
    assert metadata["sealgate.base"] == "ab" * 32


def test_nibbles_are_packed_without_loss() -> None:
    codes = torch.arange(-8, 8, dtype=torch.int8).repeat(3, 2)

    assert torch.equal(files._unpacked(files._packed(codes)), codes)


def test_a_quantised_network_takes_less_memory(source) -> None:
    every = (Precision.BF16, *QUANTISED)
    sizes = {one: bytes_in_memory(quantise(source.network(), one)) for one in every}

    assert max(sizes, key=sizes.get) is Precision.BF16


@pytest.mark.parametrize("name", ["", "int5", "INT4"])
def test_an_unknown_precision_is_refused(name) -> None:
    with refused(Fault.UNKNOWN_PRECISION):
        Precision.named(name)


def test_what_cannot_be_quantised_is_refused_and_leaves_nothing(source, tmp_path) -> None:
    with refused(Fault.GROUPS):
        quantised_variant(source, made(tmp_path / "v"), precision=Precision.INT4, group=40)
    with refused(Fault.NEEDS_GPU):
        quantised_variant(source, made(tmp_path / "v"), precision=Precision.FP8_DYNAMIC)
    quantised_variant(source, made(tmp_path / "i8"), precision=Precision.INT8_WEIGHT)
    with refused(Fault.ALREADY_QUANTISED):
        quantised_variant(
            read_source(tmp_path / "i8"), made(tmp_path / "v"), precision=Precision.INT4
        )
    with refused(Fault.EXISTS):
        quantised_variant(source, made(tmp_path / "i8"), precision=Precision.BF16)

    assert [path.name for path in tmp_path.iterdir()] == ["i8"]


def test_no_gpu_is_told() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with refused(Fault.NO_DEVICE):
        device_of("cuda")


# --- bad models -----------------------------------------------------------------------------


def written(folder: Path, source: Source) -> Path:
    write_variant(folder, source.network(), source, precision=Precision.FP32, about={})
    return folder


def changed(folder: Path, **changes) -> None:
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))


def test_bad_models_are_refused(source, tmp_path) -> None:
    with refused(Fault.NOT_A_MODEL):
        read_source(tmp_path / "nothing")
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0))
    with refused(Fault.NOT_LLAMA):
        read_source(tmp_path / "x.gguf")
    (tmp_path / "y.gguf").write_bytes(b"nothing of the kind")
    with refused(Fault.NOT_A_MODEL):
        read_source(tmp_path / "y.gguf")
    changed(written(tmp_path / "bert", source), model_type="bert")
    with refused(Fault.NOT_LLAMA):
        read_source(tmp_path / "bert")
    changed(written(tmp_path / "wide", source), hidden_size=128)
    with refused(Fault.DAMAGED):
        read_source(tmp_path / "wide").network()
    cut = written(tmp_path / "cut", source) / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-1])
    with refused(Fault.NOT_A_MODEL):
        read_source(tmp_path / "cut")


def test_weights_that_are_no_numbers_are_refused(source, tmp_path) -> None:
    state = {name: tensor.clone() for name, tensor in source.state.items()}
    state["model.layers.1.mlp.up_proj.weight"][3, 5] = math.nan
    written(tmp_path / "v", replace(source, state=state))
    with refused(Fault.NOT_FINITE):
        read_source(tmp_path / "v")


def test_a_variant_whose_description_lies_is_refused(source, tmp_path) -> None:
    quantised_variant(source, made(tmp_path / "v"), precision=Precision.INT8_WEIGHT)
    path = tmp_path / "v" / "model.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata, names = file.metadata(), list(file.keys())
        tensors = {name: file.get_tensor(name).clone() for name in names}  # not mapped
    name = "model.layers.0.mlp.up_proj.weight"
    told = json.loads(metadata[name]) | {"_type": "os.system"}
    files.write_tensors(path, tensors, metadata | {name: json.dumps(told)})
    with refused(Fault.DAMAGED):
        read_source(tmp_path / "v")


# --- the disk -------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_told_and_leaves_nothing(source, tmp_path, monkeypatch, error) -> None:
    def full(path, tensors, metadata):
        path.write_bytes(b"half")
        raise OSError(error, "")

    monkeypatch.setattr("inference.precision.variant.write_tensors", full)
    with refused(Fault.DISK_FULL):
        quantised_variant(source, made(tmp_path / "v"), precision=Precision.BF16)

    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_cannot_hold_it_is_told_before_the_work(source, tmp_path, monkeypatch) -> None:
    class Usage:
        free = 1_000

    monkeypatch.setattr(making.shutil, "disk_usage", lambda _: Usage)
    with refused(Fault.DISK_FULL):
        quantised_variant(source, made(tmp_path / "v"), precision=Precision.BF16)


def test_a_really_full_disk_is_told_and_leaves_nothing(source, tmp_path) -> None:
    """Full after 64 KiB of any file, as far as this process can tell."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, before[1]))
    try:
        with refused(Fault.DISK_FULL):
            quantised_variant(source, made(tmp_path / "v"), precision=Precision.BF16)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert list(tmp_path.iterdir()) == []


# --- text -----------------------------------------------------------------------------------


def test_each_tenth_file_is_held_out_and_never_trained_on(source, tmp_path) -> None:
    for number in range(20):
        letter = chr(ord("a") + number)
        (tmp_path / f"{number:02}.txt").write_text(letter * 200)
    corpus = read_corpus(
        [tmp_path], source.encoder(), tokens=16, train_stretches=72, held_out_stretches=9
    )
    trained, held_out = (set(rows.unique().tolist()) for rows in (corpus.train, corpus.held_out))

    assert (len(trained), len(held_out)) == (18, 2)
    assert not trained & held_out
    assert corpus.train.shape == (72, 16)
    assert corpus.held_out.shape == (9, 16)


def test_a_single_file_s_end_is_held_out() -> None:
    assert split(["x" * 90 + "y" * 10]) == (["x" * 90], ["y" * 10])


def test_too_little_text_and_what_is_no_text_are_refused(source, tmp_path) -> None:
    limits = {"tokens": 16, "train_stretches": 1, "held_out_stretches": 1}
    with refused(Fault.TOO_LITTLE_TEXT):
        read_corpus([tmp_path], source.encoder(), **limits)
    (tmp_path / "a.txt").write_text("")
    with refused(Fault.TOO_LITTLE_TEXT):
        read_corpus([tmp_path], source.encoder(), **limits)
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with refused(Fault.NOT_TEXT):
        read_corpus([tmp_path], source.encoder(), **limits)


def test_batches_go_through_all_of_the_text_before_any_comes_again() -> None:
    first = torch.cat(list(islice(order_of(10, batch=5, seed=3), 2)))

    assert sorted(first.tolist()) == list(range(10))
    assert torch.equal(first, torch.cat(list(islice(order_of(10, batch=5, seed=3), 2))))
    assert not torch.equal(first, torch.cat(list(islice(order_of(10, batch=5, seed=4), 2))))


# --- pruning --------------------------------------------------------------------------------


@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.5, 0.75])
def test_pruning_leaves_out_exactly_what_is_asked_and_the_smallest(source, sparsity) -> None:
    weight = source.state["model.layers.0.mlp.up_proj.weight"]
    kept = kept_of(weight, sparsity=sparsity, pattern="row")

    assert torch.equal((~kept).sum(1), torch.full((96,), round(64 * sparsity)))
    for row, marks in zip(weight.abs(), kept, strict=True):
        assert row[~marks].numel() == 0 or row[~marks].max() <= row[marks].min()


def test_two_of_four_neighbours_stay(source) -> None:
    kept = kept_of(source.state["model.layers.0.mlp.up_proj.weight"], sparsity=0.5, pattern="2:4")

    assert torch.equal(kept.view(-1, 4).sum(1), torch.full((96 * 16,), 2))


def test_pruning_stays_through_recovery_which_pays(source, text, tmp_path) -> None:
    training = Training(steps=12, batch=8, rate=3e-3, rise_steps=2)
    prune(source, text, made(tmp_path / "bare"), replace(training, steps=0), sparsity=0.5)
    told = []
    prune(source, text, made(tmp_path / "v", heard=told.append), training, sparsity=0.5)
    bare, back = read_source(tmp_path / "bare"), read_source(tmp_path / "v")
    original = source.network()

    for name, matrix in back.network().matrices.items():
        zeros = matrix.weight == 0
        assert torch.equal(zeros.sum(1), torch.full((len(zeros),), zeros.shape[1] // 2)), name
        assert torch.equal(zeros, bare.state[f"{name}.weight"] == 0)
    before, after = (
        accuracy_of(one.network().float(), original, text, batch=8) for one in (bare, back)
    )
    assert after.perplexity < before.perplexity / 2
    assert [one.done for one in told if one.stage == "training"] == list(range(1, 13))
    assert same(source.state, toy().state)  # what was learned from is as it was


@pytest.mark.parametrize(("sparsity", "pattern"), [(1.0, "row"), (-0.1, "row"), (0.4, "2:4")])
def test_an_impossible_share_is_refused(source, text, tmp_path, sparsity, pattern) -> None:
    training = Training(steps=1)
    with refused(Fault.SPARSITY):
        prune(source, text, made(tmp_path / "v"), training, sparsity=sparsity, pattern=pattern)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Training(steps=-1),
        lambda: Training(steps=1, batch=0),
        lambda: Training(steps=1, rate=0.0),
        lambda: Training(steps=1, rate=float("nan")),
        lambda: Training(steps=1, rate=float("inf")),
        lambda: Training(steps=1, seed=1 << 64),
        lambda: Distilling(temperature=0.0),
        lambda: Distilling(temperature=float("nan")),
        lambda: Distilling(share=1.5),
        lambda: Measuring(text=torch.zeros(1, 2), device=CPU, batch=-1),
        lambda: Measuring(text=torch.zeros(1, 2), device=CPU, decode_steps=-1),
        lambda: read_corpus([], None, tokens=1, train_stretches=1, held_out_stretches=0),
    ],
)
def test_a_number_outside_its_range_is_refused_before_any_work(wrong) -> None:
    with refused(Fault.NUMBER):
        wrong()


def test_no_memory_on_a_cpu_is_told(source, text) -> None:
    """As PyTorch itself says it: nothing has so much."""
    network = source.network().float()

    def greedy(_):
        return torch.empty(1 << 50).sum()

    with refused(Fault.OUT_OF_MEMORY):
        train(network, text, greedy, Training(steps=1, batch=2), about="a")
    network.forward = greedy
    with refused(Fault.OUT_OF_MEMORY):
        accuracy_of(network, source.network().float(), text, batch=2)


# --- distillation ---------------------------------------------------------------------------


def test_layers_are_kept_evenly_with_both_ends() -> None:
    assert layers_kept(30, 15)[:3] == (0, 2, 4)
    assert layers_kept(30, 15)[-1] == 29
    assert layers_kept(4, 1) == (0,)
    for keep in (0, 4, 5):
        with refused(Fault.NO_LAYERS):
            layers_kept(4, keep)


def test_a_student_comes_nearer_to_its_teacher(source, text, tmp_path) -> None:
    training = Training(steps=15, batch=8, rate=3e-3, rise_steps=2)
    how = Distilling(temperature=2.0, share=1.0)
    untrained = replace(training, steps=0)
    distil(source, text, made(tmp_path / "bare"), untrained, keep=2, distilling=how)
    distil(source, text, made(tmp_path / "v"), training, keep=2, distilling=how)
    before, after = (
        accuracy_of(read_source(tmp_path / name).network().float(), source.network(), text, batch=8)
        for name in ("bare", "v")
    )

    assert read_source(tmp_path / "v").architecture == replace(ARCH, layers=2)
    assert after.divergence < before.divergence / 2
    assert same(source.state, toy().state)


@torch.no_grad()
def test_a_perfect_student_loses_only_what_the_text_says(source, text) -> None:
    network = source.network()
    truth = functional.cross_entropy(network(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())

    assert float(distilling_loss(network, network, Distilling(2.0, 1.0))(text)) < 1e-5
    half = float(distilling_loss(network, network, Distilling(2.0, 0.5))(text))
    assert half == pytest.approx(0.5 * float(truth), rel=1e-4)


@torch.no_grad()
def test_a_student_s_loss_is_hinton_s(source, text) -> None:
    teacher, student = source.network(), toy(seed=2).network()
    p, q = ((one(text[:, :-1]) / 3).log_softmax(-1).flatten(0, 1) for one in (teacher, student))
    want = 9 * (p.exp() * (p - q)).sum(-1).mean()

    found = distilling_loss(student, teacher, Distilling(temperature=3.0, share=1.0))(text)

    assert float(found) == pytest.approx(float(want), rel=1e-4)


def test_a_student_s_tensors_are_its_own(source) -> None:
    teacher = source.network()
    student = student_of(teacher, 3)
    with torch.no_grad():
        for weight in student.parameters():
            weight.zero_()

    assert same(teacher.state_dict(), toy().state)


# --- training -------------------------------------------------------------------------------


def learning(source: Source) -> Network:
    return network_of(ARCH, {name: tensor.clone() for name, tensor in source.state.items()})


def loss_of(network: Network):
    def loss(ids):
        logits = network(ids[:, :-1])
        return functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())

    return loss


def test_a_run_that_was_interrupted_ends_as_one_that_was_not(source, text, tmp_path) -> None:
    training = Training(steps=6, batch=4, rate=1e-3, rise_steps=2, keep_every=2)
    whole = learning(source)
    train(whole, text, loss_of(whole), training, about="a")

    seen = []

    def interrupted(ids):
        seen.append(ids)
        if len(seen) == 3:  # in the midst of a step
            os.kill(os.getpid(), signal.SIGINT)
        return loss_of(cut)(ids)

    checkpoint = tmp_path / "state"
    cut = learning(source)
    with pytest.raises(KeyboardInterrupt):
        train(cut, text, interrupted, training, about="a", checkpoint=checkpoint)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
    steps = []
    resumed = learning(source)
    train(
        resumed, text, loss_of(resumed), training, about="a", checkpoint=checkpoint,
        told=lambda step, _: steps.append(step),
    )  # fmt: skip

    assert steps == [4, 5, 6]
    assert same(resumed.state_dict(), whole.state_dict())
    assert list(tmp_path.iterdir()) == []


def test_another_run_is_not_resumed(source, text, tmp_path) -> None:
    training = Training(steps=2, batch=2, keep_every=1)

    def stop(step, loss):
        if step == 2:
            raise KeyboardInterrupt

    checkpoint = tmp_path / "state"
    network = learning(source)
    with pytest.raises(KeyboardInterrupt):
        train(
            network, text, loss_of(network), training, about="a", checkpoint=checkpoint, told=stop
        )
    for changed_training, about in ((replace(training, seed=1), "a"), (training, "b")):
        with refused(Fault.OTHER_RUN):
            train(
                network, text, loss_of(network), changed_training, about=about,
                checkpoint=checkpoint,
            )  # fmt: skip


def test_a_loss_that_is_no_number_ends_the_run(source, text) -> None:
    network = learning(source)

    def bad(ids):
        return network(ids).sum() * math.nan

    with refused(Fault.DIVERGED):
        train(network, text, bad, Training(steps=1, batch=2), about="a")


def test_the_rate_rises_and_falls() -> None:
    training = Training(steps=100, rate=1.0, rise_steps=10)
    rates = [training.rate_at(step) for step in range(100)]

    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.1, abs=0.01)


# --- the report -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows(source, text):
    measuring = Measuring(text=text, device=CPU, batch=5, decode_steps=2, prefill_batch=2)
    original = source.network()
    int8 = quantise(source.network(), Precision.INT8_WEIGHT)
    eight = replace(source, state=int8.state_dict(), precision=Precision.INT8_WEIGHT)
    return [
        measured("original", source, original, measuring, file_bytes=4_000_000),
        measured("<int8>", eight, original, measuring, file_bytes=1_000_000),
    ]


def test_a_model_agrees_with_itself(rows) -> None:
    assert rows[0].agreement == 1.0
    assert rows[0].divergence == pytest.approx(0.0, abs=1e-6)
    assert rows[0].against(rows[0]) == 0.0
    assert 0.5 < rows[1].agreement < 1.0
    assert rows[1].divergence > 1e-5
    assert all(row.decode_per_s > 0 and row.prefill_per_s > 0 for row in rows)


@torch.no_grad()
def test_figures_are_those_of_the_text_books(source, text) -> None:
    network, other = source.network(), toy(seed=2).network()
    found = accuracy_of(other, network, text, batch=3)
    ours, theirs = (one(text[:, :-1]).log_softmax(-1).flatten(0, 1) for one in (other, network))
    truth = text[:, 1:].flatten()
    loss = -ours[torch.arange(len(truth)), truth].mean()
    apart_ = (theirs.exp() * (theirs - ours)).sum(-1).mean()

    assert found.perplexity == pytest.approx(float(loss.exp()), rel=1e-4)
    assert found.divergence == pytest.approx(float(apart_), rel=1e-4)
    assert found.agreement == float((ours.argmax(-1) == theirs.argmax(-1)).double().mean())
    assert found.positions == 16 * 31


def test_a_variant_of_another_vocabulary_is_refused(source, text) -> None:
    other = toy(replace(ARCH, vocabulary=330))
    measuring = Measuring(text=text, device=CPU, decode_steps=0)
    with refused(Fault.OTHER_VOCABULARY):
        measured("x", other, source.network(), measuring, file_bytes=0)
    with refused(Fault.TOO_LITTLE_TEXT):
        accuracy_of(source.network(), source.network(), text[:0], batch=1)


def test_the_report_is_told_three_ways(rows) -> None:
    import xml.etree.ElementTree as ET

    about = {"device": "CPU", "torch": "x"}
    table, told = markdown(rows, about), report_json(rows, about)
    drawn = ET.fromstring(picture(rows, "a < b"))

    assert "| original |" in table
    assert "| 100.0% |" in table
    assert "device CPU, torch x" in table
    assert told["variants"][1]["perplexity_rise"] == rows[1].against(rows[0])
    assert json.loads(json.dumps(told)) == told
    bars = drawn.findall("{http://www.w3.org/2000/svg}rect")
    assert len(bars) == 1 + 3 * len(rows)
    assert "<int8>" in [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")]


def test_speed_says_what_ran(source, text) -> None:
    assert speed_of(source.network(), text, batch=2, steps=1).how == "as torchao has it"


def test_what_cannot_do_a_single_row_is_timed_reading(source, text, monkeypatch) -> None:
    from inference.precision import measure

    def step(fault) -> None:
        raise fault

    fault = RuntimeError("self.size(0) needs to be greater than 16")
    monkeypatch.setattr(measure, "_decoding", lambda *_: partial(step, fault))
    told = speed_of(source.network(), text, batch=2, steps=1)
    assert told.decode_per_s == 0
    assert told.prefill_per_s > 0
    assert told.how == "as torchao has it, no single row"


@pytest.mark.parametrize(
    ("fault", "wanted"),
    [
        (torch.OutOfMemoryError(), PrecisionError),
        (RuntimeError("CUDA error: out of memory"), PrecisionError),
        (RuntimeError("another fault"), RuntimeError),
    ],
)
def test_another_fault_of_a_step_is_not_taken_for_a_single_row(
    source, text, monkeypatch, fault, wanted
) -> None:
    from inference.precision import measure

    def step() -> None:
        raise fault

    monkeypatch.setattr(measure, "_decoding", lambda *_: step)
    with pytest.raises(wanted) as told:
        speed_of(source.network(), text, batch=2, steps=1)
    assert wanted is RuntimeError or told.value.fault is Fault.OUT_OF_MEMORY


def test_what_cannot_is_told_from_what_was_not_timed(rows) -> None:
    row = replace(rows[1], prefill_per_s=9_000.0, decode_per_s=0.0, timed="compiled")
    assert "| 9,000 | cannot | compiled |" in markdown([rows[0], row], {})
    row = replace(row, prefill_per_s=0.0, timed="")
    assert "| not timed | not timed |  |" in markdown([rows[0], row], {})
