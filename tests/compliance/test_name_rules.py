"""Rules for names in Latin script: what they find, what they leave open, what they let be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compliance.name_rules import survey
from compliance.name_words import (
    COMMON_WORDS,
    GIVEN_NAMES,
    ORG_NOUNS,
    PLACES,
    PLAIN_IN_LOWER_CASE,
    SURNAMES_THAT_ARE_WORDS,
)


def spots(text, core=0):
    seen = survey(text, core)
    return set() if seen is None else {(text[a:b], kind) for kind, a, b, _ in seen.spots}


def open_words(text, core=0):
    seen = survey(text, core)
    return set() if seen is None else {text[a:b] for a, b in seen.open}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Please ask Mr Keller about it", ("Keller", "PERSON")),
        ("dear Dr. Price, thank you", ("Price", "PERSON")),
        ("représentée par Me X, M. Osman Çağlayan a dit", ("Osman Çağlayan", "PERSON")),
        ("el Sr. Galip Yalman y otros", ("Galip Yalman", "PERSON")),
        ("vertreten durch Frau Dr. Anke von der Heide", ("Anke von der Heide", "PERSON")),
        ("agent was Lord Rodger of Earlsferry, then", ("Rodger of Earlsferry", "PERSON")),
        ("met Maria Keller yesterday", ("Maria Keller", "PERSON")),
        ("JOHN SMITH was here", ("JOHN SMITH", "PERSON")),
        ("represented by S. Kotuła, a lawyer", ("S. Kotuła", "PERSON")),
        ("it was Faina D. Yefremova who", ("Faina D. Yefremova", "PERSON")),
        ("ask mr patel about it", ("patel", "PERSON")),
        ("Maria Keller's idea", ("Maria Keller", "PERSON")),
        ("flights to New Zealand today", ("New Zealand", "LOCATION")),
        ("il habite au Royaume-Uni", ("Royaume-Uni", "LOCATION")),
        ("he flew to belgium again", ("belgium", "LOCATION")),
        ("shipped to Italy 95787 today", ("Italy 95787", "LOCATION")),
        ("in the Republic of Fooland since", ("Republic of Fooland", "LOCATION")),
        ("deliver to apt. 169 please", ("apt. 169", "LOCATION")),
        ("Please return to Unit 4719 Box 7394", ("Unit 4719 Box 7394", "LOCATION")),
        ("APO AE 98711 is it", ("APO AE 98711", "LOCATION")),
        ("12 rue de la Paix 14, s'il vous plaît", ("12 rue de la Paix 14", "LOCATION")),
        ("wohnt Lindenstraße 12 hinten", ("Lindenstraße 12", "LOCATION")),
        ("she studied at Kroll Bond University", ("Kroll Bond University", "ORG")),
        ("the Bank of Esmond said", ("Bank of Esmond", "ORG")),
        ("he works for Zubrowka Fils now", ("Zubrowka Fils", "ORG")),
    ],
)
def test_rules_find(text, expected):
    assert expected in spots(text)


@pytest.mark.parametrize(
    "text",
    [
        "Use S3 and EKS with Kubernetes, then restart the Docker daemon.",
        "The API returns JSON over HTTPS; see RFC 9162.",
        "C4 and UML diagrams: B. Findings",
        "raise ValueError(msg) from None",
        "OpenBao, FastAPI and PyTorch are products",
        "Call JwksInvalid or HasField from `Sealer`",
        "Monday morning in January was Fine",
        "Lmao hahahaha",
        "read /srv/Keltner and x.Zubrowka and Zubrowka(x)",
        "v2.0.1, build 4519, 2024-01-02T03:04:05Z",
        "550e8400-e29b-41d4-a716-446655440000",
        "pay the bill, mark it read, and grant access by tomorrow",
        "American and European standards",
    ],
)
def test_technical_text_and_plain_words_ask_nobody(text):
    assert survey(text, 0) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("then Niskavert should have said", {"Niskavert"}),
        ("a remake of Grobart Eastwick", {"Grobart", "Eastwick"}),
        ("my name is zubrowka", {"zubrowka"}),
        ("thanks kevin, bye", {"kevin"}),
    ],
)
def test_what_no_rule_explains_is_left_open(text, words):
    assert open_words(text) == words


def test_a_place_is_no_part_of_a_person():
    assert spots("fly from San Francisco to Santa Clara") == {
        ("San Francisco", "LOCATION"),
        ("Santa Clara", "LOCATION"),
    }


def test_words_side_by_side_are_evidence():
    seen = survey("a remake of Grobart Eastwick and Niskavert", 0)

    assert len(seen.likely) == 2


def test_what_ends_before_the_core_is_not_told():
    text = "Maria Keller and Mr Novak came"

    assert spots(text, core=14) == {("Novak", "PERSON")}
    assert spots("Mr Novak and Maria Keller came", core=12) == {("Maria Keller", "PERSON")}


def test_what_a_rule_explains_closes_nothing_else():
    assert open_words("Maria Keller met Niskavert") == {"Niskavert"}


def test_lists_do_not_contradict_one_another():
    assert not GIVEN_NAMES & COMMON_WORDS
    assert not {place.lower() for place in PLACES} & COMMON_WORDS
    assert PLAIN_IN_LOWER_CASE <= GIVEN_NAMES
    for words in (GIVEN_NAMES, SURNAMES_THAT_ARE_WORDS, ORG_NOUNS, PLAIN_IN_LOWER_CASE):
        assert all(word == word.lower() == word.strip() for word in words)


pieces = st.sampled_from(
    ["Maria", "Keller", "Mr", "J.", " ", " ", ", ", "\n", "Apt. 12", "New Zealand", "Bank of", "B.",
     "Zubrowka", "de la", "S3", "İ", "ß", "’s", "kevin", "my name is ", "Italy",
     " 95787", "ﬁ", "@", "张"]
)  # fmt: skip


@given(st.lists(pieces, max_size=24).map("".join), st.data())
def test_spots_lie_in_the_window_and_reach_into_its_core(text, data):
    core = data.draw(st.integers(0, len(text)))
    seen = survey(text, core)

    for kind, start, end, score in seen.spots if seen else ():
        assert kind in {"PERSON", "LOCATION", "ORG"}
        assert 0 <= start < end <= len(text)
        assert end > core
        assert 0 < score < 0.9
    for start, end in seen.open if seen else ():
        assert core <= end <= len(text)
        assert text[start:end].strip()
    assert survey(text, core) == seen
