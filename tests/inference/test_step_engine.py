"""An exported model as an engine: out of a store, through the scheduler, against PyTorch."""

import asyncio
import json
import subprocess
from dataclasses import asdict

import pytest
import torch

from inference.architecture import Architecture
from inference.engines.load import load_engine
from inference.precision.network import Network, network_of
from inference.precision.schemes import Precision as Scheme
from inference.precision.source import Source, _gguf_tokenizer
from inference.registry import ModelFileError
from inference.settings import InferenceSettings
from inference.store.changing import StoreChanger
from inference.store.claims import Claim
from inference.store.rules import Rules
from inference.store.store import ModelStore
from inference.tensorrt.answering import ask_engine
from inference.tensorrt.comparison import Answered, Comparison, Ran
from inference.tensorrt.exporting import digest_of, export_model, model_files, stretches
from inference.tensorrt.faults import Fault, TensorRtError
from inference.tensorrt.graph import Precision
from inference.tensorrt.plan import PLAN_FILE, PLAN_NOTES
from meshkit.contract import Ended, Message, Parameters, Reason, Refusal, Role

pytestmark = pytest.mark.asyncio(loop_scope="module")

ARCH = Architecture(
    layers=2, width=64, hidden=96, heads=4, kv_heads=2, head=16,
    vocabulary=49_152, context_tokens=256, rope_base=10_000.0, norm_epsilon=1e-5,
)  # fmt: skip
CLAIM = Claim(name="toy-onnx", licence="Apache-2.0", context_tokens=256, default_system="Be brief.")
PROMPTS = ("What is the capital of France?", "Count to ten, slowly.", "Hello")


@pytest.fixture(scope="module")
def source(model_file) -> Source:
    """Two layers that know nothing, with SmolLM2's tokenizer and template."""
    torch.manual_seed(5)
    with torch.inference_mode():
        state = {
            name: torch.randn(value.shape) * 0.15 + (value.ndim == 1)
            for name, value in Network(ARCH).state_dict().items()
        }
    return Source(
        architecture=ARCH,
        state=state,
        tokenizer=_gguf_tokenizer(model_file),
        template=model_file.fields["tokenizer.chat_template"],
        precision=Scheme.FP32,
        ends=(2,),
    )


