"""`sealgate models list|add|verify|remove` as they are typed, without an OpenBao."""

import json
from pathlib import Path

import pytest

from sealgate.cli import BAD_USAGE, DONE, REFUSED, main
from tests.inference.store_world import a_folder, gguf

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """Run a command over a store of its own; return exit code, standard output and error."""
    monkeypatch.delenv("SEALGATE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "store").mkdir()

    def run_it(*words: object):
        code = main(["models", *map(str, words), "--store", str(tmp_path / "store")])
        told = capsys.readouterr()
        return code, told.out, told.err

    return run_it


def test_a_model_is_added_listed_checked_and_removed(run, tmp_path) -> None:
    source = a_folder(tmp_path / "from")
    added = ("--name", "acme-chat", "--licence", "MIT", "--language", "en", "--json")
    code, out, _ = run("add", source, *added)

    assert code == DONE
    assert json.loads(out)["added"]["version"] == "1"
    code, out, _ = run("list", "--json")
    (row,) = json.loads(out)["models"]
    assert (row["name"], row["signed"], row["sealed"]) == ("acme-chat", False, False)
    assert row["digest"] == json.loads(run("verify", "--json")[1])["models"][0]["digest"]
    code, out, _ = run("verify")
    assert code == REFUSED, "nobody signed it"
    assert "signature: unsigned  files: ok  content: ok" in out
    code, out, _ = run("list")
    assert "acme-chat  1  chat  safetensors" in out
    assert run("remove", "acme-chat", "--version", "1")[0] == DONE
    assert json.loads(run("list", "--json")[1]) == {"models": [], "damaged": []}


def test_what_is_refused_is_told_with_the_file_s_name_as_text(run, tmp_path) -> None:
    bad = a_folder(tmp_path / "from")
    (bad / "model.pt").write_bytes(b"\x80\x04.")
    code, out, err = run("add", bad, "--name", "acme-chat", "--licence", "MIT")

    assert (code, out) == (REFUSED, "")
    assert err == "sealgate: a file is a pickle, or may hold one: it could run code: 'model.pt'\n"
    code, out, _ = run("add", bad, "--name", "acme-chat", "--licence", "MIT", "--json")
    assert json.loads(out) == {"error": "model", "fault": "pickle", "member": "model.pt"}
    (bad / "model.pt").rename(bad / "\x1b[2J.json")
    code, _, err = run("add", bad, "--name", "acme-chat", "--licence", "MIT")
    assert code == REFUSED
    assert "\x1b" not in err


def test_wrong_usage_is_told(run, tmp_path) -> None:
    (tmp_path / "m.gguf").write_bytes(gguf())

    assert run("add", tmp_path / "m.gguf")[0] == BAD_USAGE
    assert run("add", tmp_path / "none", "--name", "a", "--licence", "MIT")[0] == REFUSED
    code, _, err = run("sign", "acme-chat", "--data", tmp_path / "none")
    assert (code, "openbao.json" in err) == (BAD_USAGE, True)


@pytest.mark.parametrize("command", ["list", "verify"])
def test_of_a_store_that_is_not_there_nothing_holds(run, tmp_path, command) -> None:
    assert run(command)[0] == DONE
    (tmp_path / "store").rmdir()
    code, out, err = run(command)
    assert (code, out) == (BAD_USAGE, "")
    assert err.startswith("sealgate: cannot read ")
    assert "store" in err


@pytest.mark.parametrize(
    "words",
    [
        ("export-onnx", "--positions", "0"),
        ("export-onnx", "--positions", "-5"),
        ("build-engine", "--slots", "0"),
        ("build-engine", "--chunk-tokens", "-1"),
        ("build-engine", "--timeout-s", "nan"),
        ("build-engine", "--timeout-s", "0"),
        ("compare", "--max-tokens", "0"),
        ("compare", "--threads", "0"),
        ("canary", "--hours", "nan"),
        ("canary", "--hours", "inf"),
        ("canary", "--hours", "-1"),
        ("canary", "--hours", "0.0001"),
        ("canary", "--percent", "-5"),
        ("canary", "--replicas", "99999999999"),
        ("shadow", "--percent", "-1"),
    ],
)
def test_numbers_that_no_step_can_carry_are_wrong_usage(capsys, words) -> None:
    command, *options = words
    with pytest.raises(SystemExit) as ended:
        main(["models", command, "acme-chat", "2", *options])
    assert ended.value.code == BAD_USAGE
    assert options[0] in capsys.readouterr().err


def test_a_command_is_found_by_its_help(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["models", "--help"])
    told = capsys.readouterr().out
    for name in ("list", "add", "verify", "sign", "seal", "remove"):
        assert f"    {name} " in told
