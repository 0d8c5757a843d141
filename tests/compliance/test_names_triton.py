"""The Latin name model asked of a real Triton: the same findings, whatever becomes of Triton."""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import tritonclient.grpc as triton
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from compliance.names import LatinNames
from compliance.names_base import session
from compliance.names_triton import TritonLatinNames, TritonLine, TritonPlace
from compliance.opening import open_scanner
from compliance.settings import ComplianceSettings
from meshkit.counters import counters
from tests.compliance.triton_server import ROOT, certificates, liar, script, serving

MODELS = ROOT / "var" / "models"
WAIT_S = 60.0
SURNAMES = ("Niskanen", "Zubrowka", "Eastwick", "Okonjo", "Brzezicki", "Tandogan", "Quispe", "Vrba")
FRAMES = (
    "Then {} left for Kilmarnock with a friend.",
    "the invoice was signed by {}, who lives near Hoopstad",
    "my name is grobart {} and i need help",
    "They sent it to {}, Vaucresson, for repair.",
    "Le dossier de {} est à Vaucresson.",
)
MODEL_ASKED_MIN = 25
"""Of the texts, whatever rules come to know: for the others nobody is asked."""
TEXTS = [frame.format(name) for frame in FRAMES for name in SURNAMES]


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("triton")
    names = script("triton_names")
    assert names.main(["--models", str(MODELS), "--into", str(folder)]) == 0
    liar(folder / "liar")
    assert names.main(["--models", str(MODELS), "--into", str(folder / "b"), "--batching"]) == 0
    batched = (folder / "b" / "names_latin").rename(folder / "batched") / "config.pbtxt"
    batched.write_text(batched.read_text().replace('"names_latin"', '"batched"'))
    (folder / "b").rmdir()
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    certificates(folder)
    return folder


@pytest.fixture(scope="module")
def server(repository, files):
    """Triton with all models; clients must show a certificate."""
    tls = {
        "ssl": True,
        "root_certificates": str(files / "ca.pem"),
        "certificate_chain": str(files / "client.pem"),
        "private_key": str(files / "client.key"),
    }
    options = (
        "--grpc-use-ssl-mutual=true",
        f"--grpc-server-cert={files / 'server.pem'}",
        f"--grpc-server-key={files / 'server.key'}",
        f"--grpc-root-cert={files / 'ca.pem'}",
    )
    with serving(repository, *options, tls=tls) as running:
        yield running


@pytest.fixture(scope="module")
def place(server, files):
    return TritonPlace(
        address=server.address,
        model="names_latin",
        ca=files / "ca.pem",
        certificate=files / "client.pem",
        key=files / "client.key",
        ask_ms=30_000,
        asks_max=8,
        failures_max=3,
        hold_off_ms=600_000,
    )


@pytest.fixture(scope="module")
def here():
    return LatinNames(MODELS / "rampart")


@pytest.fixture(scope="module")
def expected(here):
    found = [here.find(text, 0) for text in TEXTS]
    by_model = [each for each in found if any(f.recognizer == "names_latin" for f in each)]
    assert len(by_model) >= MODEL_ASKED_MIN
    return found


@pytest.fixture
def fallbacks():
    """How often the model here answered since the test began, by reason."""
    before = counters()

    def since():
        return {
            name.rpartition(".")[2]: count - before.get(name, 0)
            for name, count in counters().items()
            if name.startswith("names.triton_fallback.") and count > before.get(name, 0)
        }

    return since


def served(place, **changes):
    return TritonLatinNames(MODELS / "rampart", replace(place, **changes))


def found(names):
    return [names.find(text, 0) for text in TEXTS]


def ids_of(*lengths):
    """Rows of made-up tokens, padded at the end, and their mask."""
    ids = np.zeros((len(lengths), max(lengths)), np.int64)
    mask = np.zeros_like(ids)
    for row, length in enumerate(lengths):
        ids[row, :length] = np.arange(2_000, 2_000 + 7 * length, 7)
        mask[row, :length] = 1
    return ids, mask


def test_triton_finds_what_the_model_here_finds(server, place, expected, fallbacks):
    before = server.rows("names_latin")

    assert found(served(place)) == expected
    assert fallbacks() == {}
    assert server.rows("names_latin") - before >= MODEL_ASKED_MIN


