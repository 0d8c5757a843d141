"""Vectors: MiniLM out of its package, the same bits in any company, governed as prompts are."""

import asyncio
import json
import os
import threading
from pathlib import Path

import pytest
import pytest_asyncio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from structlog.testing import capture_logs

from inference.embedding import Embedders, embedders_of
from inference.encoder import Encoder, WordPieces
from inference.engines.embedding import load_embedder
from inference.engines.settings import EmbeddingLimits
from inference.model_notes import models_noted
from inference.registry import ModelFileError
from inference.safetensors_file import read_json
from inference.service import InferenceService
from inference.store.errors import Fault
from inference.store.manifest import Manifest
from inference.store.store import ModelStore
from meshkit.contract import Message, Parameters, Reason, Refusal, Role
from meshkit.screening_mac import mac_verifier
from tests.inference.toys import opened

MODEL = "all-minilm-l6-v2"
MODELS = Path(os.environ.get("SEALGATE_MODELS_DIR", Path(__file__).parents[2] / "var" / "models"))
LIMITS = EmbeddingLimits(model=MODEL, texts_max=8, text_characters_max=2_000, batch_tokens=48)
# Two ways to say each of a few things; none shares its words with another.
PAIRS = [
    ("How do I reset my password?", "I forgot my login credentials, what now?"),
    ("A cat sat on the mat.", "The feline rested on a rug."),
    ("Quarterly revenue rose by a tenth.", "Sales grew 10% in the last three months."),
    ("The patient complains of chest pain.", "He reports an ache around his heart."),
    ("When does the shop open tomorrow?", "What are your business hours in the morning?"),
    ("The flight was delayed by fog.", "Bad visibility made our plane late."),
    ("He was dismissed from his job.", "They fired him."),
    ("Mix flour, eggs and milk.", "Stir the ingredients of the pancake batter."),
]
texts = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=60)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def engine():
    with ModelStore(MODELS).open(MODEL) as files:
        engine = load_embedder(files, LIMITS, threads=1)
    engine.start()
    yield engine
    await engine.close()


@pytest.fixture(scope="module")
def pieces():
    return WordPieces(read_json(MODELS / "minilm" / "tokenizer.json"), vocabulary=30_522)


def vectors(engine, said):
    return torch.tensor(asyncio.run(engine.embed(said)).vectors)


def test_what_means_the_same_is_nearer_than_what_does_not(engine) -> None:
    first = vectors(engine, [one for one, _ in PAIRS])
    second = vectors(engine, [other for _, other in PAIRS])
    likeness = first @ second.T

    assert likeness.argmax(1).tolist() == likeness.argmax(0).tolist() == list(range(len(PAIRS)))
    strangers = likeness[~torch.eye(len(PAIRS), dtype=torch.bool)]
    assert likeness.diagonal().mean() > strangers.mean() + 0.35
    assert torch.allclose(first.norm(dim=1), torch.ones(len(PAIRS)), atol=1e-6)


def test_vectors_are_those_of_transformers(engine, pieces) -> None:
    from transformers import BertModel, utils

    utils.logging.disable_progress_bar()
    model = BertModel.from_pretrained(MODELS / "minilm").eval()
    text = PAIRS[3][0]
    with torch.no_grad():
        rows = model(torch.tensor([pieces.encode(text)])).last_hidden_state[0]
    want = torch.nn.functional.normalize(rows.mean(0), dim=0)

    assert torch.allclose(vectors(engine, [text])[0], want, atol=1e-6)


def test_text_becomes_the_ids_of_the_tokenizer_it_came_with(pieces) -> None:
    from tokenizers import Tokenizer

    theirs = Tokenizer.from_file(str(MODELS / "minilm" / "tokenizer.json"))
    theirs.no_padding()
    for text in (
        "Crème brûlée, 漢字 & 3.14!",
        "x" * 150,
        *(text for pair in PAIRS for text in pair),
    ):
        assert pieces.encode(text) == theirs.encode(text).ids
    assert (
        pieces.encode("[SEP] [CLS] [MASK]")[1:-1] == pieces.encode("[ sep ] [ cls ] [ mask ]")[1:-1]
    )


@settings(max_examples=15, deadline=None)
@given(said=st.lists(texts, min_size=2, max_size=8), data=st.data())
def test_a_text_has_the_same_bits_alone_and_in_any_batch(engine, said, data) -> None:
    together = vectors(engine, said)
    at = data.draw(st.integers(0, len(said) - 1))

    assert torch.equal(vectors(engine, [said[at]])[0], together[at])
    assert torch.equal(vectors(engine, said[::-1]), together.flip(0))


BAD_TEXTS = {
    "none": [],
    "too many": ["a"] * 9,
    "an empty one": ["a", ""],
    "too many characters": ["a " * 1_001],
    "too many tokens": ["a " * 300],
}


@pytest.mark.parametrize("fault", BAD_TEXTS)
async def test_texts_beyond_the_limits_are_refused_and_the_next_call_works(engine, fault) -> None:
    with pytest.raises(Refusal) as caught:
        await engine.embed(BAD_TEXTS[fault])

    assert (caught.value.reason, caught.value.field) == (Reason.INVALID_FIELD, "messages")
    assert len((await engine.embed(["a"])).vectors) == 1


