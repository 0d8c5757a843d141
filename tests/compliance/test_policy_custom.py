"""What a policy finds by itself: its dictionaries, its patterns, and the tests that try them."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compliance.engine import SPAN_MAX, Engine
from compliance.normalise import fold
from compliance.policy import SHIPPED, PolicyError, chained, parse_policy, shipped
from compliance.policy_finder import CHECKS, Finders, recognizer_of
from compliance.policy_format import CheckName, Dictionary, Pattern, read_file
from compliance.policy_trial import failures, try_out
from compliance.policy_words import WordFinder
from compliance.scanner import Scanner, findings_of
from compliance.service import ComplianceService
from compliance.transform import masked
from meshkit.contract import Direction

HOUSE = r"""
version: 1
name: house
default: {prompt: mask, answer: mask}
types:
  CUSTOM_CODE: {prompt: replace, answer: replace, replacement: "<code>"}
dictionaries:
  - {name: wards, type: CUSTOM_WARD, terms: [Ward 7, 七病区, "St. Mary's", Ada Lovelace House]}
  - {name: parts, type: CUSTOM_PART, terms: [zyx], whole_words: false, case: true}
patterns:
  - {name: staff, type: CUSTOM_STAFF, pattern: 'E[0-9]{6}', case: false}
  - {name: label, type: CUSTOM_CODE, pattern: '(?:code|编号)[:： ]{1,3}(?P<v>[A-Z0-9]{4,12})'}
  - name: member
    type: CUSTOM_MEMBER
    pattern: '[0-9]{10}'
    score: 0
    context_score: 0.9
    context: [Member, 会员]
    check: luhn
  - {name: line, type: CUSTOM_LINE, pattern: 'begin:(?:[a-z]{1,8} ){1,50};', whole_words: false}
"""


@pytest.fixture(scope="session")
def finders(engine):
    return Finders(engine)


@pytest.fixture(scope="session")
def house(finders):
    policy = parse_policy(HOUSE)
    return Scanner(finders.of(policy), policy)


def words(*terms, **more):
    return WordFinder(Dictionary(name="d", type="CUSTOM_D", terms=list(terms), **more))


def found(finder, text):
    return [text[f.start : f.end] for f in finder.find(fold(text), 0)]


@pytest.mark.parametrize(
    ("terms", "text", "values"),
    [
        (["Ward 7"], "in ward 7, WARD  7 and Ward\n7.", ["ward 7", "WARD  7", "Ward\n7"]),
        (["Ward 7"], "Ward 77, Wards 7, Ward7, Ward    7, xWard 7", []),
        (["七病区"], "住在七病区里；七 病区", ["七病区", "七 病区"]),
        (["Müller"], "MÜLLER, Müllers, Mu\u0308ller", ["MÜLLER"]),
        (["paypal"], "p\u0430ypal and ｐａｙｐａｌ", ["p\u0430ypal", "ｐａｙｐａｌ"]),
        (["New", "New York City"], "New York City, New York", ["New York City", "New"]),
        (["A-12"], "A-12 A12 a-12", ["A-12", "a-12"]),
        (["snake_case"], "snake_case snake case", ["snake_case"]),
    ],
)
def test_terms_are_found_as_whole_words(terms, text, values):
    assert found(words(*terms), text) == values


def test_case_and_parts_of_words_are_options():
    assert found(words("Art", case=True), "art Art ART") == ["Art"]
    assert found(words("art", whole_words=False), "part, ARTful") == ["art", "ART"]


def test_thousands_of_terms_cost_no_more_looks_than_one(monkeypatch):
    """Counted, not timed: a text is walked once, whatever the dictionary's size."""
    looks = []
    many = words(*(f"term{n} of {n}" for n in range(20_000)), "needle")
    text = "some ordinary words and a needle here " * 20
    longest = WordFinder._longest
    monkeypatch.setattr(
        WordFinder, "_longest", lambda self, row, i: looks.append(i) or longest(self, row, i)
    )

    assert found(many, text) == ["needle"] * 20
    assert len(looks) == len(text.split())