def test_what_is_asked_at_the_same_time_changes_no_finding(place, expected, fallbacks):
    names = served(place)

    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            assert list(pool.map(lambda text: names.find(text, 0), TEXTS)) == expected
    assert fallbacks() == {}


async def test_settings_put_triton_into_the_scanner(server, place, expected, fallbacks):
    settings = ComplianceSettings(
        models_dir=MODELS,
        cache_dir=ROOT / "var" / "cache" / "compliance",
        names_triton_url=server.address,
        names_triton_ca=place.ca,
        names_triton_certificate=place.certificate,
        names_triton_key=place.key,
        names_triton_ask_ms=30_000,
    )
    before = server.rows("names_latin")

    async with open_scanner(settings) as scanner:
        (window,) = scanner.windows(TEXTS[0])
        assert await scanner.names.find_all([window], "t") == {0: tuple(expected[0])}
    assert server.rows("names_latin") > before
    assert fallbacks() == {}


def test_a_paused_triton_costs_a_deadline_thrice_then_nothing(server, place, expected, fallbacks):
    names = served(place, ask_ms=200)

    with server.paused():
        assert found(names) == expected
    told = fallbacks()
    assert told.pop("late") + told.pop("away", 0) == 3
    assert told.keys() == {"held_off"}


def test_a_killed_triton_is_missed_by_nobody_and_used_again(
    repository, place, here, expected, fallbacks
):
    with serving(repository, "--model-control-mode=explicit", "--load-model=names_latin") as mortal:
        plain = {"ca": None, "certificate": None, "key": None, "hold_off_ms": 50}
        names = served(place, address=mortal.address, **plain)
        half = len(TEXTS) // 2
        first = [names.find(text, 0) for text in TEXTS[:half]]
        assert fallbacks() == {}
        mortal.kill()
        assert first + [names.find(text, 0) for text in TEXTS[half:]] == expected
        assert fallbacks().keys() <= {"away", "held_off", "refused"}

        mortal.start()
        ends, before = time.monotonic() + WAIT_S, mortal.rows("names_latin")
        while mortal.rows("names_latin") == before and time.monotonic() < ends:
            assert names.find(TEXTS[0], 0) == expected[0]
        told = fallbacks()
        assert found(names) == expected
        assert fallbacks() == told


def test_a_model_that_is_not_ours_is_not_believed(place, expected, fallbacks, capfd):
    assert found(served(place, model="liar", failures_max=1_000)) == expected
    told = fallbacks()

    assert told.keys() == {"shape", "refused"}
    assert told["shape"] > told["refused"] >= MODEL_ASKED_MIN // 5
    assert "Ada" not in "".join(capfd.readouterr())


def test_a_model_that_is_not_served_is_replaced(place, expected, fallbacks):
    assert found(served(place, model="nobody")) == expected
    assert fallbacks()["refused"] == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"ca": None, "certificate": None, "key": None},
        {"certificate": None, "key": None},
        {"ca": "strange.pem"},
        {"key": "gone.key"},
    ],
    ids=["plaintext", "no certificate", "another CA", "no key file"],
)
def test_triton_and_compliance_must_know_each_other(server, place, expected, fallbacks, changes):
    files = place.ca.parent
    paths = {name: value and files / value for name, value in changes.items()}
    before = server.rows("names_latin")

    assert found(served(place, **paths)) == expected
    assert sum(fallbacks().values()) >= MODEL_ASKED_MIN
    assert server.rows("names_latin") == before


def test_certificates_are_read_anew_after_a_failure(server, place, files, tmp_path, fallbacks):
    for suffix in ("pem", "key"):
        (tmp_path / f"mine.{suffix}").write_bytes((files / f"strange.{suffix}").read_bytes())
    line = TritonLine(
        replace(
            place,
            certificate=tmp_path / "mine.pem",
            key=tmp_path / "mine.key",
            failures_max=1_000,
        )
    )
    assert line.ask(*ids_of(3), 35) is None
    assert sum(fallbacks().values()) == 1

    for suffix in ("pem", "key"):
        (tmp_path / f"mine.{suffix}").write_bytes((files / f"client.{suffix}").read_bytes())
    assert line.ask(*ids_of(3), 35) is not None


