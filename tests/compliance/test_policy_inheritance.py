"""How policy files build on each other, and which of them judges whose text."""

import json

import pytest

from compliance.policy import SHIPPED, Action, PolicyError, chained, shipped
from compliance.policy_format import CHAIN_MAX, read_file
from compliance.policy_library import load_book, load_one
from meshkit.contract import Direction

ROOT = """
version: 1
name: root
default: {prompt: mask, answer: mask, threshold: {prompt: 0.5, answer: 0.7}}
types:
  EMAIL: {prompt: hash, answer: block, threshold: 0.6}
  SECRET:
    prompt: block
    subtypes: {JWT: {prompt: mask, keep_last: 4}}
"""
WARD = """
version: 1
name: ward
extends: root
default: {threshold: {answer: 0.2}}
types:
  EMAIL: {answer: allow}
  SECRET:
    prompt: allow
    subtypes: {JWT: {threshold: 0.9}}
"""
ROOM = """
version: 1
name: room
extends: ward
types: {EMAIL: {threshold: {prompt: 0.95}}}
"""
TENANTS = "version: 1\ndefault: root\ntenants: {acme: ward, globex: pci-dss}\n"


@pytest.fixture
def folder(tmp_path):
    """Write a folder of policies; `None` leaves a file out."""

    def write(**files):
        whole = {"root": ROOT, "ward": WARD, "room": ROOM, "tenants": TENANTS} | files
        for name, text in whole.items():
            if text is not None:
                (tmp_path / f"{name}.yaml").write_text(text)
        return tmp_path

    return write


def test_of_each_field_the_nearest_file_that_gives_it_wins(folder):
    policy = load_book(folder()).policies["room"]

    def decide(kind, subtype="", direction=Direction.PROMPT):
        found = policy.decide(kind, subtype, direction)
        return found.action, found.threshold, found.keep_last

    assert decide("EMAIL") == (Action.HASH, 0.95, 0)
    assert decide("EMAIL", direction=Direction.ANSWER) == (Action.ALLOW, 0.6, 0)
    assert decide("PERSON") == (Action.MASK, 0.5, 0)
    assert decide("PERSON", direction=Direction.ANSWER) == (Action.MASK, 0.2, 0)
    # A type's rule that is nearer does not stand before a subtype's that is farther.
    assert decide("SECRET") == (Action.ALLOW, 0.5, 0)
    assert decide("SECRET", "JWT") == (Action.MASK, 0.9, 4)


def test_the_digest_is_of_what_is_resolved_not_of_how_it_was_written(folder):
    book = load_book(folder())
    flat = json.loads(book.policies["room"].canonical())
    again = chained(read_file(json.dumps(flat)))

    assert "extends" not in flat
    assert again.digest == book.policies["room"].digest
    changed = load_book(folder(root=ROOT.replace("0.6", "0.61")))
    assert changed.policies["room"].digest != book.policies["room"].digest


def test_every_tenant_has_exactly_one_policy(folder):
    book = load_book(folder())

    assert book.of("acme").name == "ward"
    assert book.of("globex").digest == chained(shipped("pci-dss")).digest
    assert book.of("unheard-of").name == "root"
    assert book.of("").name == "root"
    other = load_book(folder(tenants=TENANTS.replace("acme: ward", "acme: room")))
    assert other.digest != book.digest


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"root": ROOT.replace("default: {", "extends: room\ndefault: {")}, "in a circle"),
        ({"root": ROOT.replace("default: {", "extends: root\ndefault: {")}, "in a circle"),
        ({"ward": WARD.replace("extends: root", "extends: none")}, "none.yaml: No such file"),
        ({"ward": WARD.replace("name: ward", "name: word")}, "ward.yaml: its name must be"),
        ({"ward": WARD.replace("allow", "shout")}, "ward.yaml: types.EMAIL.answer"),
        ({"default": ROOT.replace("name: root", "name: default")}, "ships with Sealgate"),
        ({"tenants": None}, "tenants.yaml: No such file"),
        ({"tenants": TENANTS.replace("ward", "wart")}, "wart: there is no such policy"),
        ({"tenants": TENANTS.replace("acme", "Acme!")}, "tenants.yaml: tenants"),
        ({"tenants": TENANTS + "extra: 1\n"}, "tenants.yaml: extra"),
        ({"tenants": "version: 1\ndefault: root\ntenants: {a: ward, a: root}"}, "a key twice"),
        ({"root": ROOT.replace("prompt: mask, answer: mask, ", "")}, "default.prompt: no file"),
        ({"odd": "version: 1\nname: odd\nextends: root\ntypes: {PERSN: {prompt: allow}}"}, "PERSN"),
        ({"odd": "version: 1\nname: &a odd\nextends: *a"}, "an alias"),
        ({"odd": "version: 1\nname: !!bool odd"}, "a tag"),
    ],
)
def test_a_fault_anywhere_refuses_the_whole_folder(folder, files, says):
    with pytest.raises(PolicyError, match=says):
        load_book(folder(**files))


def test_a_chain_has_an_end(folder):
    files = {
        f"p{n}": f"version: 1\nname: p{n}\nextends: {'p' + str(n - 1) if n else 'root'}"
        for n in range(CHAIN_MAX)
    }
    last = files.pop(f"p{CHAIN_MAX - 1}")

    assert load_book(folder(**files)).policies[f"p{CHAIN_MAX - 2}"]
    with pytest.raises(PolicyError, match="extend each other"):
        load_book(folder(**{f"p{CHAIN_MAX - 1}": last}))


def test_one_file_may_extend_what_stands_beside_it_or_ships(folder):
    assert load_one(folder() / "room.yaml").name == "room"
    alone = chained(read_file("version: 1\nname: x\nextends: pipl"))
    assert alone.decide("EMAIL", "EMAIL", Direction.ANSWER).action is Action.HASH
    with pytest.raises(PolicyError, match="not there"):
        chained(read_file("version: 1\nname: x\nextends: ward"))


def test_entries_of_one_name_replace_each_other_whole(folder):
    entry = (
        "patterns: [{name: staff, type: CUSTOM_STAFF, pattern: 'S[0-9]{4}', context: [staff]}]\n"
    )
    other = "patterns: [{name: staff, type: CUSTOM_STAFF, pattern: 'T[0-9]{4}'}]\n"
    policy = load_book(folder(root=ROOT + entry, ward=WARD + other)).policies["ward"]

    (pattern,) = policy.file.patterns
    assert (pattern.pattern, pattern.context) == ("T[0-9]{4}", [])


def test_tests_are_not_inherited(folder):
    text = ROOT + "tests: [{text: a@b.org, blocked: false}]\n"
    book = load_book(folder(root=text))

    assert len(book.policies["root"].file.tests) == 1
    assert book.policies["ward"].file.tests == []


def test_all_that_ship_are_named_and_load():
    assert [chained(shipped(name)).name for name in SHIPPED] == list(SHIPPED)
