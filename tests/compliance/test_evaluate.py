"""Scoring, each rule by a case small enough to count by hand; and what is below a baseline."""

import json
import random

import pytest

from compliance.comparison import Baseline, compared, document, lines
from compliance.evaluate import LABELS, Evaluation
from compliance.findings import TYPES, Finding
from compliance.measures import Row


def finding(kind, start, end, score=0.9):
    return Finding(kind, kind, start, end, score, "r")


def gold(text="abcd ef ghi", *spans, **more):
    return {
        "id": 1,
        "text": text,
        "spans": [dict(zip(("start", "end", "type"), s, strict=True)) for s in spans],
    } | more


def judged(record, *findings, group="-"):
    evaluation = Evaluation()
    evaluation.add(record, findings, group=group)
    return evaluation


@pytest.mark.parametrize(
    ("findings", "right", "predicted", "found", "leaked"),
    [
        ([finding("PERSON", 0, 4)], 1, 1, 1, 0),
        ([finding("PERSON", 0, 2)], 1, 1, 1, 2),
        ([finding("PERSON", 0, 1)], 1, 1, 0, 3),
        ([finding("PERSON", 0, 1), finding("PERSON", 2, 3)], 2, 2, 1, 2),
        ([finding("PERSON", 2, 6)], 1, 1, 1, 2),
        ([finding("PERSON", 2, 7)], 0, 1, 1, 2),
        ([finding("ORG", 0, 4)], 1, 1, 1, 0),
        ([finding("PHONE", 0, 4)], 0, 1, 0, 0),
        ([finding("PHONE", 6, 9)], 0, 0, 0, 4),
        ([finding("PHONE", 5, 7)], 0, 0, 0, 4),
        ([finding("URL", 4, 6)], 0, 0, 0, 4),
        ([finding("DATE_TIME", 0, 4)], 0, 0, 0, 0),
        ([finding("PERSON", 0, 4), finding("PERSON", 0, 4, 0.1)], 1, 1, 1, 0),
        ([finding("PERSON", -3, 4)], 1, 1, 1, 0),
        ([finding("PERSON", 9, 40)], 0, 1, 0, 4),
    ],
)
def test_how_findings_are_judged(findings, right, predicted, found, leaked):
    record = {
        "text": "abcd ef ghi",
        "spans": [{"start": 0, "end": 4, "type": "PERSON", "alt": ["ORG"]}],
        "ignore": [[6, 9]],
        "scope": ["PERSON", "ORG", "PHONE"],
    }
    row = judged(record, *findings).total

    assert (row.right, row.predicted, row.found, row.leaked) == (right, predicted, found, leaked)


def test_blanks_and_zero_width_characters_do_not_leak():
    row = judged(gold("a \u200bb\u3000", (0, 5, "PERSON"))).total

    # The ideographic space is a character that stands there for the eye; the others are not.
    assert (row.characters, row.leaked, row.missed) == (3, 3, 1)


def test_a_span_is_missed_when_more_than_half_of_it_leaks_whatever_covers_it():
    half = judged(gold("abcd", (0, 4, "PERSON")), finding("UUID", 0, 2)).total
    less = judged(gold("abcd", (0, 4, "PERSON")), finding("UUID", 0, 1)).total

    assert (half.missed, half.found, half.leaked) == (0, 0, 2)
    assert (less.missed, less.found, less.leaked) == (1, 0, 3)


def test_exact_means_both_ends_and_a_type_that_counts():
    record = {"text": "abcdef", "spans": [{"start": 0, "end": 3, "type": "ORG", "alt": ["PERSON"]}]}
    exact, loose = judged(record, finding("PERSON", 0, 3)), judged(record, finding("ORG", 0, 4))

    assert exact.total.summary()["exact_f1"] == 1.0
    assert loose.total.summary()["exact_f1"] == 0.0
    assert loose.total.f(1) == 1.0


