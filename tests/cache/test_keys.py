"""Two questions share an entry only if they are equal in everything an answer depends on."""

import hmac
import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.keys import KEY_BYTES, cache_key
from meshkit.contract import (
    Message,
    Parameters,
    Question,
    Role,
    Scope,
    Screened,
    TraceContext,
    Verdict,
    prompt_bytes,
)

SECRET = b"s" * 32
short = st.text(max_size=4)
messages = st.lists(st.builds(Message, st.sampled_from(Role), short), min_size=1, max_size=3)
parameters = st.builds(
    Parameters,
    max_tokens=st.integers(1, 3),
    temperature=st.sampled_from([0.0, 0.5]),
    top_p=st.sampled_from([0.9, 1.0]),
    seed=st.none() | st.integers(0, 12),
    stop=st.lists(short, max_size=3).map(tuple),
)
digests = st.binary(max_size=2)


@st.composite
def questions(draw: st.DrawFn) -> Question:
    return Question(
        scope=Scope(
            call_id=draw(st.binary(min_size=16, max_size=16)),
            tenant=draw(short),
            principal=draw(short),
            session=draw(short),
            subject=draw(short),
            trace=TraceContext(trace_id=b"", span_id=b""),
        ),
        screened=Screened(
            messages=tuple(draw(messages)),
            verdict=Verdict(policy_digest=draw(digests)),
            mac=b"",
            mac_key_version=1,
        ),
        model_digest=draw(digests),
        parameters=draw(parameters),
    )


def depends_on(question: Question) -> tuple:
    return (
        question.scope.tenant,
        question.scope.principal,
        question.scope.subject,
        question.screened.verdict.policy_digest,
        question.screened.messages,
        question.model_digest,
        question.parameters,
    )


@settings(max_examples=200)
@given(questions(), questions())
def test_keys_are_equal_just_when_the_questions_are(one: Question, other: Question) -> None:
    same = depends_on(one) == depends_on(other)

    assert (cache_key(SECRET, one) == cache_key(SECRET, other)) is same


@pytest.mark.parametrize("field", ["tenant", "principal", "subject"])
@given(question=questions())
def test_an_answer_is_nobody_elses(field: str, question: Question) -> None:
    scope = replace(question.scope, **{field: getattr(question.scope, field) + "x"})

    assert cache_key(SECRET, question) != cache_key(SECRET, replace(question, scope=scope))


@given(questions(), questions())
def test_each_component_matters_alone(one: Question, other: Question) -> None:
    """Taking over one component of another question changes the key, if it differs there."""
    swapped = (
        replace(one, scope=replace(one.scope, tenant=other.scope.tenant)),
        replace(one, scope=replace(one.scope, principal=other.scope.principal)),
        replace(one, scope=replace(one.scope, subject=other.scope.subject)),
        replace(one, screened=replace(one.screened, verdict=other.screened.verdict)),
        replace(one, screened=replace(one.screened, messages=other.screened.messages)),
        replace(one, model_digest=other.model_digest),
        *(
            replace(
                one, parameters=replace(one.parameters, **{name: getattr(other.parameters, name)})
            )
            for name in ("max_tokens", "temperature", "top_p", "seed", "stop")
        ),
    )
    for changed in swapped:
        same = depends_on(changed) == depends_on(one)
        assert (cache_key(SECRET, changed) == cache_key(SECRET, one)) is same


@given(questions())
def test_what_names_the_call_alone_plays_no_part(one: Question) -> None:
    again = replace(one, scope=replace(one.scope, call_id=b"z" * 16, session="other"))

    assert cache_key(SECRET, again) == cache_key(SECRET, one)


@given(questions())
def test_keys_are_keyed(one: Question) -> None:
    assert len(cache_key(SECRET, one)) == KEY_BYTES
    assert cache_key(b"t" * 32, one) != cache_key(SECRET, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("ab", "c"), ("a", "bc")),
        (("", "abc"), ("abc", "")),
    ],
)
def test_a_border_between_fields_cannot_be_moved(made, one, other) -> None:
    def asked(tenant: str, principal: str) -> Question:
        question = made.question()
        return replace(question, scope=replace(question.scope, tenant=tenant, principal=principal))

    assert cache_key(SECRET, asked(*one)) != cache_key(SECRET, asked(*other))


def test_stop_sequences_and_prompts_do_not_flow_into_each_other(made) -> None:
    one = made.question(stop=("a", "b"))
    for stop in (("ab",), ("a",), ("b", "a"), ("a", "b", "")):
        other = replace(one, parameters=replace(one.parameters, stop=stop))
        assert cache_key(SECRET, one) != cache_key(SECRET, other)


def test_the_key_is_the_hmac_that_the_module_describes(made) -> None:
    question = made.question(subject="p-17", stop=("x",), seed=7, max_tokens=5)
    fields = [
        b"acme",
        question.scope.principal.encode(),
        b"p-17",
        question.screened.verdict.policy_digest,
        question.model_digest,
        struct.pack(">QddQ", 5, 0.0, 1.0, 1),
        b"7",
        b"x",
        prompt_bytes(question.screened.messages),
    ]
    body = b"sealgate/cache/v2\0" + b"".join(len(f).to_bytes(4) + f for f in fields)

    assert cache_key(SECRET, question) == hmac.digest(SECRET, body, "sha256")