async def test_too_many_calls_are_turned_away(engine) -> None:
    calls = [asyncio.create_task(engine.embed(["word"])) for _ in range(40)]
    told = await asyncio.gather(*calls, return_exceptions=True)
    refused = [one for one in told if isinstance(one, Refusal)]

    assert {one.reason for one in refused} == {Reason.OVERLOADED}
    assert len(refused) == 40 - LIMITS.waiting_max - 1
    assert all(one.retry_after_ms for one in refused)


async def test_a_caller_that_goes_away_stops_the_work(engine, monkeypatch) -> None:
    batches, left = [], threading.Event()
    run = engine._encoder.vectors

    def noted(batch):
        batches.append(batch)
        left.wait(60)
        return run(batch)

    monkeypatch.setattr(engine._encoder, "vectors", noted)
    call = asyncio.create_task(engine.embed(["word " * 200] * 8))  # a batch each
    while not batches:
        await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    left.set()
    await engine.embed(["next"])

    assert len(batches) == 2


async def test_numbers_that_are_none_are_the_models_fault(engine, monkeypatch) -> None:
    monkeypatch.setattr(engine._encoder, "vectors", lambda _: torch.tensor([[torch.nan]]))
    with pytest.raises(Refusal) as caught:
        await engine.embed(["a"])

    assert caught.value.reason is Reason.INFERENCE_DOWN


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (MemoryError("canary"), Reason.OVERLOADED),
        (RuntimeError("can't allocate memory: canary"), Reason.OVERLOADED),
        (RuntimeError("Triton Error [CUDA]: out of memory"), Reason.OVERLOADED),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), Reason.OVERLOADED),
        (RuntimeError("canary"), Reason.INFERENCE_DOWN),
        (IndexError("canary"), Reason.INFERENCE_DOWN),
        (TypeError("canary"), Reason.INFERENCE_DOWN),
        (OSError("canary"), Reason.INFERENCE_DOWN),
        (SystemExit("canary"), Reason.INFERENCE_DOWN),
    ],
)
async def test_what_fails_in_the_model_is_told_and_the_next_call_works(
    engine, monkeypatch, fault, reason
) -> None:
    def fails(batch):
        raise fault

    with monkeypatch.context() as patched, capture_logs() as logs:
        patched.setattr(engine._encoder, "vectors", fails)
        with pytest.raises(Refusal) as caught:
            await engine.embed(["a"])

    assert caught.value.reason is reason
    assert bool(caught.value.retry_after_ms) == (reason is Reason.OVERLOADED)
    assert logs
    assert "canary" not in str(logs)
    assert len((await engine.embed(["a"])).vectors) == 1


# --- through the service ------------------------------------------------------------------------


@pytest.fixture
def service(engine, request):
    keys = request.getfixturevalue("mac_keys")
    return InferenceService(verify=mac_verifier(lambda: keys), embedders=Embedders((engine,)))


def said(*contents, role=Role.USER):
    return tuple(Message(role, content) for content in contents)


async def test_the_service_embeds_what_compliance_let_in(service, make_screened, scope) -> None:
    told = await service.embed(scope, MODEL, make_screened(said("One.", "Two.")))

    assert [len(vector) for vector in told.vectors] == [384, 384]
    assert told.usage.prompt_tokens == 8
    assert await service.models() == ()  # nobody may chat with it


async def test_loading_and_unloading_are_events_and_the_manifest_is_archived(service) -> None:
    journal = Journal()
    with models_noted(journal, service.desk, embedding=service.embedding_models):
        ((action, loaded),) = journal.notes
    assert (action, loaded["model"]) == ("model.load", MODEL)
    assert journal.kept[0].digest.hex() == loaded["digest"]
    assert Manifest.parse(journal.kept[0].content).kind == "embedding"
    assert journal.notes[1] == ("model.unload", loaded)


class Journal:
    """As much of `meshkit.journal.Journal` as notes need."""

    def __init__(self) -> None:
        self.kept, self.notes = [], []

    def keep(self, *documents) -> None:
        self.kept += documents

    def note(self, action, *, detail, **_) -> None:
        self.notes.append((action, detail))


async def test_what_was_not_screened_is_not_embedded(service, make_screened, scope) -> None:
    from dataclasses import replace

    good = make_screened(said("One.", "Two."))
    for bad in (
        replace(good, messages=said("One.", "Three.")),
        replace(good, messages=said("Two.", "One.")),
        replace(good, messages=said("One.")),
        replace(good, mac=bytes(32)),
        make_screened(said("One.", role=Role.SYSTEM)),
    ):
        with pytest.raises(Refusal) as caught:
            await service.embed(scope, MODEL, bad)
        assert (caught.value.reason, caught.value.field) == (Reason.INVALID_FIELD, "messages")
    with pytest.raises(Refusal) as caught:
        await service.embed(replace(scope, tenant="other"), MODEL, good)
    assert caught.value.reason is Reason.INVALID_FIELD