def test_rows_by_type_group_source_language_and_cell():
    evaluation = Evaluation()
    evaluation.add(gold("ab", (0, 2, "PERSON"), lang="en", source="s"), [], group="g")
    evaluation.add(gold("ab", (0, 2, "URL"), lang="zh"), [finding("URL", 0, 2)], group="h")
    told = evaluation.summary()

    assert told["texts"] == 2
    assert {by: sorted(rows) for by, rows in told["by"].items()} == {
        "type": ["PERSON", "URL"],
        "group": ["g", "h"],
        "source": ["-", "s"],
        "language": ["en", "zh"],
        "cell": ["g/PERSON", "h/URL"],
    }
    assert told["by"]["group"]["g"]["recall"] == 0.0
    assert told["by"]["language"]["zh"]["f2"] == 1.0
    assert told["overall"]["recall"] == 0.5


def test_a_hard_negative_counts_for_alarms_and_for_nothing_else():
    evaluation = Evaluation()
    tagged = {"tags": ["hard_negative"], "lang": "zh"}
    evaluation.add(gold("abcd", **tagged), [finding("PERSON", 0, 2), finding("UUID", 2, 4)])
    evaluation.add(gold("abcd", **tagged), [finding("UUID", 0, 4)])
    evaluation.add(gold("abcd", **tagged), [])
    told = evaluation.summary()

    assert told["hard_negatives"]["ALL"] == told["hard_negatives"]["zh"]
    assert told["hard_negatives"]["ALL"]["rate"] == pytest.approx(1 / 3, abs=1e-4)
    assert told["hard_negatives"]["ALL"]["flagged_any"] == 2
    assert told["alarm_types"] == {"PERSON": 1}
    assert (told["overall"]["predicted"], told["masked_in_vain"]) == (0, 0.0)


def test_hidden_spans_count_by_the_first_other_tag():
    evaluation = Evaluation()
    for tags, found in (
        (["adversarial", "zero_width", "en"], [finding("EMAIL", 0, 4)]),
        (["homoglyph", "adversarial"], []),
        (["adversarial"], []),
    ):
        evaluation.add(gold("abcd", (0, 4, "EMAIL"), tags=tags), found)
    told = evaluation.summary()["adversarial"]

    assert {name: row["coverage"] for name, row in told.items()} == {
        "zero_width": 1.0,
        "homoglyph": 0.0,
        "unnamed": 0.0,
    }
    assert evaluation.covered().coverage == pytest.approx(1 / 3)


def test_what_is_masked_in_vain_is_told_for_texts_that_are_annotated_whole():
    record = gold("abcdefgh", (0, 2, "PERSON"), ignore=[[2, 4]])
    whole = judged(record, finding("PERSON", 0, 6))
    part = judged(record | {"scope": ["PERSON"]}, finding("PERSON", 0, 6))

    assert whole.summary()["masked_in_vain"] == 0.5
    assert part.innocent == 0


def test_figures_of_a_row():
    row = Row(gold=4, found=3, predicted=6, right=3, characters=10, leaked=1)

    assert (row.precision, row.recall, row.leak) == (0.5, 0.75, 0.1)
    assert row.f(1) == pytest.approx(0.6)
    assert row.f(2) == pytest.approx(5 * 0.5 * 0.75 / (4 * 0.5 + 0.75))
    assert Row().f(2) == Row().precision == Row().leak == 0.0


def test_every_label_is_a_type_that_a_policy_knows():
    assert LABELS <= TYPES


def test_totals_are_the_sum_of_their_parts_on_random_texts():
    dice = random.Random(11)
    evaluation = Evaluation()
    for number in range(200):
        places = [sorted(dice.sample(range(30), 2)) for _ in range(6)]
        kinds = dice.choices(("PERSON", "ORG", "UUID"), k=6)
        spans = [(*place, "PERSON") for place in places[:2]]
        record = gold("x" * 30, *spans, lang=dice.choice("ab"), source=dice.choice("cd"))
        found = [finding(k, *p) for k, p in zip(kinds[2:], places[2:], strict=True)]
        evaluation.add(record, found, group=str(number % 3))
    for rows in evaluation.by.values():
        for field in ("gold", "found", "predicted", "right", "leaked", "missed"):
            parts = sum(getattr(row, field) for row in rows.values())
            assert parts == getattr(evaluation.total, field)