def test_what_began_before_the_segment_is_cut_there():
    (finding,) = words("Ward 7").find(fold("to Ward 7"), 5)
    assert (finding.start, finding.end, finding.recognizer) == (5, 9, "policy:d")


def test_terms_come_from_a_file_beside_the_policy():
    text = (
        "{version: 1, name: p, extends: default, dictionaries: [{name: d, type: ORG, file: d.txt}]}"
    )
    lines = "# ours\n  Acme  \n\nGlobex\nAcme\n".encode("utf-8-sig")

    (entry,) = chained(read_file(text, {"d.txt": lines}.__getitem__)).file.dictionaries
    assert entry.terms == ["Acme", "Globex"]
    with pytest.raises(PolicyError, match="not UTF-8"):
        read_file(text, lambda _name: b"\xff\xfe")
    with pytest.raises(PolicyError, match="no folder"):
        read_file(text)
    for bad in ("../d.txt", "/etc/passwd.txt", ".d.txt"):
        with pytest.raises(PolicyError, match="file"):
            read_file(text.replace("d.txt", bad), lambda _name: b"x")


async def scanned(scanner, text):
    windows = scanner.windows(text)
    return findings_of(windows, await scanner.scan(windows, Direction.PROMPT))


async def test_patterns_weigh_context_and_checksum(house):
    async def types(text):
        return [f.type for f in await scanned(house, text) if f.type.startswith("CUSTOM_")]

    assert await types("E123456 e123456 XE123456 E1234567") == ["CUSTOM_STAFF"] * 2
    assert await types("member 4000000010, 会员4000000010") == ["CUSTOM_MEMBER"] * 2
    assert await types("member 4000000011 and 4000000010" + " " * 60 + "4000000010") == [
        "CUSTOM_MEMBER"
    ]
    (finding,) = await scanned(house, "编号：AB12CD")
    assert (finding.type, finding.start, finding.end) == ("CUSTOM_CODE", 3, 9)


async def test_one_tenants_patterns_do_not_bear_on_anothers_text(finders, engine, house):
    policy = parse_policy("{version: 1, name: other, extends: default}")
    other = Scanner(finders.of(policy), policy)

    assert other.engine is engine
    assert await scanned(other, "E123456 in Ward 7") == []
    assert len(await scanned(house, "E123456 in Ward 7")) == 2


def test_policies_that_find_the_same_share_a_finder(finders):
    one, same = parse_policy(HOUSE), parse_policy(HOUSE.replace("name: house", "name: same"))
    other = parse_policy(HOUSE.replace("E[0-9]{6}", "E[0-9]{7}"))

    assert one.digest != same.digest
    assert finders.of(one) is finders.of(same)
    assert finders.of(one) is not finders.of(other)


@given(st.text("E0123456789 ;:bcodegin编号一" + "\u200b\uff10", max_size=120))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_prefilter_hides_nothing_of_a_policys_patterns(house, text):
    own = house.engine.own
    plain = Engine([recognizer_of(pattern) for pattern in house.policy.file.patterns])

    assert own.find(text, 0) == plain.find(text, 0)


PLANTED = [
    *("E123456", "Ward 7", "七病区", "St. Mary's", "code: ABC123", "编号：ZX81", "xzyxx"),
    *(
        "member 4000000010",
        "begin:" + "wordword " * 49 + ";",
        "ada@example.org",
        "Ada Lovelace House",
    ),
]
FILLERS = [
    "a few words, ",
    "and so on. ",
    "\n",
    "。",
    "他说",
    " ",
    "E12",
    "Ward ",
    "x" * 40,
    "9 9 ",
]


