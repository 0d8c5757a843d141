"""The worked example of docs/policy.md loads, and `policy check` tells what docs say it tells."""

import json
import re
from pathlib import Path

import pytest

from compliance.policy import SHIPPED
from compliance.policy_finder import Finders
from compliance.policy_format import (
    CHAIN_MAX,
    DICTIONARIES_MAX,
    PATTERNS_MAX,
    TERMS_MAX,
    TESTS_MAX,
    CheckName,
)
from compliance.policy_library import POLICIES_MAX, TENANTS_MAX, load_book
from compliance.policy_trial import try_out
from sealgate.cli import main

DOCS = (Path(__file__).parents[2] / "docs" / "policy.md").read_text()
NAMED = re.compile(r"`policies/([a-z0-9.\-]+\.yaml)`:\n\n```yaml\n(.*?)```", re.DOTALL)


@pytest.fixture
def folder(tmp_path):
    for name, text in NAMED.findall(DOCS):
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_worked_example_loads_and_passes_its_tests(folder, engine):
    book = load_book(folder)
    assert set(book.policies) == {"ward-7", "hipaa-safe-harbor", "pci-dss"}
    assert book.of("acme").name == "ward-7"
    assert len(book.of("acme").file.tests) == 4
    for policy in book.policies.values():
        try_out(policy, Finders(engine).of(policy))


def test_the_worked_example_is_tried_not_just_read(folder, engine):
    text = (folder / "ward-7.yaml").read_text()
    (folder / "ward-7.yaml").write_text(text.replace("E[0-9]{6}", "F[0-9]{6}"))
    policy = load_book(folder).of("acme")
    with pytest.raises(Exception, match=r"ward-7: tests\.0"):
        try_out(policy, Finders(engine).of(policy))


def test_limits_and_names_are_those_of_the_code():
    for limit in (CHAIN_MAX, DICTIONARIES_MAX, TERMS_MAX, PATTERNS_MAX, TESTS_MAX):
        assert f"{limit:,}" in DOCS
    assert f"{POLICIES_MAX} policies and {TENANTS_MAX:,} tenants" in DOCS
    assert all(f"`{name}`" in DOCS for name in (*CheckName.__args__, *SHIPPED))


def test_check_prints_digest_and_rules(folder, engine, capsys):
    assert main(["compliance", "policy", "check", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["tenants"] == {"acme": "ward-7", "globex": "pci-dss"}
    ward = next(each for each in told["policies"] if each["name"] == "ward-7")
    assert ward["digest"] == load_book(folder).of("acme").digest.hex()
    rule = next(each for each in ward["rules"] if each["type"] == "PHONE")
    assert rule["prompt"]["replacement"] == "<phone>"

    assert main(["compliance", "policy", "check", str(folder / "ward-7.yaml")]) == 0
    assert ward["digest"] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("E[0-9]{6}", "E[0-9]+"), "pattern staff_number: repeats must end"),
        (("lacks: any", "lacks: [X]\n    finds: {EMAIL: none}"), "tests.3: EMAIL is not found"),
        (("extends: hipaa-safe-harbor", "extends: nobody"), "nobody.yaml: No such file"),
    ],
)
def test_check_says_what_is_wrong(folder, engine, capsys, change, says):
    text = (folder / "ward-7.yaml").read_text()
    assert change[0] in text
    (folder / "ward-7.yaml").write_text(text.replace(*change))

    assert main(["compliance", "policy", "check", str(folder / "ward-7.yaml")]) == 2
    assert says in capsys.readouterr().err
