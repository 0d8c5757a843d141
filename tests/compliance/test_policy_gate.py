"""A pattern of a policy takes bounded time on any text, or is refused."""

import importlib
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compliance.policy import PolicyError, parse_policy
from compliance.policy_format import Pattern
from compliance.policy_gate import STEPS_MAX, hold_patterns, steps

REDOS = [
    r"(a+)+$",
    r"([a-zA-Z]+)*",
    r"(a|aa)+",
    r"(a|a?)+",
    r"(.*a){11}",
    r"(x+x+)+y",
    r"^(([a-z])+.)+[A-Z]([a-z])+$",
    r"(?:a{1,9}){1,9}b",
    r"(a{1,30}){1,30}b",
    r"(?:a|a){1,30}b",
    r"(?:ab|ab){1,30}c",
    r"(?:a|ab|b){1,20}c",
    r"(?:[a-z0-9]{1,9}[0-9]{1,9}){1,9}x",
    r"[a-z]{1,99}[a-z]{1,99}[a-z]{1,99}x",
    r"(?:a?){20}a{20}",
    r"(?:a{0,2}b{0,2}){1,20}c",
    r"((a{1,3}){1,3}){1,3}b",
    r"(\w{1,20}\s?){1,20}z",
    r"(?:(?:[0-9]{1,3}\.?){1,4}){1,4}x",
    r"([\w.]{1,60}@){1,20}[\w.]{1,60}x",
]
OUTSIDE = [
    r"a+b",
    r"a*bc",
    r"ab{2,}",
    r"ab{1,200}",
    r"(a)b\1",
    r"(?P<x>ab)c",
    r"(?P<v>ab)?cd",
    r"(?:ab|(?P<v>cd))",
    r"(?:ab(?P<v>c?))d",
    r"\bab",
    r"^ab",
    r"ab$",
    r"ab\Z",
    r"(?i)ab",
    r"(?i:ab)",
    r"(?x) a b",
    r"(?=ab)ab",
    r"(?<=ab)cd",
    r"(?!a{1,9})bc",
    r"(a)(?(1)b|c)d",
    r"(?>ab)c",
    r"a{2,3}+b",
    r"[ab]",
    r"a?b?",
    r"[ab]{128}[cd]{128}[ef]{128}[gh]{128}[ij]",
    r"(ab",
    r"ab)|(?:cd",
    r"[z-a]b",
]
GOOD = [
    r"E[0-9]{6}",
    r"[A-Z]{2}-[0-9]{4}(?:-[0-9]{2})?",
    r"[a-z0-9._]{1,60}@(?:[a-z0-9\-]{1,30}\.){1,4}[a-z]{2,10}",
    r"(?<![A-Z])(?:alpha|alpine|beta)-?[0-9]{1,4}(?![0-9])",
    r"工号[：: ]{0,2}(?P<v>[0-9]{6,8})",
    r"(?:[0-9]{4}[ \-]?){3}[0-9]{4}",
    r"project (?:x|y|zeta) phase [1-9]",
]


def pattern(text, **more):
    return Pattern(name="p", type="CUSTOM_P", pattern=text, whole_words=False, **more)


@pytest.mark.parametrize("text", REDOS)
def test_known_explosive_patterns_are_refused(text):
    with pytest.raises(PolicyError, match="pattern p: "):
        hold_patterns([pattern(text)])


@pytest.mark.parametrize("text", OUTSIDE)
def test_what_is_outside_the_subset_is_refused(text):
    with pytest.raises(PolicyError, match="pattern p: "):
        hold_patterns([pattern(text)])


@pytest.mark.parametrize("text", GOOD)
@pytest.mark.parametrize("case", [True, False])
def test_ordinary_patterns_are_let_in(text, case):
    hold_patterns([pattern(text, case=case)])


def test_a_refused_pattern_refuses_its_policy():
    text = (
        "version: 1\nname: p\nextends: default\npatterns: [{name: evil, type: CUSTOM_E, pattern: "
    )
    with pytest.raises(PolicyError, match="pattern evil: too many ways"):
        parse_policy(text + "'(?:a{1,9}){1,9}b'}]")