# --- beside a baseline ----------------------------------------------------------------------


def beside(ours, theirs, record=None):
    """Judge both on one record; return the document."""
    record = record or gold("abcd efgh", (0, 4, "PERSON"), (5, 9, "PHONE"), lang="en")
    mine, baseline = Evaluation(), Baseline("Other 1", "m", 0.4, Evaluation())
    mine.add(record, ours, group="g")
    baseline.evaluation.add(record, baseline.counted(theirs), group="g")
    about = {"policy": "p", "policy_digest": "00", "names": True}
    return document(mine, [baseline], about)


PERSON, PHONE = finding("PERSON", 0, 4), finding("PHONE", 5, 9)


def test_the_better_one_is_nowhere_below():
    told = beside([PERSON, PHONE], [PERSON])

    assert told["comparison"]["beaten"]
    assert told["comparison"]["below"] == []
    assert told["comparison"]["leaked_ratio"] == 0.0
    assert "nowhere below it" in "\n".join(lines(told))


def test_one_type_below_is_marked_even_if_the_whole_is_better():
    told = beside([PHONE, finding("PERSON", 0, 1)], [PERSON])
    (marked,) = [row for row in told["comparison"]["below"] if row["by"] == "type"]

    assert not told["comparison"]["beaten"]
    assert (marked["name"], marked["lower_f2"], marked["leaks_more"]) == ("PERSON", True, True)
    assert any("PERSON" in line and "BELOW, LEAKS MORE" in line for line in lines(told))


def test_a_baseline_is_judged_from_its_threshold_on():
    told = beside([], [finding("PERSON", 0, 4, 0.39), finding("PHONE", 5, 9, 0.4)])
    row = told["baselines"][0]["summary"]["by"]["type"]

    assert (row["PERSON"]["recall"], row["PHONE"]["recall"]) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("record", "ours", "theirs", "field"),
    [
        (gold("abcd", tags=["hard_negative"]), [PERSON], [], "alarms_more"),
        (gold("abcd", (0, 4, "PERSON"), tags=["adversarial", "x"]), [], [PERSON], "covers_less"),
    ],
)
def test_more_alarms_or_fewer_hidden_spans_are_not_beaten(record, ours, theirs, field):
    told = beside(ours, theirs, record)

    assert told["comparison"][field]
    assert not told["comparison"]["beaten"]


def test_fewer_hidden_spans_alone_are_enough_not_to_be_beaten():
    spans = ((0, 4, "PERSON"), (5, 9, "PERSON"))
    record = gold("abcd efgh", *spans, tags=["adversarial", "x"])
    told = beside([PERSON], [finding("UUID", 0, 2), finding("UUID", 5, 7)], record)

    assert told["comparison"]["below"] == []
    assert told["comparison"]["covers_less"]
    assert not told["comparison"]["beaten"]


def test_without_a_baseline_there_is_no_comparison():
    evaluation = judged(gold("abcd", (0, 4, "PERSON")), PERSON)
    told = document(evaluation, [], {"policy": "p", "policy_digest": "", "names": False})

    assert told["comparison"] is None
    assert json.loads(json.dumps(told)) == told
    assert "patterns only" in "\n".join(lines(told))


def test_the_verdict_against_itself_is_a_draw_that_counts_as_beaten():
    evaluation = judged(gold("abcd", (0, 4, "PERSON")), finding("PERSON", 0, 1))

    assert compared(evaluation, Baseline("same", "m", 0.0, evaluation))["beaten"]
