"""Disguised values: what share is covered, by technique; and what a disguise costs."""

import json
import runpy
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from compliance.scanner import findings_of
from meshkit.contract import Direction

SCRIPT = Path(__file__).with_name("adversarial.py")
_SET = runpy.run_path(str(SCRIPT))
TECHNIQUES, records = _SET["TECHNIQUES"], _SET["records"]
OVERALL_MIN = 0.97
TECHNIQUE_MIN = 0.88


async def covered(scanner, record):
    windows = scanner.windows(record["text"])
    findings = findings_of(windows, await scanner.scan(windows, Direction.PROMPT))
    (span,) = record["spans"]
    places = range(span["start"], span["end"])
    seen = sum(any(f.start <= i < f.end for f in findings) for i in places)
    return seen * 2 > len(places)


async def test_nearly_every_disguised_value_is_covered(scanner):
    missed, total = defaultdict(list), Counter()
    for record in records():
        technique = record["tags"][1]
        total[technique] += 1
        if not await covered(scanner, record):
            missed[technique].append(record["text"])

    assert len(total) == len(TECHNIQUES) >= 20
    assert sum(map(len, missed.values())) <= (1 - OVERALL_MIN) * total.total(), dict(missed)
    for technique, texts in missed.items():
        assert len(texts) <= (1 - TECHNIQUE_MIN) * total[technique], (technique, texts)


def test_the_set_is_the_same_each_time_and_marks_its_values():
    assert list(records()) == list(records())
    for record in records():
        (span,) = record["spans"]
        assert 0 <= span["start"] < span["end"] <= len(record["text"])


def test_it_prints_what_evaluate_reads(capsys):
    runpy.run_path(str(SCRIPT), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()

    assert [json.loads(line) for line in lines] == list(records())


@pytest.mark.parametrize(
    "text",
    [
        "2024 was 12% up on 2023 (11%), as 7 of 9 said at 10 a.m.",
        "call foo(a, b) == 3 or x[1] != y[2] and see docs at docs.python.org",
        "我们在2024年有三个目标，第一是质量，第二是速度。",
        "| 2019 | 2020 | 2021 |\n| 10 | 20 | 30 |",
        "look at the dot com boom, meet me @ noon, one two three",
        "sum of 1, 2, 3, 4, 5, 6, 7, 8 and 9",
        "sha 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b",
        "items: 12 34 56 78 90 12 34",
    ],
)
def test_no_disguise_is_seen_where_there_is_none(text, engine):
    assert [f for f in engine.find(text, 0) if "+" in f.recognizer and f.score >= 0.5] == []
