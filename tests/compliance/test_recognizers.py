"""Every recognizer finds its example, names its source, and keeps away from look-alikes."""

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compliance.coverage import page
from compliance.engine import Engine
from compliance.findings import TYPES
from compliance.policy import default_policy
from compliance.recognizers import ALL
from compliance.transform import decide
from meshkit.contract import Direction

BY_NAME = {recognizer.name: recognizer for recognizer in ALL}
CHECKS = {recognizer.name: recognizer.check for recognizer in ALL if recognizer.check is not None}


FORMS = frozenset(
    [
        "street_address",
        "ipv4",
        "ipv6",
        "mac_address",
        "date_of_birth",
        "date_then_birth",
        "medical_record",
        "passport_by_label",
        "driving_licence",
        "phone_international",
        "phone_national",
        "secret_assignment",
        "secret_in_variable",
        "bearer_token",
        "labelled_random",
        "cloud_secret_by_name",
        "kubeconfig_data",
        "connection_password",
        "curl_basic",
        "us_ssn",
        "us_ssn_dashed",
        "us_ssn_odd",
        "us_phone",
        "insurance_number",
        "cn_resident_id_old",
        "cn_qq_wechat",
        "cn_certificate",
        "cn_medical_label",
        "cn_ip_by_label",
        "cn_engine_number",
        "cn_vin_by_label",
        "de_id_card",
        "eu_vat",
        "uk_plate",
        "ie_eircode",
        "de_practice",
        "fr_id_card",
        "it_driving_licence",
        "in_pan",
        "in_gstin",
        "in_plate",
        "kr_rrn",
        "mx_curp",
        "sg_uen",
        "tr_phone",
    ]
)
"""Recognizers whose check is a rule of form (how many digits, a day, a letter), no checksum."""


def found(engine, text):
    return decide(engine.find(text, 0), default_policy(), Direction.PROMPT)


def test_every_recognizer_has_an_example(examples):
    assert set(examples) == set(BY_NAME)
    assert len(BY_NAME) == len(ALL) >= 230


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_a_recognizer_finds_its_example_by_itself(name, examples):
    text, value = examples[name]
    hits = [f for f in Engine([BY_NAME[name]]).find(text, 0) if f.score >= 0.5]

    # A set: a value may be found once as it stands and once more behind an escape undone.
    assert {text[f.start : f.end] for f in hits} == {value}


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_all_together_cover_the_example_with_its_type(name, examples, engine):
    text, value = examples[name]
    start = text.index(value)
    covered = set()
    for finding in found(engine, text):
        covered |= set(range(finding.start, finding.end))

    assert covered >= set(range(start, start + len(value)))


@pytest.mark.parametrize("recognizer", ALL, ids=lambda r: r.name)
def test_a_recognizer_is_well_formed(recognizer):
    assert recognizer.type in TYPES
    assert len(recognizer.source) > 5
    assert "\\b" not in recognizer.pattern
    assert all(0 <= s <= 1 for s in (*recognizer.score, *recognizer.rejected))
    assert recognizer.score[0] <= recognizer.score[1]


@pytest.mark.parametrize(
    "text",
    [
        "Order 4111 1111 1111 1112 has shipped",
        "ISBN 978-3-16-148410-0 is out of print",
        "tracking number 1Z999AA10123456784",
        "version 1.2.3.4567 of the library",
        "commit 9fceb02d0ae598e95dc970b74767f19372d61af8",
        "id 550e8400-e29b-41d4-a716-446655440000",
        "at 2026-03-02T10:22:01Z it took 1234567 bytes",
        "the price is 1,299.00 USD, or 12 345 678 in all",
        "range 100-200, page 12, room 404, 3.14159265358979, 1.7724538509",
        "订单号20230415123456789已发货，运单号73120948571234",
        "版本号2.10.4567，价格12345.67元，共1000000件",
        "timestamp 1700000000 and 1700000000000",
        "def f(self, key: str, token: Token) -> None: password = get_password()",
        "GET /api/v1/users/12345678 HTTP/1.1 200 5120",
        "it takes a 4 bytes key, and 7 is the key here",
        "S3, EKS, C4, x86_64, utf-8, sha256, t3.large, us-east-1",
    ],
)
def test_hard_negatives_stay_quiet(text, engine):
    assert [f.recognizer for f in found(engine, text)] == []


