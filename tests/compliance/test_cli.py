"""`sealgate compliance scan | evaluate`, run as a user runs them."""

import argparse
import json

import pytest

from compliance.evaluate import Evaluation
from compliance.findings import Finding
from sealgate.cli.compliance import add_parser


@pytest.fixture
def sealgate(capsys, monkeypatch, tmp_path):
    """Run the command line; return exit code, stdout and stderr."""

    def run(*argv):
        parser = argparse.ArgumentParser(prog="sealgate")
        add_parser(parser.add_subparsers(required=True))
        args = parser.parse_args(["compliance", *map(str, argv)])
        code = args.run(args)
        return (code, *capsys.readouterr())

    return run


def read(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_scan_writes_findings_with_offsets_and_masked_text(sealgate, lines, tmp_path):
    text = "信用卡４１１１ 1111 1111 1111，邮箱ada@example.org"
    source = lines({"id": "a", "text": text}, {"id": 2, "text": ""})

    code, out, err = sealgate("scan", "--input", source, "--output", tmp_path / "o", "--no-names")
    first, second = read(tmp_path / "o")

    assert (code, out) == (0, "")
    assert "2 texts" in err
    assert first["id"] == "a"
    assert first["text"] == "信用卡[CREDIT_CARD]，邮箱[EMAIL]"
    assert [(f["type"], text[f["start"] : f["end"]]) for f in first["findings"]] == [
        ("CREDIT_CARD", "４１１１ 1111 1111 1111"),
        ("EMAIL", "ada@example.org"),
    ]
    assert set(first["findings"][0]) == {"type", "subtype", "start", "end", "score", "recognizer"}
    assert second == {"id": 2, "findings": [], "text": ""}


def test_scan_finds_names_and_takes_a_policy(sealgate, lines, tmp_path, name_runner):
    policy = tmp_path / "p.yaml"
    policy.write_text("{version: 1, name: p, default: {prompt: allow, answer: allow}}")
    source = lines({"id": 1, "text": "Ada Lovelace lives in London."})

    code, _, _ = sealgate("scan", "--input", source, "--output", tmp_path / "o", "--policy", policy)
    (only,) = read(tmp_path / "o")

    assert code == 0
    assert only["text"] == "Ada Lovelace lives in London."
    assert {f["type"] for f in only["findings"]} == {"PERSON", "LOCATION"}


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"id": 1}',
        '{"text": "canary"}',
        '{"id": 1, "text": 5}',
        '{"id":1,"text":"\\ud800canary"}',
    ],
)
def test_a_bad_line_is_named_and_not_quoted_and_nothing_is_written(sealgate, line, tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text('{"id": 1, "text": "ok"}\n' + line + "\n")

    code, _, err = sealgate("scan", "--input", source, "--output", tmp_path / "o", "--no-names")

    assert code == 2
    assert "in.jsonl, line 2" in err
    assert "canary" not in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.jsonl"]


@pytest.mark.parametrize("missing", ["input", "policy", "models"])
def test_a_missing_file_is_a_message_not_a_traceback(sealgate, lines, tmp_path, missing):
    source = lines({"id": 1, "text": "ok"})
    argv = ["scan", "--input", source, "--output", tmp_path / "o", "--no-names"]
    if missing == "input":
        argv[2] = tmp_path / "none"
    elif missing == "policy":
        argv += ["--policy", tmp_path / "none"]
    else:
        argv = [*argv[:-1], "--models", tmp_path / "none"]

    code, _, err = sealgate(*argv)

    assert code == 2
    assert "sealgate: " in err
    assert "Traceback" not in err
    assert not (tmp_path / "o").exists()


def test_evaluate_prints_figures_by_type(sealgate, lines):
    gold = lines(
        {
            "id": 1,
            "text": "card 4111 1111 1111 1111 of ada@example.org",
            "spans": [{"start": 5, "end": 24, "type": "CREDIT_CARD"}],
            "scope": ["CREDIT_CARD"],
        },
        {"id": 2, "text": "bob", "spans": [{"start": 0, "end": 3, "type": "PERSON"}]},
    )

    code, out, _ = sealgate("evaluate", "--gold", gold.parent, "--no-names", "--json")
    figures = json.loads(out)
    code_table, table, _ = sealgate("evaluate", "--gold", gold, "--no-names")

    assert code == code_table == 0
    assert figures["CREDIT_CARD"]["f2"] == 1.0
    assert figures["PERSON"]["recall"] == 0.0
    assert figures["ALL"]["leak"] == pytest.approx(3 / 19, abs=1e-3)
    assert "CREDIT_CARD" in table


def finding(kind, start, end):
    return Finding(kind, kind, start, end, 0.9, "r")


@pytest.mark.parametrize(
    ("findings", "right", "predicted", "found", "leaked"),
    [
        ([finding("PERSON", 0, 4)], 1, 1, 1, 0),
        ([finding("PERSON", 0, 2)], 1, 1, 1, 2),
        ([finding("PERSON", 0, 1)], 1, 1, 0, 3),
        ([finding("ORG", 0, 4)], 1, 1, 1, 0),
        ([finding("PHONE", 0, 4)], 0, 1, 0, 0),
        ([finding("PHONE", 6, 9)], 0, 0, 0, 4),
        ([finding("URL", 4, 6)], 0, 0, 0, 4),
    ],
)
def test_how_findings_are_judged(findings, right, predicted, found, leaked):
    record = {
        "text": "abcd ef ghi",
        "spans": [{"start": 0, "end": 4, "type": "PERSON", "alt": ["ORG"]}],
        "ignore": [[6, 9]],
        "scope": ["PERSON", "ORG", "PHONE"],
    }
    evaluation = Evaluation()
    evaluation.add(record, findings)
    row = evaluation.total

    assert (row.right, row.predicted, row.found, row.leaked) == (right, predicted, found, leaked)
