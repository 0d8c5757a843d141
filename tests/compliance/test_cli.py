"""`sealgate compliance scan | evaluate | explain`, run as a user runs them."""

import argparse
import io
import json
import sys
import tracemalloc

import pytest

from sealgate.cli._texts import Line, Progress, records, written_whole
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
    assert err == ""
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
    assert figures["sealgate"]["by"]["type"]["CREDIT_CARD"]["f2"] == 1.0
    assert figures["sealgate"]["by"]["type"]["PERSON"]["recall"] == 0.0
    assert figures["sealgate"]["overall"]["leak"] == pytest.approx(3 / 19, abs=1e-3)
    assert list(figures["sealgate"]["by"]["group"]) == ["in"]
    assert (figures["baselines"], figures["comparison"]) == ([], None)
    assert "CREDIT_CARD" in table


# --- scan -----------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 3])
def test_lines_keep_their_order_however_many_threads(
    sealgate, lines, tmp_path, name_runner, threads
):
    texts = [
        f"{n} " + ("Ada Lovelace met Grace Hopper. " * (n % 3) or "no name") for n in range(30)
    ]
    source = lines(*({"id": n, "text": text} for n, text in enumerate(texts)))

    code, _, _ = sealgate(
        "scan", "--input", source, "--output", tmp_path / "o", "--threads", threads
    )
    read_back = read(tmp_path / "o")

    assert code == 0
    assert [line["id"] for line in read_back] == list(range(30))
    assert [bool(line["findings"]) for line in read_back] == [n % 3 > 0 for n in range(30)]


@pytest.mark.parametrize("threads", ["0", "65", "two", "-1"])
def test_threads_have_a_bound(sealgate, lines, tmp_path, threads):
    source = lines({"id": 1, "text": "ok"})
    with pytest.raises(SystemExit) as refused:
        sealgate("scan", "--input", source, "--output", tmp_path / "o", "--threads", threads)
    assert refused.value.code == 2


def test_a_failure_midway_leaves_the_old_output_alone(sealgate, lines, tmp_path):
    (tmp_path / "o").write_text("before")
    source = lines(*({"id": n, "text": "x" * 50} for n in range(40)), {"text": "no id"})

    code, _, err = sealgate("scan", "--input", source, "--output", tmp_path / "o", "--no-names")

    assert code == 2
    assert "line 41" in err
    assert (tmp_path / "o").read_text() == "before"


def test_a_text_beyond_the_limit_is_named_by_its_line(sealgate, lines, tmp_path, monkeypatch):
    monkeypatch.setenv("COMPLIANCE_TEXT_CHARS_MAX", "10")
    source = lines({"id": 1, "text": "short"}, {"id": 2, "text": "canary is longer"})

    code, _, err = sealgate("scan", "--input", source, "--output", tmp_path / "o", "--no-names")

    assert code == 2
    assert "line 2: text is longer than 10 characters" in err
    assert "canary" not in err


def test_a_line_without_an_end_is_refused_before_it_is_all_read(tmp_path, monkeypatch):
    monkeypatch.setattr("sealgate.cli._texts.LINE_BYTES_MAX", 1_000)
    (tmp_path / "in.jsonl").write_bytes(b"x" * 5_000_000)
    tracemalloc.start()
    with pytest.raises(Exception, match=r"in\.jsonl, line 1: longer than 1,000 bytes"):
        list(records([tmp_path / "in.jsonl"], text_chars_max=10))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def test_memory_does_not_grow_with_the_input(sealgate, tmp_path):
    def peak(count):
        source = tmp_path / f"{count}.jsonl"
        with source.open("w") as file:
            for number in range(count):
                file.write(json.dumps({"id": number, "text": f"{number} " + "word " * 400}) + "\n")
        tracemalloc.start()
        argv = ("scan", "--input", source, "--output", tmp_path / "o", "--no-names")
        assert sealgate(*argv)[0] == 0
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(5)
    few, many = peak(20), peak(220)
    # The longer file is 400 kB longer; what is held of it is not.
    assert many < few + 200_000


