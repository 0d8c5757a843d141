import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshkit import wire
from meshkit.contract import (
    Direction,
    FindingCount,
    FinishReason,
    Message,
    ModelInfo,
    Parameters,
    Reason,
    Refusal,
    Role,
    Usage,
    Verdict,
)
from meshkit.wire_fields import not_utf8_field
from sealgate.v1 import common_pb2, gateway_pb2

counts = st.integers(0, 2**32 - 1)
digests = st.binary(max_size=32)
findings = st.builds(
    FindingCount,
    direction=st.sampled_from(Direction),
    type=st.text(max_size=9),
    subtype=st.text(max_size=9),
    action=st.sampled_from(
        ["allow", "mask", "tokenise", "block", "replace", "hash", "flag", "reveal"]
    ),
    count=counts,
)
many = {"max_size": 3}


@given(st.lists(st.builds(Message, st.sampled_from(Role), st.text(max_size=9)), **many))
def test_messages_come_back(messages):
    assert wire.messages_from_wire(wire.messages_to_wire(messages)) == tuple(messages)


@given(
    st.builds(
        Parameters,
        max_tokens=st.integers(1, 4_096),
        temperature=st.floats(0, 2),
        top_p=st.floats(0.01, 1),
        seed=st.none() | st.integers(0, 2**64 - 1),
        stop=st.lists(st.text(max_size=5), **many).map(tuple),
    )
)
def test_parameters_come_back(parameters):
    assert wire.parameters_from_wire(wire.parameters_to_wire(parameters)) == parameters


def test_absent_parameters_are_the_defaults():
    assert wire.parameters_from_wire(common_pb2.Parameters()) == Parameters()


@given(st.builds(Verdict, counts=st.lists(findings, **many).map(tuple), policy_digest=digests))
def test_verdicts_come_back(verdict):
    assert wire.verdict_from_wire(wire.verdict_to_wire(verdict)) == verdict


@given(st.builds(Usage, prompt_tokens=counts, completion_tokens=counts))
def test_usage_comes_back(usage):
    assert wire.usage_from_wire(wire.usage_to_wire(usage)) == usage


@given(
    st.builds(
        ModelInfo,
        name=st.text(max_size=9),
        digest=digests,
        context_tokens=counts,
        licence=st.text(max_size=9),
        languages=st.lists(st.text(max_size=5), **many).map(tuple),
    )
)
def test_models_come_back(model):
    assert wire.model_from_wire(wire.model_to_wire(model)) == model


@pytest.mark.parametrize("reason", FinishReason)
def test_finish_reasons_come_back(reason):
    assert wire.finish_from_wire(wire.finish_to_wire(reason)) is reason


@pytest.mark.parametrize(
    ("convert", "message", "field"),
    [
        (wire.messages_from_wire, [common_pb2.Message(content="x")], "role"),
        (wire.messages_from_wire, [common_pb2.Message(role=77)], "role"),
        (wire.counts_from_wire, [common_pb2.FindingCount(action=2)], "direction"),
        (wire.counts_from_wire, [common_pb2.FindingCount(direction=1)], "action"),
        (wire.finish_from_wire, 0, "finish_reason"),
    ],
)
def test_an_unknown_enum_value_is_an_invalid_field(convert, message, field):
    with pytest.raises(Refusal) as caught:
        convert(message)
    assert (caught.value.reason, caught.value.field) == (Reason.INVALID_FIELD, field)


def broken_at(raw: bytes) -> str | None:
    return not_utf8_field(gateway_pb2.ChatRequest.DESCRIPTOR, raw)


def test_the_field_that_is_not_utf8_is_found_however_deep():
    request = gateway_pb2.ChatRequest(model="model", session="SESSION")
    request.messages.add(role=2, content="fine")
    request.messages.add(role=2, content="CONTENT")
    raw = request.SerializeToString()
    assert broken_at(raw) is None
    assert broken_at(raw.replace(b"SESSION", b"SESSI\xff\xfe")) == "session"
    assert broken_at(raw.replace(b"CONTENT", b"CONTE\xff\xfe")) == "messages.content"


@given(st.binary(max_size=200))
def test_any_bytes_are_looked_through(raw):
    assert broken_at(raw) is None or "." in broken_at(raw) or broken_at(raw)
