"""A policy is strict about what it says, and its digest stands for all of it."""

import hashlib
import json

import pytest

from compliance.findings import Finding
from compliance.policy import Action, Decision, PolicyError, default_policy, parse_policy
from compliance.recognizers import ALL
from compliance.recognizers.injection import hidden
from compliance.transform import mask, masked, treat
from meshkit.contract import Direction

BASE = "version: 1\nname: p\ndefault: {prompt: mask, answer: mask, threshold: 0.5}\n"


def test_subtype_stands_before_type_before_default():
    policy = parse_policy(
        BASE + "types: {SECRET: {answer: allow, threshold: 0.7,"
        " subtypes: {JWT: {prompt: block, threshold: 0.9}}}}"
    )
    jwt = policy.decide("SECRET", "JWT", Direction.PROMPT)
    other = policy.decide("SECRET", "PASSWORD", Direction.ANSWER)

    assert (jwt.action, jwt.threshold) == (Action.BLOCK, 0.9)
    assert policy.decide("SECRET", "JWT", Direction.ANSWER).action is Action.ALLOW
    assert (other.action, other.threshold) == (Action.ALLOW, 0.7)
    assert policy.decide("PERSON", "X", Direction.PROMPT).action is Action.MASK


def test_what_an_action_does_not_use_is_not_in_its_decision():
    policy = parse_policy(
        BASE + "types: {EMAIL: {prompt: replace, answer: flag, keep_last: 4, replacement: '<e>',"
        " subtypes: {X: {prompt: mask}, Y: {prompt: hash}, Z: {replacement: ''},"
        " T: {answer: tokenise}}}}"
    )

    def decide(subtype, direction=Direction.PROMPT):
        return policy.decide("EMAIL", subtype, direction)

    assert decide("") == Decision(Action.REPLACE, 0.5, 0, "<e>")
    assert decide("", Direction.ANSWER) == Decision(Action.FLAG, 0.5, 0, "")
    assert decide("X") == Decision(Action.MASK, 0.5, 4, "")
    assert decide("Y") == Decision(Action.HASH, 0.5, 0, "")
    assert decide("T", Direction.ANSWER) == Decision(Action.TOKENISE, 0.5, 0, "")
    assert decide("Z") == Decision(Action.REPLACE, 0.5, 0, "")


def test_the_digest_is_sha_256_of_the_canonical_form():
    policy = parse_policy(BASE)

    assert policy.digest == hashlib.sha256(policy.canonical()).digest()
    assert json.loads(policy.canonical())["default"]["threshold"] == {
        "prompt": 0.5,
        "answer": 0.5,
    }


@pytest.mark.parametrize(
    "other",
    [
        BASE.replace("name: p", "name: q"),
        BASE.replace("answer: mask", "answer: allow"),
        BASE.replace("0.5", "0.6"),
        BASE + "types: {EMAIL: {keep_last: 2}}",
        BASE + "types: {SECRET: {subtypes: {JWT: {answer: block}}}}",
    ],
)
def test_any_change_of_meaning_changes_the_digest(other):
    assert parse_policy(other).digest != parse_policy(BASE).digest


def test_layout_and_comments_do_not():
    other = (
        "# hello\ndefault:\n  threshold: 0.5\n  answer: mask\n  prompt: mask\nname: p\nversion: 1"
    )

    assert parse_policy(other).digest == parse_policy(BASE).digest


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "policy"),
        ("[1, 2", "not YAML"),
        ("- a", "policy"),
        ("!!python/object/apply:os.system [true]", "not YAML"),
        ("&a [*a]", "policy"),
        (BASE.replace("version: 1", "version: 2"), "version"),
        (BASE.replace("name: p", "name: P!"), "name"),
        (BASE.replace("mask", "shout"), "default.prompt"),
        (BASE.replace("0.5", "1.5"), "default.threshold"),
        (BASE + "extra: 1", "extra"),
        (BASE + "types: {EMIAL: {prompt: allow}}", "unknown entity types: EMIAL"),
        (BASE + "types: {EMAIL: {promt: allow}}", "types.EMAIL.promt"),
        (BASE + "types: {EMAIL: {keep_last: 40}}", "keep_last"),
        (BASE.replace("prompt: mask", "prompt: replace"), "default: action replace needs"),
        (BASE + "types: {EMAIL: {answer: replace}}", "EMAIL: action replace needs"),
        (BASE + f"types: {{EMAIL: {{replacement: {'x' * 65}}}}}", "types.EMAIL.replacement"),
        (BASE + 'types: {EMAIL: {replacement: "a\\nb"}}', "types.EMAIL.replacement"),
        ("x" * 300_000, "larger"),
        (b"\xff\xfe\xfa", "not YAML"),
    ],
)
def test_a_bad_policy_is_refused_with_its_field(text, says):
    with pytest.raises(PolicyError, match=says):
        parse_policy(text)


def test_the_default_policy_masks_people_and_blocks_keys():
    policy = default_policy()

    def action(kind, subtype, direction):
        return policy.decide(kind, subtype, direction).action

    for kind in ("PERSON", "CREDIT_CARD", "EMAIL", "CN_RESIDENT_ID", "PHONE", "NATIONAL_ID"):
        assert action(kind, "X", Direction.PROMPT) is Action.MASK
        assert action(kind, "X", Direction.ANSWER) is Action.MASK
    assert action("SECRET", "PRIVATE_KEY", Direction.PROMPT) is Action.BLOCK
    assert action("SECRET", "PRIVATE_KEY", Direction.ANSWER) is Action.BLOCK
    assert action("SECRET", "AWS_ACCESS_KEY", Direction.PROMPT) is Action.BLOCK
    assert action("SECRET", "AWS_ACCESS_KEY", Direction.ANSWER) is Action.MASK
    assert action("SECRET", "PASSWORD", Direction.PROMPT) is Action.MASK


def test_every_subtype_of_the_default_policy_exists():
    known = {(r.type, r.subtype) for r in ALL} | {("LOCATION", "PLACE")}
    unseen = ("\U000e0041" * 9, "\ufe01" * 9, "\u200b" * 9)
    known |= {(f.type, f.subtype) for text in unseen for f in hidden(f"a{text}b", 0)}
    tree = json.loads(default_policy().canonical())
    named = {(kind, sub) for kind, rule in tree["types"].items() for sub in rule["subtypes"]}

    assert named <= known


@pytest.mark.parametrize(
    ("value", "keep", "shown"),
    [
        ("4111 1111 1111 1234", 4, "[CREDIT_CARD:1234]"),
        ("4111 1111 1111 1234", 0, "[CREDIT_CARD]"),
        ("12345678", 4, "[CREDIT_CARD:78]"),
        ("123", 4, "[CREDIT_CARD]"),
    ],
)
def test_a_mask_keeps_no_more_than_a_quarter(value, keep, shown):
    assert mask(Finding("CREDIT_CARD", "X", 0, len(value), 0.9, "r"), value, keep) == shown


def test_a_block_lets_nothing_of_its_segment_out():
    policy = parse_policy(BASE + "types: {US_SSN: {prompt: block}}")
    found = [Finding("EMAIL", "E", 0, 2, 0.9, "r"), Finding("US_SSN", "S", 3, 5, 0.9, "r")]

    assert treat("ab cd ef", found, policy, Direction.PROMPT).text == ""
    assert treat("ab cd ef", found, policy, Direction.PROMPT).blocked
    assert masked("ab cd ef", found, policy, Direction.PROMPT) == "[EMAIL] [US_SSN] ef"