def test_no_more_are_under_way_than_allowed(server, place, fallbacks):
    line = TritonLine(replace(place, asks_max=2))
    ids, mask = ids_of(5)
    assert line.ask(ids, mask, 35) is not None
    answers = []
    asking = [
        threading.Thread(target=lambda: answers.append(line.ask(ids, mask, 35))) for _ in range(2)
    ]

    with server.paused():
        for thread in asking:
            thread.start()
        ends = time.monotonic() + WAIT_S
        while line._free._value and time.monotonic() < ends:
            time.sleep(0.01)
        assert [line.ask(ids, mask, 35) for _ in range(4)] == [None] * 4
        assert fallbacks() == {"busy": 4}
    for thread in asking:
        thread.join(WAIT_S)
    assert [answer.shape for answer in answers] == [(1, 5, 35)] * 2
    assert fallbacks() == {"busy": 4}


@pytest.mark.parametrize("model", ["names_latin", "batched"])
def test_rows_of_a_request(server, model):
    with triton.InferenceServerClient(server.address, **server.tls) as client:

        def logits(ids, mask):
            inputs = []
            for name, values in (("input_ids", ids), ("attention_mask", mask)):
                inputs.append(triton.InferInput(name, values.shape, "INT64"))
                inputs[-1].set_data_from_numpy(values)
            return client.infer(model, inputs).as_numpy("logits")

        lengths = (9, 4, 12)
        ids, mask = ids_of(*lengths)
        together = logits(ids, mask)
        alone = [logits(ids[i : i + 1, :n], mask[i : i + 1, :n])[0] for i, n in enumerate(lengths)]
        assert together.shape == (3, 12, 35)
        same = [np.array_equal(together[i, :n], alone[i]) for i, n in enumerate(lengths)]
        # Together the numbers of a row change with its neighbours: why `--batching` is a choice.
        assert all(same) if model == "names_latin" else not any(same)
        with pytest.raises(triton.InferenceServerException, match="rows padded at the end"):
            logits(ids, 1 - mask)


@pytest.mark.parametrize("batching", [(), ("--batching",)])
def test_the_repository_for_a_gpu_is_well_formed(tmp_path, batching):
    # The text is read by Triton's own schema and the model run on this CPU; no GPU has run it.
    names = script("triton_names")
    options = ("--models", str(MODELS), "--into", str(tmp_path), "--for", "gpu", *batching)
    assert names.main(options) == 0
    folder = tmp_path / "names_latin"

    config = text_format.Parse((folder / "config.pbtxt").read_text(), ModelConfig())
    assert (config.name, config.platform) == ("names_latin", "onnxruntime_onnx")
    assert config.max_batch_size == (names.BATCH_MAX if batching else 0)
    assert config.HasField("dynamic_batching") == bool(batching)
    opened = session((folder / "1" / "model.onnx").read_bytes(), 1)
    assert {i.name for i in opened.get_inputs()} == {i.name for i in config.input}
    ids, mask = ids_of(6)
    (logits,) = opened.run(["logits"], {"input_ids": ids, "attention_mask": mask})
    assert logits.shape == (1, 6, config.output[0].dims[-1])


def test_without_weights_no_repository_is_left(tmp_path):
    assert script("triton_names").main(["--models", "nowhere", "--into", str(tmp_path)]) == 1
    assert list(tmp_path.iterdir()) == []


def test_tritonclient_is_needed_only_where_triton_is(monkeypatch, place):
    monkeypatch.setitem(sys.modules, "tritonclient.grpc", None)
    with pytest.raises(ImportError, match=r"sealgate\[compliance-triton\]"):
        TritonLine(place)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"names_triton_url": "triton.example:8001"}, "ca is needed"),
        ({"names_triton_url": "127.0.0.1:8001", "names_triton_key": "k"}, "names_triton_key"),
        ({"names_triton_ca": "ca.pem"}, "no url"),
        ({"names_triton_url": "http://triton"}, "pattern"),
    ],
)
def test_settings_that_would_be_unsafe_or_unused_are_refused(given, told):
    with pytest.raises(ValueError, match=told):
        ComplianceSettings(**given)
