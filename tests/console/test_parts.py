"""The parts without I/O: what is drawn, explained, counted and kept."""

import json
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.console.charts import SERIES_MAX, chart_of
from audit.console.fields import _MEANING, fields_of, pretty, span_of_time
from audit.console.pages.login import local_path
from audit.console.pages.search import read_form
from audit.console.rates import Rates
from audit.console.sessions import Sessions
from audit.console.settings import ConsoleSettings
from audit.console.spans import SpanStore, receiving_spans
from audit.console.waterfall import WIDTH, Span, waterfall_of
from meshkit.contract import Actor

ACTOR = Actor(spiffe_id="spiffe://d/tenant/acme/a", tenant="acme", workload="a")
DAYS = ("2026-11-20", "2026-11-21", "2026-11-22")


# --- charts -----------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from(DAYS), st.text(max_size=3), st.integers(1, 10**6))))
@settings(max_examples=60)
def test_a_chart_loses_no_count_and_no_column_leaves_it(counts) -> None:
    chart = chart_of(DAYS, counts)
    assert chart.total == sum(count for _, _, count in counts)
    assert len(chart.series) <= SERIES_MAX
    for at, column in enumerate(chart.columns):
        assert column.total == sum(count for day, _, count in counts if day == DAYS[at])
        assert column.total == sum(part.count for part in column.parts)
        assert column.total == sum(each.counts[at] for each in chart.series)
        assert column.x >= 0
        assert column.x + column.width <= chart.width
        for part in column.parts:
            assert part.y >= 0
            assert part.y + part.height <= chart.floor + 0.2


def test_what_is_outside_the_days_is_not_drawn() -> None:
    assert chart_of(DAYS, [("2020-01-01", "EMAIL", 5)]).total == 0


# --- waterfall --------------------------------------------------------------------------------


def event(phase, *, call="aa" * 16, span="11" * 8, time_us=1_000_000, **more):
    told = {"action": "chat", "phase": phase, "call_id": call, "span_id": span, "time_us": time_us}
    return told | more, {"received_us": time_us + 100}


def span(number, parent, start=1_000_000.0, end=1_000_500.0, service="gateway"):
    return Span(
        trace_id=b"t" * 16,
        span_id=number.to_bytes(8),
        parent_id=parent.to_bytes(8),
        service=service,
        name="step",
        start_us=start,
        end_us=end,
    )


OWN = int("11" * 8, 16)


def test_spans_count_only_under_a_record_s_own_span() -> None:
    """A trace id is the caller's choice: another tenant may have chosen the same."""
    mine = [span(OWN, 7), span(2, OWN, service="compliance"), span(3, 2, service="audit")]
    foreign = [span(9, 7, service="foreign"), span(10, 9, service="foreign")]
    falls = waterfall_of([event("intent"), event("outcome", outcome="released")], foreign + mine)
    kinds = [bar.kind for bar in falls.bars]
    assert kinds.count("foreign") == 0
    assert [kind for kind in kinds if kind not in {"call", "mark"}] == [
        "gateway",
        "compliance",
        "audit",
    ]


@given(
    st.lists(
        st.tuples(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1e12), st.floats(0, 1e9)),
        max_size=40,
    )
)
@settings(max_examples=60)
def test_whatever_spans_say_a_waterfall_ends_and_stays_in_its_frame(edges) -> None:
    """Parents may be missing, or go round in circles."""
    spans = [span(OWN, 1)]
    spans += [span(number, parent, at, at + took) for number, parent, at, took in edges]
    spans.append(span(1, OWN))
    falls = waterfall_of([event("intent"), event("outcome", outcome="BLOCKED")], spans)
    assert len(falls.bars) <= 400
    for bar in falls.bars:
        assert 0 <= bar.left <= WIDTH
        assert 2 <= bar.width <= WIDTH
    assert falls.bars[0].failed


def test_a_span_that_is_its_own_parent_is_drawn_once() -> None:
    falls = waterfall_of([event("note")], [span(OWN, 1), span(2, OWN), span(2, 2)])
    assert [bar.kind for bar in falls.bars].count("gateway") == 3


def test_a_call_begins_when_its_duration_says() -> None:
    later = event(
        "outcome",
        time_us=1_500_000,
        outcome="released",
        duration_us=600_000,
        first_token_us=200_000,
    )
    falls = waterfall_of([event("intent"), later], [])
    assert falls.took == "600 ms"
    assert [bar.starts for bar in falls.bars if "first character" in bar.label] == ["200 ms"]
    assert not falls.has_spans


def test_spans_are_few_and_the_oldest_trace_goes_first() -> None:
    store = SpanStore(3)
    for number in range(5):
        store.add(Span(**vars_of(span(number + 1, 0)) | {"trace_id": bytes([number % 4]) * 16}))
    assert len(store) == 3
    assert store.of(bytes([1]) * 16) == []
    assert len(store.of(bytes([0]) * 16)) == 1


def vars_of(each):
    return {name: getattr(each, name) for name in Span.__dataclass_fields__}


# --- fields -----------------------------------------------------------------------------------


