"""Why something was found or dropped; and that the engine's answers stay its own."""

import argparse
import io
import json
import sys

import pytest

from compliance.engine import Engine
from compliance.explain import Parts, Why, explain
from compliance.names_base import Ask
from compliance.policy import default_policy, parse_policy
from compliance.recognizers import ALL
from compliance.scanner import findings_of
from compliance.witness import watch
from meshkit.contract import Direction, Reason, Refusal
from sealgate.cli.compliance import add_parser

STRICT = parse_policy("{version: 1, name: p, default: {prompt: mask, answer: allow, threshold: 1}}")


@pytest.fixture(scope="module")
def watched():
    recognizers, notes = watch(ALL)
    return Engine(recognizers), notes


@pytest.fixture(scope="module")
def told(watched):
    """Explain a text under a policy, as a prompt unless told otherwise."""

    def run(text, policy=None, names=None, direction=Direction.PROMPT):
        return explain(text, Parts(*watched, policy or default_policy(), names), direction)

    return run


def dropped(told, recognizer):
    return [row for row in told["dropped"] if row["recognizer"] == recognizer]


def test_the_checksum_the_word_near_by_and_the_score_are_told(told):
    text = "my card is 4111 1111 1111 1111, thanks"
    (row,) = told(text)["findings"]

    assert (row["type"], row["start"], row["end"]) == ("CREDIT_CARD", 11, 30)
    assert (row["recognizer"], row["evidence"]["check"]) == ("credit_card", "holds")
    assert row["evidence"]["context"] == "card"
    assert row["score"] == row["evidence"]["score_near"] > row["evidence"]["score_alone"]
    assert row["action"] == "mask"
    assert "ISO/IEC 7812" in row["evidence"]["source"]
    assert "1111 1111" not in json.dumps(told(text))


@pytest.mark.parametrize(
    ("text", "recognizer", "why"),
    [
        ("nothing near 4111 1111 1111 1112 here", "credit_card", Why.CONTEXT),
        ("order 4111 1111 1111 1112 here", "credit_card", Why.VETO),
        ("it was 000-45-6789 today", "us_ssn_dashed", Why.CHECK),
        ("order 212-456-7890 came", "us_phone", Why.THRESHOLD),
        ("call 212-456-7890 now", "phone_by_label", Why.OVERLAP),
    ],
)
def test_what_was_dropped_says_why(told, text, recognizer, why):
    rows = dropped(told(text), recognizer)

    if not rows:
        known = {row["recognizer"]: row["why"] for row in told(text)["dropped"]}
        pytest.fail(f"{recognizer} is not among {known}")
    assert {row["why"] for row in rows} == {why}


def test_the_veto_word_is_named(told):
    (row,) = dropped(told("the order 4111 1111 1111 1112 here"), "credit_card")
    assert row["evidence"]["veto"] == "order"


def test_a_veto_word_is_not_named_where_context_outweighs_it(told):
    (row,) = told("order, by card 4111 1111 1111 1111")["findings"]
    assert (row["evidence"]["context"], row["evidence"]["veto"]) == ("card", None)


def test_a_policy_that_wants_to_be_certain_drops_all_by_threshold(told):
    found = told("my card is 4111 1111 1111 1111", STRICT)

    assert found["findings"] == []
    assert Why.THRESHOLD in {row["why"] for row in dropped(found, "credit_card")}


def test_what_passes_stands_for_itself_and_is_not_repeated(told):
    (row,) = told("see https://example.org/a")["findings"]
    assert (row["type"], row["action"], row["stands_for_it"]) == ("URL", "allow", None)


def test_the_direction_is_the_one_asked_for(told):
    policy = parse_policy("{version: 1, name: p, default: {prompt: mask, answer: allow}}")
    text = "my card is 4111 1111 1111 1111"
    (prompt,) = told(text, policy)["findings"]
    (answer,) = told(text, policy, direction=Direction.ANSWER)["findings"]

    assert (prompt["action"], answer["action"]) == ("mask", "allow")


def test_which_windows_names_were_asked_for(told, name_runner):
    text = "we met ada lovelace, i think. " * 3 + "Then Grace Hopper came to London with us. "
    found = told(text, names=name_runner)
    names = [row for row in found["findings"] if row["type"] == "PERSON"]

    assert [w["names_asked"] for w in told(text)["windows"]] == [False] * len(found["windows"])
    assert any(w["names_asked"] for w in found["windows"])
    assert names
    assert all(
        any(w["names_asked"] and w["start"] <= row["start"] < w["end"] for w in found["windows"])
        for row in names
    )
    assert found["windows"][-1]["end"] == len(text)


