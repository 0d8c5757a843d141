"""The engine: the prefilter changes nothing, failures refuse, offsets and clipping are right."""

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compliance.engine import SPAN_MAX, Engine
from compliance.findings import Finding, resolve
from compliance.prefilter import HyperscanPrefilter
from compliance.recognizers import ALL
from compliance.recognizers.base import Recognizer
from meshkit.contract import Reason, Refusal

SLOW_OK = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def recognizer(**more):
    fields = {
        "name": "x",
        "type": "SECRET",
        "subtype": "X",
        "source": "made up",
        "pattern": "canary",
    }
    return Recognizer(**fields | {"score": (0.9, 0.9)} | more)


@pytest.fixture(scope="module")
def exhaustive():
    """The same recognizers without a prefilter."""
    return Engine(ALL)


@given(data=st.data())
@settings(max_examples=120, deadline=None, suppress_health_check=SLOW_OK)
def test_the_prefilter_hides_nothing(data, engine, exhaustive, examples):
    planted = st.sampled_from([text for text, _ in examples.values()])
    noise = st.one_of(st.text(max_size=20), st.text("09aZ@.:/-_ 号出", max_size=20), planted)
    text = "".join(data.draw(st.lists(noise, max_size=8)))
    text = text.encode("utf-8", "replace").decode()
    core = data.draw(st.integers(0, len(text)))

    assert engine.find(text, core) == exhaustive.find(text, core)


def test_the_prefilter_hides_no_example(engine, exhaustive, examples):
    for text, _ in examples.values():
        for around in (text, f"x{text}x", f"说{text}吗", text.upper(), text.lower()):
            assert engine.find(around, 0) == exhaustive.find(around, 0)


def test_a_failing_recognizer_refuses_the_text_and_tells_nothing_of_it():
    def fail(value):
        raise ValueError(value)

    engine = Engine([recognizer(check=fail)])
    with pytest.raises(Refusal) as caught:
        engine.find("a canary", 0)

    assert caught.value.reason is Reason.COMPLIANCE_DOWN
    assert "canary" not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_what_began_before_the_core_is_cut_there():
    engine = Engine([recognizer()])

    assert [(f.start, f.end) for f in engine.find("a canary", 4)] == [(4, 8)]
    assert engine.find("a canary", 8) == []


def test_no_finding_is_longer_than_promised():
    engine = Engine([recognizer(pattern="y+")])

    assert engine.find("y" * (SPAN_MAX + 1), 0) == []
    assert len(engine.find("y" * SPAN_MAX, 0)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\0",
        "\x00\x01\x7f" * 50,
        "\ud800 lone \udfff",
        "\ufffe\uffff",
        "\u202e" * 100,
        "a" * 70_000,
    ],
)
def test_odd_text_is_no_error(text, engine):
    engine.find(text, 0)


def test_veto_words_hush_what_stands_alone(engine):
    quiet = [f for f in engine.find("order no 13812345678", 0) if f.score >= 0.5]
    loud = [f for f in engine.find("phone 13812345678", 0) if f.score >= 0.5]

    assert quiet == []
    assert {f.type for f in loud} == {"PHONE"}


def finding(start, end, score=0.8, kind="PERSON", name="a"):
    return Finding(kind, kind, start, end, score, name)


@given(
    st.lists(
        st.builds(
            finding,
            st.integers(0, 20),
            st.integers(21, 40),
            st.sampled_from([0.5, 0.8, 0.95]),
            st.sampled_from(["PERSON", "SECRET"]),
            st.sampled_from(["a", "b"]),
        ),
        max_size=8,
    ),
    st.randoms(use_true_random=False),
)
@settings(max_examples=100)
def test_resolution_is_disjoint_and_depends_on_the_set_alone(findings, random):
    shuffled = [*findings]
    random.shuffle(shuffled)
    kept = resolve(findings)

    assert kept == resolve(shuffled)
    assert all(a.end <= b.start for a, b in pairwise(kept))
    assert bool(kept) == bool(findings)


def test_a_sure_finding_wins_over_a_longer_doubtful_one():
    assert resolve([finding(0, 9), finding(3, 6, 0.95)]) == [finding(3, 6, 0.95)]
    assert resolve([finding(0, 4), finding(2, 9)]) == [finding(2, 9)]
    assert resolve([finding(0, 9), finding(0, 4, kind="SECRET")]) == [finding(0, 4, kind="SECRET")]


def test_compiled_patterns_are_kept_and_a_spoilt_file_is_compiled_anew(tmp_path):
    few = [recognizer.expression for recognizer in ALL[:3]]
    first = HyperscanPrefilter(few, tmp_path)
    (file,) = tmp_path.iterdir()
    kept = file.read_bytes()
    again = HyperscanPrefilter(few, tmp_path)
    file.write_bytes(kept[:-5] + b"spoil")
    anew = HyperscanPrefilter(few, tmp_path)

    assert first(b"ada@example.org") == again(b"ada@example.org") == anew(b"ada@example.org") != []
    assert file.read_bytes() == kept