async def test_spans_have_a_port_of_their_own() -> None:
    async with receiving_spans(ConsoleSettings(spans_port=0)) as first:
        with pytest.raises(OSError, match="cannot listen"):
            async with receiving_spans(ConsoleSettings(spans_port=first.port)):
                pass


def test_every_field_of_a_leaf_is_explained_in_a_sentence() -> None:
    text = (pytest.importorskip("audit.records.events").__doc__ or "").partition("Absent means")[0]
    named = {name for name in _MEANING if name.startswith("event.")}
    told = ("call_id", "phase", "time_us", "verdicts", "commitments", "duration_us", "subject")
    for name in told:
        assert name in text
        assert f"event.{name}" in named
    assert all(meaning.endswith(".") for meaning in _MEANING.values())


def test_fields_are_shown_for_people_and_unknown_ones_all_the_same() -> None:
    rows = fields_of(
        {
            "time_us": 1_700_000_000_000_000,
            "duration_us": 1_500,
            "verdicts": [["prompt", "EMAIL", "", "mask", 2]],
            "novelty": {"a": [1]},
        },
        {"skewed": True},
    )
    shown = {row.name: row.value for row in rows}
    assert shown["event.time_us"] == "2023-11-14 22:13:20.000 UTC"
    assert shown["event.duration_us"] == "1.5 ms"
    assert shown["event.verdicts"] == "EMAIL  ×2 in the prompt: mask"
    assert shown["event.novelty"] == "a [1]"
    assert shown["log.skewed"] == "true"
    assert json.loads(pretty(b'{"a":1}')) == {"a": 1}
    assert span_of_time(2_500_000) == "2.5 s"


# --- forms, paths, rates, sessions ------------------------------------------------------------


@given(st.text(max_size=40))
@settings(max_examples=200)
def test_a_path_is_ours_or_the_overview(text) -> None:
    there = local_path(text)
    assert there.startswith("/")
    assert not there.startswith(("//", "/\\", "/login", "/logout"))
    assert not set(there) & set("\r\n\\:?#% ")


@given(st.dictionaries(st.sampled_from(["call", "since", "user", "model"]), st.text(max_size=300)))
@settings(max_examples=100)
def test_whatever_is_typed_the_form_is_read(typed) -> None:
    for field in read_form(typed):
        assert field.wrong or not field.value or len(field.value) <= 128


@given(st.lists(st.floats(0, 10), max_size=60))
@settings(max_examples=60)
def test_no_more_gets_through_than_burst_and_rate(gaps) -> None:
    rates, now, passed = Rates(per_minute=60, burst=5), 1_000.0, 0
    for gap in gaps:
        now += gap
        wait_s = rates.wait_s("a", now)
        assert wait_s >= 0
        passed += not wait_s
    assert passed <= 5 + (now - 1_000.0) + 1e-6
    assert rates.wait_s("b", now) == 0


def test_a_refused_request_may_come_back_when_it_was_told() -> None:
    rates = Rates(per_minute=60, burst=1)
    assert rates.wait_s("a", 0.0) == 0
    assert 0 < (wait_s := rates.wait_s("a", 0.1)) <= 1
    assert rates.wait_s("a", 0.1 + wait_s) == 0


def sessions(**limits):
    clock = SimpleNamespace(now=1_000.0)
    whole = {"idle_s": 100, "life_s": 1_000, "most": 2} | limits
    return Sessions(**whole, clock=lambda: clock.now), clock


def test_a_session_ends_when_idle_when_old_and_with_what_opened_it() -> None:
    kept, clock = sessions()
    idle = kept.open(ACTOR, way="oidc")
    clock.now += 99
    assert kept.of(idle, thumbprint=b"")
    clock.now += 100
    assert kept.of(idle, thumbprint=b"") is None
    old = kept.open(ACTOR, way="oidc")
    for _ in range(12):
        alive = kept.of(old, thumbprint=b"")
        clock.now += 95
    assert alive is None
    short = kept.open(ACTOR, way="certificate", thumbprint=b"t", ends_s=clock.now + 50)
    clock.now += 51
    assert kept.of(short, thumbprint=b"t") is None


def test_a_certificate_s_session_wants_that_certificate() -> None:
    kept, _ = sessions()
    token = kept.open(ACTOR, way="certificate", thumbprint=b"one")
    assert kept.of(token, thumbprint=b"two") is None
    assert kept.of(token, thumbprint=b"") is None
    assert kept.of(token, thumbprint=b"one")
    assert kept.of(token + "x", thumbprint=b"one") is None


def test_there_are_so_many_sessions_and_the_longest_idle_gives_way() -> None:
    kept, clock = sessions()
    first = kept.open(ACTOR, way="oidc")
    clock.now += 1
    second = kept.open(ACTOR, way="oidc")
    clock.now += 1
    assert kept.of(first, thumbprint=b"")
    kept.open(ACTOR, way="oidc")
    assert len(kept) == 2
    assert kept.of(second, thumbprint=b"") is None


def test_half_a_provider_is_refused_by_the_settings() -> None:
    for oidc in ({"issuer": "http://idp", "client_id": "c"}, {"issuer": "https://idp"}):
        with pytest.raises(ValueError, match="oidc needs"):
            ConsoleSettings.model_validate({"oidc": oidc})