def test_a_block_is_one_finding_to_its_end(told, pem):
    text = f"key:\n{pem}\nthat was it"
    (row,) = told(text)["findings"]

    assert text[row["end"] :] == "\nthat was it"
    assert (row["subtype"], row["action"], row["evidence"]) == ("PRIVATE_KEY", "block", None)


async def test_the_findings_are_those_of_the_scan_for_every_recognizer(told, scanner, examples):
    for text, _ in examples.values():
        windows = scanner.windows(text)
        scanned = findings_of(windows, await scanner.scan(windows, Direction.PROMPT))
        rows = told(text, scanner.policy)["findings"]
        seen = [(row["recognizer"], row["start"], row["end"], row["score"]) for row in rows]
        assert seen == [(f.recognizer, f.start, f.end, round(f.score, 4)) for f in scanned], text


def test_the_evidence_accounts_for_the_score_of_every_recognizer(told, examples):
    """Should the engine learn to weigh something else, this is where it shows."""
    checked = 0
    for text, _ in examples.values():
        for row in told(text)["findings"]:
            seen = row["evidence"]
            if seen is None:
                continue
            less = 0.5 if seen["veto"] else 0.0
            want = seen["score_near"] if seen["context"] else max(0.0, seen["score_alone"] - less)
            assert row["score"] == pytest.approx(want), (row["recognizer"], text)
            checked += 1
    assert checked > 80


def test_watching_changes_no_finding_and_not_the_recognizers(watched, engine, examples):
    twin, notes = watched
    for text, _ in examples.values():
        notes.forget()
        assert twin.find(text, 0) == engine.find(text, 0)
    assert all(type(recognizer.compiled).__name__ == "Pattern" for recognizer in ALL)


def test_a_model_that_fails_refuses_and_does_not_quote(told):
    class Broken:
        def ask(self, _window):
            return Ask(runs=True, find=self.find)

        def find(self):
            msg = "canary"
            raise RuntimeError(msg)

    with pytest.raises(Refusal) as refused:
        told("Ada Lovelace", names=Broken())
    assert refused.value.reason is Reason.COMPLIANCE_DOWN
    assert refused.value.__cause__ is None


# --- the command ----------------------------------------------------------------------------


@pytest.fixture
def sealgate(capsys):
    def run(*argv):
        parser = argparse.ArgumentParser(prog="sealgate")
        add_parser(parser.add_subparsers(required=True))
        args = parser.parse_args(["compliance", "explain", "--no-names", *map(str, argv)])
        return (args.run(args), *capsys.readouterr())

    return run


TEXT = "my card is 4111 1111 1111 1111"


def test_values_are_printed_only_when_asked_for(sealgate):
    code, plain, _ = sealgate(TEXT)
    _, shown, _ = sealgate(TEXT, "--show-text")
    _, told, _ = sealgate(TEXT, "--json")

    assert code == 0
    assert "credit_card" in plain
    assert "near 'card'" in plain
    assert "4111" not in plain
    assert "4111" not in told
    assert '"4111 1111 1111 1111"' in shown


def test_a_file_and_standard_input_are_read_alike(sealgate, tmp_path, monkeypatch):
    (tmp_path / "t").write_text(TEXT, "utf-8")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    by_file, by_input = (
        sealgate("--json", "--input", tmp_path / "t"),
        sealgate("--json", "--input", "-"),
    )

    assert by_file == by_input
    assert json.loads(by_file[1])["findings"][0]["type"] == "CREDIT_CARD"


@pytest.mark.parametrize("argv", [(), ("text", "--input", "-"), ("--input", "/none/there")])
def test_wrong_usage_is_a_message(sealgate, argv):
    code, out, err = sealgate(*argv)
    assert (code, out, err[:10]) == (2, "", "sealgate: ")


def test_what_is_not_utf8_is_not_quoted(sealgate, tmp_path):
    (tmp_path / "t").write_bytes(b"canary \xff")
    code, _, err = sealgate("--input", tmp_path / "t")
    assert (code, err) == (2, "sealgate: the text is not UTF-8\n")