@pytest.fixture(scope="module")
def store(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    export_model(source, folder, precision=Precision.FP32, positions=1_000)
    kept = ModelStore(tmp_path_factory.mktemp("store"), rules=Rules(signed="off"))
    StoreChanger(kept).add(folder, CLAIM)
    return kept


@pytest.fixture(scope="module")
def engine_settings(store):
    return InferenceSettings(
        models_dir=store.folder, model="toy-onnx", slots=4, context_tokens_max=200, device="cpu"
    )


@pytest.fixture(scope="module")
def loaded(store, engine_settings):
    with store.open("toy-onnx") as opened:
        return load_engine(engine_settings, opened)


@pytest.fixture(scope="module")
def engine(loaded):
    loaded.start()
    yield loaded
    asyncio.run(loaded.close())


async def answered(engine, prompt: str, **parameters) -> tuple[str, Ended]:
    messages = (Message(Role.USER, prompt),)
    *pieces, ended = [item async for item in engine.generate(messages, Parameters(**parameters))]
    return "".join(piece.text for piece in pieces), ended


@torch.inference_mode()
def greedy(source: Source, engine, prompt: str, count: int) -> str:
    """What PyTorch alone answers."""
    tokenizer = engine._tokenizer
    ids = tokenizer.encode_chat((Message(Role.USER, prompt),), default_system="Be brief.")
    network, made = network_of(ARCH, source.state), []
    while len(made) < count and not tokenizer.ends & set(made[-1:]):
        made.append(int(network(torch.tensor([[*ids, *made]]))[0, -1].argmax()))
    return b"".join(map(tokenizer.raw, made)).decode(errors="replace")


async def test_a_store_gives_an_engine_that_answers_as_pytorch_does(engine, source) -> None:
    alone = [await answered(engine, prompt, max_tokens=12) for prompt in PROMPTS]
    together = await asyncio.gather(*(answered(engine, p, max_tokens=12) for p in PROMPTS))

    assert [text for text, _ in together] == [text for text, _ in alone]
    assert [text for text, _ in alone] == [greedy(source, engine, p, 12) for p in PROMPTS]
    assert alone[0][1].usage.completion_tokens == 12
    assert engine.info.name == "toy-onnx"
    assert engine.info.context_tokens == 200


async def test_a_seeded_answer_comes_again(engine) -> None:
    drawn = {"max_tokens": 12, "temperature": 0.9, "seed": 11}

    assert await answered(engine, "Hello", **drawn) == await answered(engine, "Hello", **drawn)


async def test_a_step_that_cannot_be_run_ends_its_request_and_the_next_is_answered(
    engine, monkeypatch
) -> None:
    session = engine._runner._model._session
    run = type(session).run
    faults = [TensorRtError(Fault.NOT_RUN)]
    monkeypatch.setattr(
        type(session), "run", lambda self, given: _raise(faults) or run(self, given)
    )
    with pytest.raises(Refusal) as caught:
        await answered(engine, "Hello", max_tokens=4)

    assert caught.value.reason is Reason.INFERENCE_DOWN
    assert (await answered(engine, "Hello", max_tokens=4))[1].usage.completion_tokens == 4


def _raise(faults: list[Exception]) -> None:
    if faults:
        raise faults.pop()


async def test_a_comparison_asks_both_the_same(engine_settings, source, engine) -> None:
    ran = await ask_engine(engine_settings, PROMPTS[:2], max_tokens=6)
    made = Comparison(a=ran, b=ran)

    assert [answer.text for answer in ran.answers] == [
        greedy(source, engine, prompt, 6) for prompt in PROMPTS[:2]
    ]
    assert (ran.name, ran.format, made.same, made.agreement) == ("toy-onnx", "onnx", 1, 1)
    assert ran.memory_bytes > 50 << 20
    assert Ran.told(json.loads(json.dumps(asdict(ran)))) == ran
    assert json.loads(json.dumps(made.as_json()))["b"]["tokens_per_s"] == ran.tokens_per_s


# --- what does not fit ----------------------------------------------------------------------


def folder_of(source: Source, folder):
    export_model(source, folder, precision=Precision.FP32, positions=64)
    return folder


async def test_files_that_do_not_fit_one_another_are_refused(
    source, tmp_path, engine_settings
) -> None:
    """A configuration of another width, a graph that reaches less far, one of bf16."""
    folder = folder_of(source, tmp_path / "export")
    config = json.loads((folder / "config.json").read_text())
    wrong = {
        "short": Fault.NOT_A_STEP,
        "other": Fault.NOT_A_STEP,
        "bf16": Fault.NOT_ON_CPU,
    }
    for name, fault in wrong.items():
        if name == "other":
            config["rms_norm_eps"] = 1e-6
            (folder / "config.json").write_text(json.dumps(config))
        if name == "bf16":
            export_model(source, folder, precision=Precision.BF16, positions=256)
        kept = ModelStore(tmp_path / name, rules=Rules(signed="off"))
        StoreChanger(kept).add(folder, CLAIM)
        with kept.open("toy-onnx") as opened, pytest.raises(ModelFileError) as caught:
            load_engine(engine_settings, opened)
        assert str(caught.value) == fault.value


async def test_a_plan_without_its_notes_or_library_is_refused(
    source, tmp_path, engine_settings
) -> None:
    folder = folder_of(source, tmp_path / "export")
    (folder / "model.onnx").unlink()
    (folder / PLAN_FILE).write_bytes(b"vtrt" + bytes(124))
    for name, notes in (("without", None), ("damaged", b"{}")):
        if notes is not None:
            (folder / PLAN_NOTES).write_bytes(notes)
        kept = ModelStore(tmp_path / name, rules=Rules(signed="off"))
        StoreChanger(kept).add(folder, CLAIM)
        with kept.open("toy-onnx") as opened, pytest.raises(ModelFileError) as caught:
            load_engine(engine_settings, opened)
        expected = Fault.INCOMPLETE if notes is None else Fault.PLAN_UNKNOWN
        assert str(caught.value) == expected.value


async def test_a_models_files_are_found_by_name_or_by_path(store, source, tmp_path) -> None:
    with model_files("toy-onnx", store) as files:
        assert set(files) >= {"model.onnx", "config.json", "tokenizer.json"}
        stored = digest_of(files)
    (tmp_path / "a").write_text("a")
    with model_files(str(tmp_path), store) as files:
        told = subprocess.check_output("sha256sum * | sha256sum", shell=True, cwd=tmp_path)
        assert digest_of(files) == told.decode().split()[0]
        assert digest_of(files) != stored
    with model_files(str(tmp_path / "a"), store) as files:
        assert list(files) == ["a"]
    with pytest.raises(ModelFileError), model_files("nobody", store):
        pass
    text = "The weather was mild. " * 200
    assert [len(part) for part in stretches(source, text, most=3)] == [256, 256, 256]


# --- figures --------------------------------------------------------------------------------


def ran(*texts: str, rest_s: float = 1.0) -> Ran:
    answers = [Answered(text=text, tokens=5, first_s=0.1, rest_s=rest_s) for text in texts]
    return Ran(
        name="m", precision="p", format="onnx", load_s=1.0, memory_bytes=1 << 20,
        answers=tuple(answers),
    )  # fmt: skip


async def test_agreement_ends_at_the_first_difference() -> None:
    made = Comparison(a=ran("same", "abcd", ""), b=ran("same", "abXd", "", rest_s=2.0))

    assert made.same == pytest.approx(2 / 3)
    assert made.agreement == pytest.approx((1 + 0.5 + 1) / 3)
    assert (made.a.tokens_per_s, made.b.tokens_per_s) == (4.0, 2.0)
    assert made.a.first_ms == pytest.approx(100)
    assert "67% of answers equal, 83% of their text" in made.as_table()