@pytest.mark.parametrize(
    ("text", "value", "kind"),
    [
        (
            "卡号４１１１－１１１１－１１１１－１１１１。",
            "４１１１－１１１１－１１１１－１１１１",
            "CREDIT_CARD",
        ),
        ("4111\u200b1111\u200b1111\u200b1111", "4111\u200b1111\u200b1111\u200b1111", "CREDIT_CARD"),
        ("call ٢١٢-٤٥٦-٧٨٩٠ now", "٢١٢-٤٥٦-٧٨٩٠", "PHONE"),
        ("536–22–8726", "536–22–8726", "US_SSN"),
        ("mail аda@exаmple.org", "аda@exаmple.org", "EMAIL"),
        ("邮箱ada@example.org谢谢", "ada@example.org", "EMAIL"),
        ("电话138\u00a01234\u00a05678", "138\u00a01234\u00a05678", "PHONE"),
        ("4\u0336111 1111 1111 1111", "4\u0336111 1111 1111 1111", "CREDIT_CARD"),
    ],
)
def test_disguises_are_seen_through_and_offsets_are_the_original_ones(text, value, kind, engine):
    hits = [f for f in found(engine, text) if f.type == kind]

    assert [text[f.start : f.end] for f in hits] == [value]


def test_context_raises_what_a_checksum_turned_down(engine):
    # Most ids that people make up fail GB 11643, yet stand behind 身份证.
    assert not [f for f in found(engine, "4111 1111 1111 1112") if f.type == "CREDIT_CARD"]
    assert [f.type for f in found(engine, "card 4111 1111 1111 1112")] == ["CREDIT_CARD"]
    assert [f.type for f in found(engine, "身份证110105194912310021")] == ["CN_RESIDENT_ID"]


@given(st.text(max_size=40))
@settings(max_examples=150)
def test_no_check_raises_on_any_text(text):
    for name, check in CHECKS.items():
        assert isinstance(check(text), bool), name


@pytest.mark.parametrize(
    "name", ["credit_card", "iban", "cn_resident_id", "uk_nhs", "es_dni", "cn_uscc"]
)
def test_a_checksum_notices_one_changed_digit(name, examples):
    value = examples[name][1]
    check = BY_NAME[name].check
    places = [i for i, c in enumerate(value) if c.isdigit()]
    changed = [value[:i] + str((int(value[i]) + 1) % 10) + value[i + 1 :] for i in places]

    assert check(value)
    assert not any(check(other) for other in changed)


def test_context_words_are_lower_case():
    assert [r.name for r in ALL if any(word != word.lower() for word in r.context)] == []


@pytest.mark.parametrize("recognizer", [r for r in ALL if r.check], ids=lambda r: r.name)
def test_a_check_turns_down_most_of_what_its_pattern_takes(recognizer, examples):
    """A checksum that lets every changed digit through is none; rules of form are told apart."""
    value = examples[recognizer.name][1]
    changed = [
        value[:i] + str((int(c) + step) % 10) + value[i + 1 :]
        for i, c in enumerate(value)
        if c.isascii() and c.isdigit()
        for step in (1, 3, 7)
    ]
    taken = sum(recognizer.check(other) for other in changed)

    assert recognizer.check(value)
    assert recognizer.name in FORMS or taken <= 0.5 * len(changed)


PATHOLOGICAL = [
    *("0", "1 ", "a", "A1", "aA1-", "1.", "é", "ab.", "0:", "::", "a@", "-----", "1/", "AB12 "),
    *("Rue A", "via ", "Aa ", "路1号", "张", "a1_", "key=", "password ", "://a:", "(0", "9-", "\n"),
]


@pytest.mark.parametrize("piece", PATHOLOGICAL)
def test_no_pattern_blows_up_on_repeats(piece):
    """Doubling the text may take some four times as long, never a thousand times."""
    slow = []
    for recognizer in ALL:
        text = (piece * 600)[:600] + "!"
        started = time.thread_time()
        for _ in recognizer.compiled.finditer(text):
            pass
        if time.thread_time() - started > 0.25:
            slow.append(recognizer.name)
    assert slow == []


def test_the_page_of_recognizers_is_as_the_code_is():
    written = Path(__file__).parents[2] / "docs" / "recognizers.md"

    assert written.read_text("utf-8") == page()