@given(
    parts=st.lists(st.sampled_from(PLANTED + FILLERS), max_size=24),
    size=st.sampled_from([1, 2, 3, 7, 31]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_chunking_releases_the_same_with_a_policys_own_patterns(
    house, mac_keys, scope, parts, size
):
    text = "".join(parts)
    service = ComplianceService(
        house, lambda: mac_keys, memo_entries_max=0, text_chars_max=1_000_000
    )

    def answer(chunks):
        async def deltas():
            for chunk in chunks:
                yield chunk

        async def collect():
            return [item async for item in service.release(scope, deltas())][-1]

        work = collect()
        try:
            while True:
                work.send(None)
        except StopIteration as stop:
            return stop.value

    whole = answer([text] if text else [])
    assert answer([text[i : i + size] for i in range(0, len(text), size)]) == whole
    windows = house.windows(text)
    for window in windows:
        assert all(f.end - f.start <= SPAN_MAX for f in house.engine.find(window.text, 0))


# --- tests within a policy ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("test", "says"),
    [
        ("{text: E12345, finds: {CUSTOM_STAFF: E12345}}", "CUSTOM_STAFF is not found"),
        ("{text: E123456, finds: {CUSTOM_STAFF: [E123456, E12345]}}", "CUSTOM_STAFF is not found"),
        ("{text: E123456, lacks: [CUSTOM_STAFF]}", "CUSTOM_STAFF is found"),
        ("{text: a@b.org, lacks: any}", "EMAIL is found"),
        ("{text: E123456, becomes: E123456}", "it becomes another text"),
        ("{text: E123456, blocked: true}", "it is not blocked"),
    ],
)
def test_a_test_that_fails_refuses_the_policy(finders, test, says):
    policy = parse_policy(HOUSE + f"tests: [{{text: hello, lacks: any}}, {test}]\n")

    with pytest.raises(PolicyError, match=rf"house: tests\.1: {says}") as caught:
        try_out(policy, finders.of(policy))
    assert "E123456" not in str(caught.value)


def test_a_test_sees_what_a_call_would(finders):
    policy = parse_policy(
        HOUSE.replace("name: house", "name: h\nextends: pci-dss")
        + "tests:\n  - {text: 'code: ABC123 a@b.org', becomes: 'code: <code> [EMAIL]'}\n"
        "  - {text: ';4111111111111111=27121011000000000000?', direction: answer, blocked: true}\n"
    )
    assert list(failures(policy, finders.of(policy))) == []


@pytest.mark.parametrize("test", ["{text: x}", "{text: x, find: {EMAIL: x}}", "{lacks: any}"])
def test_a_test_that_nothing_can_fail_is_refused(test):
    with pytest.raises(PolicyError, match="tests"):
        parse_policy(HOUSE + f"tests: [{test}]\n")


@pytest.mark.parametrize("name", SHIPPED)
def test_what_ships_passes_its_own_tests(name, finders):
    policy = chained(shipped(name))

    assert list(failures(policy, finders.of(policy))) == []
    assert name == "default" or len(policy.file.tests) >= 5


def test_hipaa_names_all_eighteen_identifiers():
    from importlib.resources import files

    text = files("compliance").joinpath("policies/hipaa-safe-harbor.yaml").read_text()
    assert all(f"# ({letter}) " in text for letter in "ABCDEFGHIJKLMNOPQR")


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("{name: p, type: CUSTM_X, pattern: 'ab'}", "type"),
        ("{name: p, type: CUSTOM_x, pattern: 'ab'}", "type"),
        ("{name: P, type: ORG, pattern: 'ab'}", "name"),
        ("{name: p, type: ORG, pattern: 'ab', check: lunh}", "check"),
        ("{name: p, type: ORG, pattern: 'ab', score: 2}", "score"),
        ("{name: staff, type: ORG, pattern: 'ab'}", "the same name"),
    ],
)
def test_a_pattern_is_strict_about_what_it_says(entry, says):
    with pytest.raises(PolicyError, match=says):
        parse_policy(HOUSE + f"  - {entry}\n")


def test_every_check_that_a_pattern_may_name_is_there():
    assert set(CheckName.__args__) == set(CHECKS)
    assert CHECKS["mod97"]("98")
    assert not CHECKS["mod97"]("99")
    assert recognizer_of(Pattern(name="p", type="ORG", pattern="ab")).score == (0.9, 0.9)


def test_a_mask_of_a_custom_type_is_not_found_again(house):
    policy = house.policy
    (finding,) = house.engine.own.find("E123456", 0)
    text = masked("E123456", [finding], policy, Direction.PROMPT)

    assert text == "[CUSTOM_STAFF]"
    assert house.engine.find(text, 0) == []
