"""Records as OCSF 1.8 wants them: each class with all it requires, and our own under `unmapped`.

The tables below are those of ocsf/ocsf-schema at version 1.8.0: events/, objects/, profiles/.
"""

import json
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.keys.pseudonyms import DerivedKeys, Names, Pseudonyms
from audit.records.events import LogPart, event_bytes, leaf_bytes
from audit.records.ocsf import ACTIONS, OcsfClass, activity_of
from audit.records.ocsf_record import VERSION, ocsf_record
from meshkit.contract import (
    Connection,
    Direction,
    FindingCount,
    FinishReason,
    Phase,
    Reason,
    Usage,
)
from meshkit.tlog import leaf_hash
from tests.audit.world import make_event, make_intent, make_outcome

ORIGIN = "mesh.local/audit"
TENANTS = Pseudonyms(bytes(range(32)), DerivedKeys(bytes(32)))
NAMES = Names(TENANTS.tenant, bytes(range(32)), "ab" * 16)
PART = LogPart(
    producer="spiffe://mesh.local/service/audit", received_us=1_795_302_722_284_651,
    retention="standard",
)  # fmt: skip

BASE = {
    "activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid",
}  # fmt: skip
REQUIRED = {
    6003: {"actor", "api", "src_endpoint"},
    3002: {"user"},
    3003: {"user"},
    3004: {"entity"},
    3005: {"user", "privileges"},
    2006: {"finding_info"},
    2004: {"finding_info"},
    6005: {"actor", "src_endpoint"},
    1008: set(),
    6002: {"app"},
}
AT_LEAST_ONE = {
    3002: {"service", "dst_endpoint"},
    6005: {"database", "databucket", "table"},
    1008: {"log_file", "log_name", "log_provider", "log_type", "log_type_id"},
}
JUST_ONE = {3003: {"privileges", "group"}}
ACTIVITIES = {
    6003: {1, 2, 3, 4},
    3002: set(range(1, 8)),
    3003: {1, 2},
    3004: set(range(1, 14)),
    3005: {1, 2},
    2006: {1, 2, 3, 4},
    2004: {1, 2, 3},
    6005: set(range(1, 11)),
    1008: set(range(1, 11)),
    6002: set(range(1, 9)),
}
OBJECTS_REQUIRE = {
    "metadata": {"product", "version"},
    "api": {"operation"},
    "ai_model": {"name", "ai_provider"},
    "trace": {"uid"},
    "span": {"uid", "start_time", "end_time"},
    "finding_info": {"uid"},
    "databucket": {"type_id"},
}
OBJECTS_AT_LEAST_ONE = {
    "actor": {"process", "user", "invoked_by", "session", "app_name", "app_uid"},
    "user": {"account", "name", "uid"},
    "src_endpoint": {"ip", "uid", "name", "hostname", "svc_name", "instance_uid"},
    "entity": {"name", "uid", "device", "group", "org", "policy", "user"},
    "message_context": {"application", "service"},
    "app": {"name", "uid"},
}


def record_of(event, index=41):
    names = NAMES if event.tenant else TENANTS.at_hand(event)
    leaf = leaf_bytes(event_bytes(event, names), PART)
    return ocsf_record(leaf, index, ORIGIN), leaf


def check(record):
    uid = record["class_uid"]
    assert set(record) >= BASE | REQUIRED[uid], uid
    assert uid not in AT_LEAST_ONE or set(record) & AT_LEAST_ONE[uid]
    assert uid not in JUST_ONE or len(set(record) & JUST_ONE[uid]) == 1
    assert record["category_uid"] == uid // 1_000
    assert record["type_uid"] == uid * 100 + record["activity_id"]
    assert record["activity_id"] in ACTIVITIES[uid] | {0, 99}
    assert record["severity_id"] in {1, 2, 3, 4, 5}
    assert record["status_id"] in {0, 1, 2}
    assert record["metadata"]["version"] == VERSION == "1.8.0"
    check_objects(record)
    json.dumps(record, allow_nan=False)


def check_objects(part):
    for name, value in part.items():
        if name == "unmapped" or not isinstance(value, dict):
            continue
        assert set(value) >= OBJECTS_REQUIRE.get(name, set()), name
        some = OBJECTS_AT_LEAST_ONE.get(name)
        assert some is None or set(value) & some, name
        check_objects(value)


@pytest.mark.parametrize("tenant", ["", "acme"])
@pytest.mark.parametrize("action", sorted(ACTIONS))
def test_every_action_is_a_whole_event_of_its_class(action, tenant):
    someone = {} if tenant else {"actor": None}
    for outcome in ("", "ok", "NOT_FOUND"):
        event = make_event(action=action, tenant=tenant, outcome=outcome, **someone)
        record, _ = record_of(event)
        check(record)
        assert record["type_uid"] == ACTIONS[action].type_uid


