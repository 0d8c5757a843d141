"""Talking to Presidio, played by a program that speaks as it does; making its environment."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from compliance.evaluate import LABELS
from compliance.presidio import ENTITIES, BaselineError, findings, open_presidio

SET_UP = Path(__file__).parents[2] / "deploy" / "presidio_baseline.py"

SPEAKS = """
import json, os, sys
told = {"presidio": "0.0", "spacy": "0.0", "model": "m", "entities": []}
told |= {"load_s": 1, "memory_mb": 2}
print(json.dumps(told), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    if asked.get("text") == "end":
        break
    if "repeats" in asked:
        told = {"seconds": [0.5] * asked["repeats"], "cpu_seconds": [0.25] * asked["repeats"]}
    else:
        size = len(asked["text"])
        told = {"id": 0, "spans": [
            {"start": 0, "end": size, "type": "EMAIL_ADDRESS", "score": 0.8},
            {"start": 0, "end": 1, "type": os.environ.get("BENCH_CORES", "UUID"), "score": 0.1}]}
    print(json.dumps(told), flush=True)
"""


@pytest.fixture
def folder(tmp_path):
    """An environment whose Python is a program that answers as Presidio's child does."""
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    (tmp_path / "speaks.py").write_text(SPEAKS)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "{tmp_path}/speaks.py"\n')
    python.chmod(0o755)
    (tmp_path / "ready.json").write_text("{}")
    return tmp_path


def test_a_text_is_asked_and_answered_in_our_types(folder):
    with open_presidio(folder) as presidio:
        presidio.ask("ada@example.org 中文\n")
        found = presidio.answer()
        assert presidio.about.version == "0.0 (spaCy 0.0)"
        assert presidio.cpu_seconds("x", 3) == [0.25] * 3

    assert [(f.type, f.subtype, f.start, f.end, f.score) for f in found] == [
        ("EMAIL", "EMAIL_ADDRESS", 0, 19, 0.8),
        ("UUID", "UUID", 0, 1, 0.1),
    ]


def test_it_is_told_which_cores_to_keep_to(folder):
    with open_presidio(folder, pinned_to={1, 0}) as presidio:
        presidio.ask("x")
        assert presidio.answer()[1].type == "0,1"


def test_its_end_is_an_error_and_not_an_empty_answer(folder):
    with open_presidio(folder) as presidio:
        presidio.ask("end")
        with pytest.raises(BaselineError, match="ended"):
            presidio.answer()


@pytest.mark.parametrize("missing", ["ready.json", ".venv/bin/python"])
def test_an_environment_in_part_is_none(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(BaselineError, match="presidio_baseline"), open_presidio(folder):
        pass


def test_every_entity_is_put_on_a_par_with_a_type_that_is_judged():
    assert set(ENTITIES.values()) <= LABELS
    assert findings([{"start": 0, "end": 1, "type": "NRP"}])[0].type not in LABELS


def test_without_a_network_it_says_so_and_leaves_nothing_that_looks_ready(tmp_path):
    # The program with a pip that fails: making a whole environment takes too long here.
    program = runpy.run_path(str(SET_UP))
    said = []
    scope = program["main"].__globals__
    scope["install"] = lambda _folder: False
    scope["say"] = said.append

    assert program["main"](["--into", str(tmp_path)]) == 1
    assert "not be measured" in said[-1]
    assert not program["is_ready"](tmp_path)


def test_other_pins_make_it_anew(tmp_path):
    program = runpy.run_path(str(SET_UP))
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    (tmp_path / "ready.json").write_text(json.dumps(program["pins"]()))
    assert program["is_ready"](tmp_path)

    (tmp_path / "ready.json").write_text(json.dumps(program["pins"]() | {"model": "another"}))
    assert not program["is_ready"](tmp_path)


def test_every_requirement_is_pinned():
    lines = SET_UP.with_name("presidio-requirements.txt").read_text().splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]
    assert len(pinned) > 40
    assert all("==" in line for line in pinned)


def test_it_can_be_asked_whether_it_is_there(tmp_path):
    command = [sys.executable, str(SET_UP), "--into", str(tmp_path / "none"), "--check"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (told.returncode, "not there" in told.stderr) == (1, True)