def test_a_bar_is_drawn_on_a_terminal_and_only_there(monkeypatch, tmp_path):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    now = iter(range(100))
    line = Line({"id": 1, "text": "abcd"}, tmp_path, 1, 50)
    for stream, drawn in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        with Progress(100, clock=lambda: next(now)) as progress:
            progress.add(line)
        assert ("█" in stream.getvalue()) is drawn
        assert (" 50%" in stream.getvalue()) is drawn
        assert bool(stream.getvalue()) is drawn


def test_an_output_is_whole_or_not_there(tmp_path):
    def fail():
        with written_whole(tmp_path / "o") as file:
            file.write("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(tmp_path.iterdir()) == []


# --- evaluate -------------------------------------------------------------------------------

GOLD = {
    "id": "a",
    "text": "card 4111 1111 1111 1111 of Ada",
    "lang": "en",
    "spans": [
        {"start": 5, "end": 24, "type": "CREDIT_CARD"},
        {"start": 28, "end": 31, "type": "PERSON"},
    ],
}


def other(tmp_path, *spans):
    """Write findings of another tool; return the path."""
    path = tmp_path / "other.jsonl"
    told = [{"start": a, "end": b, "type": kind, "score": 0.9} for a, b, kind in spans]
    path.write_text(json.dumps({"id": "a", "spans": told}) + "\n")
    return path


@pytest.mark.parametrize(
    ("span", "beaten"), [((5, 24, "CREDIT_CARD"), True), ((28, 31, "PERSON"), False)]
)
def test_must_beat_says_so_by_its_exit_code(sealgate, lines, tmp_path, span, beaten):
    argv = ("evaluate", "--gold", lines(GOLD), "--no-names", "--json", "--must-beat")
    code, out, _ = sealgate(*argv, "--baseline", other(tmp_path, span))

    assert code == (0 if beaten else 1)
    assert json.loads(out)["comparison"]["beaten"] is beaten


def test_a_report_is_written_beside_the_table(sealgate, lines, tmp_path):
    page = tmp_path / "page.html"
    argv = ("evaluate", "--gold", lines(GOLD), "--no-names", "--report", page)
    code, out, _ = sealgate(*argv, "--baseline", other(tmp_path, (28, 31, "PERSON")))

    assert code == 0
    assert "CREDIT_CARD" in out
    assert "LEAKS MORE" in out
    assert "<td>below and leaks more</td>" in page.read_text("utf-8")


def test_must_beat_without_a_baseline_is_wrong_usage(sealgate, lines):
    code, _, err = sealgate("evaluate", "--gold", lines(GOLD), "--no-names", "--must-beat")
    assert (code, "--baseline" in err) == (2, True)


def test_bad_predictions_and_bad_spans_are_named_by_line(sealgate, lines, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"id": "a", "spans": []}\n{"id": "canary"}\n')
    argv = ("evaluate", "--no-names", "--gold")

    first = sealgate(*argv, lines(GOLD), "--baseline", bad)
    second = sealgate(*argv, lines(GOLD, GOLD | {"spans": [{"start": 1}]}))

    assert (first[0], second[0]) == (2, 2)
    assert "bad.jsonl, line 2" in first[2]
    assert "in.jsonl, line 2: no usable spans" in second[2]
    assert "canary" not in first[2]


def test_without_presidio_the_figures_go_on_and_say_so(sealgate, lines, tmp_path, monkeypatch):
    monkeypatch.setattr("sealgate.cli._evaluate.SET_UP", tmp_path / "none")
    argv = ("evaluate", "--gold", lines(GOLD), "--no-names", "--json", "--baseline", "presidio")
    argv += ("--presidio", tmp_path / "nowhere")

    code, out, err = sealgate(*argv)
    must, _, _ = sealgate(*argv, "--must-beat")

    assert (code, must) == (0, 3)
    assert "not measured" in err
    assert json.loads(out)["baselines"] == []