def test_every_class_of_the_mapping_is_used():
    used = {activity.class_uid for activity in ACTIONS.values()}
    used |= {activity_of("chat", reason.name).class_uid for reason in Reason}
    assert used == set(OcsfClass) == set(REQUIRED)


events = st.builds(
    make_outcome,
    outcome=st.sampled_from(["released", *(reason.name for reason in Reason)]),
    action=st.sampled_from([*ACTIONS, "something.else"]),
    connection=st.builds(
        Connection, tls_version=st.just("TLSv1.3"), peer_ip=st.sampled_from(["", "192.0.2.7"])
    ),
    finish_reason=st.sampled_from([None, *FinishReason]),
    model=st.sampled_from(["", "smollm2"]),
    usage=st.builds(Usage, prompt_tokens=st.integers(0, 9), completion_tokens=st.integers(0, 9)),
    duration_us=st.integers(0, 10**9),
    counts=st.lists(
        st.builds(
            FindingCount, direction=st.sampled_from(Direction), type=st.just("EMAIL"),
            subtype=st.just(""), action=st.just("mask"), count=st.integers(1, 9),
        ), max_size=2,
    ).map(tuple),
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(events, st.integers(0, 2**40))
def test_whatever_happened_is_a_whole_event(event, index):
    record, leaf = record_of(event, index)
    check(record)
    assert record["metadata"]["uid"] == f"{ORIGIN}/{index}"
    assert record["unmapped"]["leaf_hash"] == leaf_hash(leaf).hex()
    assert record["start_time"] <= record["end_time"] == event.occurred_at_us // 1_000
    told = json.loads(leaf)["event"]
    for name in ("call_id", "commitments", "verdicts", "outcome", "tenant", "pseudonym_key"):
        assert record["unmapped"].get(name) == told.get(name)


def test_a_call_tells_model_tokens_and_trace():
    event = make_outcome(
        model_digest=bytes(32), usage=Usage(prompt_tokens=3, completion_tokens=4),
        duration_us=2_500_000, connection=Connection(peer_ip="192.0.2.7"),
    )  # fmt: skip
    record, _ = record_of(event)
    ended_ms = event.occurred_at_us // 1_000
    assert record["ai_model"] == {
        "ai_provider": "Sealgate", "name": "smollm2", "version": bytes(32).hex(),
    }  # fmt: skip
    context = record["message_context"]
    assert (context["prompt_tokens"], context["completion_tokens"]) == (3, 4)
    assert (context["total_tokens"], context["ai_role_id"]) == (7, 2)
    assert record["trace"]["uid"] == event.trace.trace_id.hex()
    assert record["trace"]["span"]["uid"] == event.trace.span_id.hex()
    assert record["trace"]["span"]["end_time"] == ended_ms
    assert record["duration"] == 2_500
    assert record["metadata"]["profiles"] == ["ai_operation", "trace"]
    assert record["actor"]["user"]["uid"] == NAMES.user("acme", "ada")
    assert record["src_endpoint"] == {"uid": NAMES.peer("acme", "192.0.2.7")}
    assert "prompt_text" not in context


def test_an_intent_knows_no_end():
    record, _ = record_of(make_intent())
    check(record)
    assert (record["status_id"], record["duration"]) == (0, 0)


def test_what_was_found_makes_a_finding_serious():
    found = FindingCount(
        direction=Direction.PROMPT, type="CARD", subtype="", action="block", count=1
    )
    record, _ = record_of(make_outcome(outcome="BLOCKED", counts=(found,)))
    assert (record["class_uid"], record["severity_id"]) == (2006, 3)
    assert record["finding_info"]["types"] == ["CARD"]


@pytest.mark.parametrize(
    "leaf", [b"", b"[]", b"{}", b'{"event":{},"log":{}}', b"\xff", b'{"event":1,"log":2}']
)
def test_foreign_bytes_have_no_record(leaf):
    with pytest.raises(ValueError, match="not of this schema"):
        ocsf_record(leaf, 0, ORIGIN)


def test_classes_have_actions_and_phases_of_their_own():
    """No two actions that mean different things end up in one type, but where OCSF has no other."""
    by_type = defaultdict(set)
    for action, activity in ACTIONS.items():
        by_type[activity.type_uid].add(action)
    assert by_type[100806] == {"log.start"}
    assert by_type[100807] == {"log.stop"}
    assert record_of(make_event(Phase.NOTE, action="log.stop"))[0]["type_uid"] == 100807


def test_every_action_is_told_in_the_docs():
    page = (Path(__file__).parent.parent.parent / "docs" / "audit.md").read_text()
    table = page.partition("## What is recorded")[2].partition("\n## ")[0]
    assert [action for action in ACTIONS if f"`{action}`" not in table] == []
