import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshkit.contract import TraceContext
from meshkit.w3c import Parent, fresh_trace, parse_traceparent, traceparent

GOOD = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@given(
    st.binary(min_size=16, max_size=16).filter(any),
    st.binary(min_size=8, max_size=8).filter(any),
    st.booleans(),
)
def test_what_is_written_is_read(trace_id, span_id, sampled):
    trace = TraceContext(trace_id=trace_id, span_id=span_id)
    assert parse_traceparent(traceparent(trace, sampled=sampled)) == Parent(trace, sampled)


def test_the_specifications_example():
    parent = parse_traceparent(GOOD)
    assert (parent.trace.span_id.hex(), parent.sampled) == ("b7ad6b7169203331", True)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        b"00",
        GOOD.upper(),
        GOOD + "-more",
        GOOD + "\n",
        "ff" + GOOD[2:],
        GOOD.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32),
        GOOD.replace("b7ad6b7169203331", "0" * 16),
        GOOD[:-3],
        "01" + GOOD[2:] + "-" + "x" * 1_000,
    ],
)
def test_a_malformed_header_is_as_none(header):
    assert parse_traceparent(header) is None


def test_a_later_version_may_append():
    assert parse_traceparent("01" + GOOD[2:] + "-what-ever") is not None


@given(st.text(max_size=80))
def test_any_text_is_survived(text):
    assert parse_traceparent(text) is None


def test_fresh_ones_differ_and_join_a_trace_given():
    first, second = fresh_trace(), fresh_trace()
    assert first.trace_id != second.trace_id
    joined = fresh_trace(first.trace_id)
    assert joined.trace_id == first.trace_id
    assert joined.span_id != first.span_id