async def test_chat_and_embedding_models_are_not_taken_for_one_another(
    service, make_screened, scope
) -> None:
    with pytest.raises(Refusal) as caught:
        await service.embed(scope, "smollm2-135m-instruct", make_screened(said("One.")))
    assert caught.value.reason is Reason.NOT_FOUND
    with pytest.raises(Refusal) as caught:
        await anext(service.generate(scope, MODEL, make_screened(said("One.")), Parameters()))
    assert caught.value.reason is Reason.NOT_FOUND


async def test_the_configured_model_is_loaded_and_closed(make_settings) -> None:
    chosen = make_settings(embedding=LIMITS)
    async with embedders_of(chosen, ModelStore(chosen.models_dir)) as embedders:
        engine = embedders.engines[MODEL]
        assert embedders.healthy
    with pytest.raises(Refusal) as caught:
        await engine.embed(["late"])
    assert caught.value.reason is Reason.INFERENCE_DOWN
    async with embedders_of(make_settings(), ModelStore(chosen.models_dir)) as none:
        assert none.engines == {}


async def test_a_model_that_embeds_a_text_in_two_ways_is_not_served(
    make_settings, monkeypatch
) -> None:
    honest, calls = Encoder.vectors, []

    def drifting(encoder, ids):
        calls.append(ids)
        return honest(encoder, ids) * (1 + len(calls) / 8)

    monkeypatch.setattr(Encoder, "vectors", drifting)
    chosen, told = make_settings(embedding=LIMITS), []
    with pytest.raises(ModelFileError, match="not_deterministic"):
        async with embedders_of(chosen, ModelStore(chosen.models_dir), tell=told.append):
            pytest.fail("it was served")
    ((note,), asked) = told, len(calls)
    assert (note.action, note.detail) == (
        "model.refuse",
        {"model": MODEL, "rule": "not_deterministic"},
    )
    assert asked == 2 + 1


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (MemoryError(), "no_memory"),
        (OSError(28, "No space left on device"), "no_room"),
        (ModelFileError(Fault.DIGEST), "digest"),
        (Refusal(Reason.KEYS_DOWN), "keys_down"),
        (KeyError(), "not_loaded"),
    ],
)
async def test_whatever_keeps_it_from_being_loaded_is_told(
    make_settings, monkeypatch, fault, name
) -> None:
    def fails(*_: object) -> None:
        raise fault

    chosen, told = make_settings(embedding=LIMITS), []
    store = ModelStore(chosen.models_dir)
    monkeypatch.setattr(store, "open", fails)
    with pytest.raises(type(fault)):
        async with embedders_of(chosen, store, tell=told.append):
            pytest.fail("it was served")
    assert [note.detail for note in told] == [{"model": MODEL, "rule": name}]


# --- bad files ------------------------------------------------------------------------------------


def copied(tmp_path, **changes):
    """The model's small files, and its tensors if they are to be changed."""
    source = MODELS / "minilm"
    for name in ("config.json", "tokenizer.json"):
        told = read_json(source / name)
        (tmp_path / name).write_text(json.dumps(told | changes.get(name.partition(".")[0], {})))
    (tmp_path / "model.safetensors").symlink_to(source / "model.safetensors")
    return tmp_path


def claimed(folder, **claims):
    return opened(folder, **{"kind": "embedding", "architecture": "bert"} | claims)


BAD_FILES = {
    "another architecture": ({"config": {"model_type": "roberta"}}, {"architecture": "roberta"}),
    "a lie": ({}, {"architecture": "llama"}),
    "a chat model": ({}, {"kind": "chat"}),
    "more context": ({}, {"context_tokens": 513}),
    "another width": ({"config": {"hidden_size": 768}}, {}),
    "fewer layers": ({"config": {"num_hidden_layers": 5}}, {}),
    "fewer words": ({"config": {"vocab_size": 30_000}}, {}),
    "another tokenizer": ({"tokenizer": {"model": {"type": "BPE", "vocab": {}, "merges": []}}}, {}),
    "an unknown word that is none": (
        {"tokenizer": {"model": {"type": "WordPiece", "vocab": {}, "unk_token": ["a"]}}},
        {},
    ),
    "no tokenizer": ({"tokenizer": {"model": None}}, {}),
}


@pytest.mark.parametrize("fault", BAD_FILES)
def test_files_that_do_not_fit_are_refused(tmp_path, fault) -> None:
    changes, claims = BAD_FILES[fault]

    with pytest.raises(ModelFileError):
        load_embedder(claimed(copied(tmp_path, **changes), **claims), LIMITS, threads=1)


def test_a_weight_that_is_no_number_is_refused(tmp_path) -> None:
    folder = copied(tmp_path)
    state = load_file(folder / "model.safetensors")
    state["encoder.layer.3.output.dense.bias"][7] = torch.nan
    (folder / "model.safetensors").unlink()
    save_file(state, folder / "model.safetensors")

    with pytest.raises(ModelFileError, match="not a number"):
        load_embedder(claimed(folder), LIMITS, threads=1)