def test_many_costly_patterns_together_are_refused():
    costly = r"[a-z0-9._]{1,64}@[a-z0-9.\-]{1,30}\.[a-z]{2,10}"
    assert steps(costly) < STEPS_MAX
    with pytest.raises(PolicyError, match="together"):
        hold_patterns([pattern(costly)] * 40)


@pytest.mark.parametrize("text", GOOD)
def test_time_on_hostile_texts_is_small(text):
    """A sanity check in CPU time, with a limit a hundred times above what is seen."""
    compiled = re.compile(text, re.ASCII)
    hostile = ["a" * 4_000, "a." * 2_000, "0" * 4_000, "0 " * 2_000, "A" * 4_000, "alpha" * 800]
    before = time.process_time()
    for each in hostile:
        list(compiled.finditer(each))
    assert time.process_time() - before < 5


# --- the bound holds: a matcher of our own that counts ---------------------------------------

PARSER = importlib.import_module("re._parser")


class Counter:
    """Runs what `re` parsed as a backtracking engine does, and counts the characters looked at."""

    def __init__(self, text):
        self.text, self.steps = text, 0

    def row(self, nodes, at):
        """Every place where a match of these in a row, begun at `at`, may end."""
        if not nodes:
            yield at
            return
        for end in self.ways(nodes[0], at):
            yield from self.row(nodes[1:], end)

    def ways(self, node, at):
        kind, argument = str(node[0]), node[1]
        if kind in {"LITERAL", "IN"}:
            self.steps += 1
            if at < len(self.text) and ord(self.text[at]) in characters(kind, argument):
                yield at + 1
        elif kind == "SUBPATTERN":
            yield from self.row(list(argument[3]), at)
        elif kind == "BRANCH":
            for each in argument[1]:
                yield from self.row(list(each), at)
        else:
            assert kind == "MAX_REPEAT"
            yield from self.repeat(argument[0], argument[1], list(argument[2]), at)

    def repeat(self, least, most, inner, at):
        if most > 0:
            for end in self.row(inner, at):
                yield from self.repeat(max(0, least - 1), most - 1, inner, end)
        if least == 0:
            yield at


def characters(kind, argument):
    if kind == "LITERAL":
        return {argument}
    return {
        code
        for item, value in argument
        for code in (range(value[0], value[1] + 1) if str(item) == "RANGE" else [value])
    }


sets = st.text("abc", min_size=1, max_size=2).map(lambda each: f"[{each}]")
counts = st.tuples(st.integers(0, 3), st.integers(1, 5)).map(lambda c: (c[0], c[0] + c[1]))


def bigger(parts):
    return st.one_of(
        st.lists(parts, min_size=2, max_size=4).map("".join),
        st.lists(parts, min_size=2, max_size=3).map(lambda each: f"(?:{'|'.join(each)})"),
        st.builds(lambda c, part: f"(?:{part}){{{c[0]},{c[1]}}}", counts, parts),
    )


patterns = st.recursive(sets, bigger, max_leaves=10)


@settings(max_examples=150, deadline=None)
@given(patterns, st.text("abcd", max_size=40))
def test_no_pattern_that_is_let_in_takes_more_steps_than_the_gate_says(part, text):
    # What is looked for last is not in the text, so that every way is tried.
    whole = f"{part}[xyz]z"
    try:
        bound = steps(whole)
    except PolicyError:
        return
    assert bound <= STEPS_MAX
    parsed = list(PARSER.parse(whole))
    for at in range(len(text) + 1):
        counter = Counter(text)
        assert list(counter.row(parsed, at)) == []
        # Twice: giving a way up costs at most the steps it took, and those to see that it fails.
        assert counter.steps <= 2 * bound


def test_the_counting_matcher_sees_an_explosion():
    """Were it blind, the test above would hold for any gate."""
    counter = Counter("a" * 15)

    assert list(counter.row(list(PARSER.parse("(?:a{1,5}){1,7}b")), 0)) == []
    assert counter.steps > 10_000
