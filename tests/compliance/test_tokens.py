"""Which token stands for a value: the same one always, another elsewhere, and never a finding."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compliance.findings import Finding
from compliance.tokens import TokenKeys, hash_of, one_spelling, spared
from meshkit.contract import Scope, TraceContext
from meshkit.sealing import SealBroken
from meshkit.tokens import ID_CHARS, ID_CHARS_LONG, find_tokens, has_digit_run, is_name, token_of

SECRET = b"s" * 32
SCOPE = Scope(
    call_id=b"\1" * 16,
    tenant="acme",
    principal="spiffe://x/y",
    session="case-7",
    trace=TraceContext(trace_id=b"\1" * 16, span_id=b"\2" * 8),
)


def name_of(type_, value, *, secret=SECRET, **changes):
    session = TokenKeys(secret).session(replace(SCOPE, **changes))
    return session.name(type_, session.mark(type_, value))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=9), min_size=1, max_size=6), st.randoms())
def test_the_same_value_has_the_same_token_in_every_turn_replica_and_order(values, random):
    first = {value: name_of("PERSON", value) for value in values}
    random.shuffle(values)
    again = {value: name_of("PERSON", value, call_id=b"other call id 16") for value in values}

    assert first == again
    assert all(is_name(name) and len(name) == len("PERSON_") + ID_CHARS for name in first.values())


def test_another_tenant_has_other_tokens():
    assert name_of("PERSON", "Ada") != name_of("PERSON", "Ada", tenant="other")


def test_another_session_has_other_tokens():
    assert name_of("PERSON", "Ada") != name_of("PERSON", "Ada", session="case-8")


def test_calls_without_a_session_have_tokens_of_their_own():
    alone = {"session": ""}

    assert name_of("PERSON", "Ada", **alone) == name_of("PERSON", "Ada", **alone)
    assert name_of("PERSON", "Ada", **alone) != name_of(
        "PERSON", "Ada", **alone, call_id=b"\2" * 16
    )


def test_nobody_can_name_a_call_as_a_session():
    keys, call = TokenKeys(SECRET), replace(SCOPE, session="", call_id=b"0123456789abcdef")

    assert (
        keys.session(call).place != keys.session(replace(SCOPE, session="0123456789abcdef")).place
    )


def test_another_secret_has_other_tokens():
    assert name_of("PERSON", "Ada") != name_of("PERSON", "Ada", secret=b"t" * 32)


def test_the_type_is_part_of_what_a_token_stands_for():
    assert name_of("PERSON", "Paris")[7:] != name_of("LOCATION", "Paris")[9:]


def test_places_and_fields_differ_by_tenant_session_and_token():
    keys = TokenKeys(SECRET)
    sessions = [
        keys.session(replace(SCOPE, tenant=tenant, session=session))
        for tenant in ("acme", "other")
        for session in ("case-7", "case-8")
    ]

    assert len({session.place for session in sessions}) == 4
    assert len({session.field("PERSON_7K3F9Q2MBX") for session in sessions}) == 4


@pytest.mark.parametrize(
    ("type_", "spellings"),
    [
        (
            "PERSON",
            ["Ada Lovelace", "ada  lovelace", "ADA LOVELACE", "Ada-Lovelace", "Ａda Lovelace"],
        ),
        ("CREDIT_CARD", ["4111 1111 1111 1111", "4111-1111-1111-1111", "4111111111111111"]),
        ("EMAIL", ["Ada@Example.org", "ada@example.org"]),
        ("PHONE", ["+1 (212) 555-0123", "+12125550123"]),
        ("DATE_OF_BIRTH", ["1980-01-02", "1980/01/02"]),
    ],
)
def test_spellings_of_one_value_share_a_token(type_, spellings):
    assert len({name_of(type_, each) for each in spellings}) == 1


@pytest.mark.parametrize(
    ("type_", "one", "other"),
    [
        ("DATE_OF_BIRTH", "1/12/1980", "11/2/1980"),
        ("IP_ADDRESS", "1.12.1.1", "11.2.1.1"),
        ("EMAIL", "a.b@example.org", "ab@example.org"),
        ("SECRET", "hunter22x", "Hunter22x"),
        ("PHONE", "+1212", "1212"),
        ("PERSON", "Ada", "Bob"),
    ],
)
def test_different_values_do_not(type_, one, other):
    assert one_spelling(type_, one) != one_spelling(type_, other)


@settings(max_examples=50, deadline=None)
@given(st.text(min_size=1, max_size=300))
def test_neither_token_nor_sealed_value_tells_how_long_it_is(value):
    session = TokenKeys(SECRET).session(SCOPE)
    name = name_of("PERSON", value)

    assert len(name) == len(name_of("PERSON", "x"))
    assert (len(session.seal(name, value)) - len(session.seal(name, ""))) % 64 == 0
    assert session.open(name, session.seal(name, value)) == value


def test_a_sealed_value_opens_for_its_own_token_alone():
    session = TokenKeys(SECRET).session(SCOPE)
    sealed = session.seal("PERSON_7K3F9Q2MBX", "Ada")

    with pytest.raises(SealBroken):
        session.open("PERSON_7K3F9Q2MBZ", sealed)


@pytest.mark.parametrize("change", [{"tenant": "other"}, {"session": "case-8"}])
def test_a_sealed_value_opens_in_its_own_session_alone(change):
    keys = TokenKeys(SECRET)
    sealed = keys.session(SCOPE).seal("PERSON_7K3F9Q2MBX", "Ada")

    with pytest.raises(SealBroken):
        keys.session(replace(SCOPE, **change)).open("PERSON_7K3F9Q2MBX", sealed)


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=1, max_size=8))
def test_ids_hold_no_number_and_the_long_one_begins_as_the_short(value):
    session = TokenKeys(SECRET).session(SCOPE)
    mark = session.mark("PHONE", value.hex())
    short, long = session.name("PHONE", mark), session.name("PHONE", mark, long=True)

    assert long.startswith(short)
    assert len(long) == len(short) - ID_CHARS + ID_CHARS_LONG
    assert not has_digit_run(long)
    assert [token.name for token in find_tokens(token_of(long))] == [long]


def test_a_hash_is_the_tenants_in_all_sessions_and_nobody_elses():
    keys = TokenKeys(SECRET)
    hashed = hash_of(keys.hashes("acme"), "PERSON", "Ada Lovelace")

    assert hashed == hash_of(keys.hashes("acme"), "PERSON", "ada lovelace")
    assert hashed != hash_of(keys.hashes("other"), "PERSON", "Ada Lovelace")
    assert hashed != hash_of(keys.hashes("acme"), "PERSON", "Ada Byron")
    assert hashed.startswith("[PERSON#")


def found(text, start, end, type_="PERSON", recognizer="r"):
    return Finding(type_, "", start, end, 0.9, recognizer)


def cut(text, *findings):
    return [text[f.start : f.end] for f in spared(findings, text)]


def test_tokens_and_hashes_are_no_findings_and_what_stands_beside_is():
    hashed = hash_of(b"k" * 32, "PERSON", "Ada")
    text = f"Dear [PERSON_7K3F9Q2MBX], {hashed} and Bob"

    assert cut(text, found(text, 6, 22)) == []
    assert cut(text, found(text, 5, 25)) == []
    assert cut(text, found(text, 0, len(text))) == ["Dear ", " and Bob"]


def test_a_number_in_the_shape_of_a_token_is_a_finding():
    for text in ("[PHONE_2345678923]", "[PHONE#2345678923456789]"):
        assert cut(text, found(text, 7, len(text) - 1)) != []


def test_the_mark_of_a_block_is_never_cut():
    text = "x PERSON_7K3F9Q2MBX y"
    block = found(text, 0, len(text), "SECRET", "base64_block")

    assert spared([block], text) == [block]


@settings(max_examples=50, deadline=None)
@given(st.text("ab [PERSON_7K3F9Q2MBX]", max_size=60), st.lists(st.integers(0, 60), max_size=4))
def test_sparing_takes_nothing_away_but_tokens(text, places):
    places = sorted({min(place, len(text)) for place in places})
    given_ = [found(text, a, b) for a, b in pairwise(places) if a < b]
    spans = [(token.start, token.end) for token in find_tokens(text)]
    kept = {place for f in spared(given_, text) for place in range(f.start, f.end)}

    for finding in given_:
        for place in range(finding.start, finding.end):
            within = any(start <= place < end for start, end in spans)
            assert (place in kept) != within or not text[place].isalnum()
