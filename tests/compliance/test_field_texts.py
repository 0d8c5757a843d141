"""Mails, chats, notes, logs, forms and code that people may send, in seven languages.

`data/field_en.jsonl` and `field_eu.jsonl` are labelled; `field_negatives.jsonl` holds nobody.
The texts are our own. Organisations are not labelled.
"""

import json
from pathlib import Path

import pytest

from compliance.evaluate import Evaluation
from compliance.policy import Action
from compliance.scanner import findings_of
from compliance.transform import masked
from meshkit.contract import Direction

DATA = Path(__file__).parent / "data"
STRUCTURED_F2_MIN = 0.95
NAMES_F2_MIN = {
    "field_en/PERSON": 0.97,
    "field_en/LOCATION": 0.95,
    "field_eu/PERSON": 0.9,
    "field_eu/LOCATION": 0.92,
}
ALARMS_MAX = 0.03
NAMES = {"PERSON", "LOCATION"}


def read(name):
    with (DATA / f"{name}.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


async def found_in(scanner, text):
    windows = scanner.windows(text)
    return list(findings_of(windows, await scanner.scan(windows, Direction.PROMPT)))


async def masked_in(scanner, text):
    """What would not pass, as (type, value)."""
    return {
        (finding.type, text[finding.start : finding.end])
        for finding in await found_in(scanner, text)
        if scanner.policy.decide(finding.type, finding.subtype, Direction.PROMPT).action
        not in {Action.ALLOW, Action.FLAG}
    }


async def test_field_texts_lose_little(naming_scanner):
    seen = Evaluation()
    for group in ("field_en", "field_eu"):
        for record in read(group):
            seen.add(record, await found_in(naming_scanner, record["text"]), group=group)
    figures = seen.summary()["by"]

    assert {
        name: figures["cell"][name]["f2"]
        for name, least in NAMES_F2_MIN.items()
        if figures["cell"][name]["f2"] < least
    } == {}
    low = {
        name: row["f2"]
        for name, row in figures["type"].items()
        if name not in NAMES and row["gold"] >= 3 and row["f2"] < STRUCTURED_F2_MIN
    }
    assert low == {}


async def test_texts_about_nobody_pass(naming_scanner):
    texts = [record["text"] for record in read("field_negatives")]
    alarms = {text: hits for text in texts if (hits := await masked_in(naming_scanner, text))}

    assert len(alarms) <= ALARMS_MAX * len(texts), alarms


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Andou, Jeremy Hartmann of Gradiant Research LLC called", "Jeremy Hartmann"),
        ("Priscilla Yamamoto of Northfield Capital Partners signed", "Priscilla Yamamoto"),
        ("Ask Fiona and Acme Holdings LLC about it", "Fiona"),
        ("sold to Jeremy Hartmann LLC", "Jeremy Hartmann"),
    ],
)
async def test_a_firm_hides_no_person(naming_scanner, text, value):
    assert ("PERSON", value) in await masked_in(naming_scanner, text)


async def test_a_department_is_no_firm(naming_scanner):
    (finding,) = await found_in(naming_scanner, "in the Toronto office")

    assert (finding.type, finding.subtype, finding.start) == ("LOCATION", "PLACE", 7)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("What is the capital of France?", "What is the capital of France?"),
        ("He moved from Paris, France to Berlin.", "He moved from Paris, France to Berlin."),
        ("中国的首都是北京市。", "中国的首都是北京市。"),
        ("Maria Keller of Berlin", "[PERSON] of Berlin"),
        ("She lives at 12 Oak Street, Springfield, IL 62704.", "She lives at [LOCATION]."),
    ],
)
async def test_a_known_place_by_itself_passes_by_default_and_an_address_does_not(
    naming_scanner, text, left
):
    findings = await found_in(naming_scanner, text)

    assert masked(text, findings, naming_scanner.policy, Direction.PROMPT) == left


async def test_the_number_of_the_textbooks_is_masked_by_itself(scanner):
    (finding,) = await found_in(scanner, "123-45-6789")

    assert (finding.type, finding.score) == ("US_SSN", 0.85)


@pytest.mark.parametrize("value", ["078-05-1120", "000-12-3456", "666-12-3456", "950-12-3456"])
async def test_numbers_never_issued_are_no_ssn(scanner, value):
    assert all(finding.type != "US_SSN" for finding in await found_in(scanner, value))


@pytest.mark.parametrize(
    "text",
    [
        "EVALSHA is not allowed in MULTI",
        "We fine-tune BERT on GLUE",
        "Tyres 205/55 R16 91V, summer",
        "512 units on the way, 69903/957528 done",
        "MemFree: 9331759 kB",
    ],
)
async def test_acronyms_sizes_and_counts_are_nobody(naming_scanner, text):
    assert await masked_in(naming_scanner, text) == set()
