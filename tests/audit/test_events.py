"""A leaf says what happened, canonically, and nothing that a person said."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.keys.pseudonyms import DerivedKeys, Names, Pseudonyms
from audit.privacy.payloads import payload_bytes, read_payload
from audit.records.events import (
    LogPart,
    check_event,
    event_bytes,
    leaf_bytes,
    parse_leaf,
    same_event,
)
from audit.records.ocsf_record import ocsf_record
from meshkit.contract import (
    Actor,
    Connection,
    Direction,
    FindingCount,
    FinishReason,
    Message,
    Payload,
    Phase,
    Reason,
    Refusal,
    Role,
    Usage,
)
from tests.audit.world import commitment, make_event, make_intent, make_outcome

TENANTS = Pseudonyms(bytes(range(32)), DerivedKeys(bytes(32)))
NAMES = Names(TENANTS.tenant, bytes(range(32)), "ab" * 16)
PART = LogPart(producer="spiffe://x/service/gateway", received_us=1, retention="standard")

labels = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,20}", fullmatch=True)
numbers = st.integers(0, 2**53 - 1)
texts = st.text(max_size=60).map(lambda text: f"canary {text}")


@st.composite
def events(draw):
    found = FindingCount(
        direction=draw(st.sampled_from(Direction)), type=draw(labels), subtype="",
        action="mask", count=draw(numbers),
    )  # fmt: skip
    return make_outcome(
        actor=Actor(
            spiffe_id="spiffe://example.org/tenant/acme/secretive-workload", tenant="acme",
            workload="secretive-workload", user=draw(texts),
        ),
        connection=Connection(
            tls_version="TLSv1.3", key_exchange_group=draw(st.sampled_from(["", "X25519"])),
            peer_ip="192.0.2.77",
        ),
        cache_tier=draw(st.sampled_from(["", "l1"])),
        compliance_policy_digest=draw(st.sampled_from([b"", bytes(32)])),
        authorization_policy_digest=draw(st.sampled_from([b"", bytes(32)])),
        detail=draw(st.sampled_from([(), (("z", '"}\\'), ("a.b", "1"))])),
        action=draw(labels), outcome=draw(labels), model=draw(labels), purpose=draw(labels),
        finish_reason=draw(st.sampled_from([None, *FinishReason])),
        model_digest=draw(st.sampled_from([b"", bytes(32)])),
        prompt_template_digest=draw(st.sampled_from([b"", bytes(32)])),
        subject=draw(st.sampled_from(["", "canary patient 7 ✓"])),
        duration_us=draw(numbers), first_token_us=draw(numbers),
        counts=(found,) * draw(st.integers(0, 3)),
        usage=Usage(prompt_tokens=draw(numbers), completion_tokens=draw(numbers)),
        prompt_received=commitment(b"raw"),
        payload=Payload(
            screened=(Message(Role.USER, draw(texts)),), released=draw(texts)
        ),
    )  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(events())
def test_no_salt_no_text_and_no_name_is_in_a_leaf(event):
    check_event(event)
    leaf = leaf_bytes(event_bytes(event, NAMES), PART).decode()
    for made in (event.prompt_received, event.prompt_screened, event.answer_delivered):
        assert made.salt.hex() not in leaf
        assert made.value.hex() in leaf
    assert "canary" not in leaf  # every text and the user's name begin with it
    for name in ("acme", "secretive-workload", "192.0.2.77"):
        assert f'"{name}' not in leaf
        assert name not in (parse_leaf(leaf.encode()).event.get("actor", ""))


@settings(max_examples=100, deadline=None)
@given(events())
def test_a_leaf_is_canonical_json_and_reads_back(event):
    body = event_bytes(event, NAMES)
    leaf = leaf_bytes(body, PART)
    canonical = json.dumps(
        json.loads(leaf), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    ).encode()
    assert leaf == canonical
    assert leaf.isascii()  # so that UTF-16 and UTF-8 order keys alike (RFC 8785, 3.2.3)
    parsed = parse_leaf(leaf)
    assert (parsed.call_id, parsed.phase) == (event.call_id, event.phase)
    assert parsed.trace_id == event.trace.trace_id
    assert parsed.tenant == NAMES.tenant("acme")


@settings(max_examples=60, deadline=None)
@given(events(), events())
def test_a_repeat_is_told_from_another_event(one, other):
    leaf = leaf_bytes(event_bytes(one, NAMES), PART)
    assert same_event(leaf, event_bytes(one, NAMES))
    assert not same_event(leaf, event_bytes(other, NAMES))
    assert not same_event(leaf, event_bytes(one, NAMES)[:-1])


@settings(max_examples=60, deadline=None)
@given(events())
def test_a_payload_reads_back_with_its_salts(event):
    opened = read_payload(payload_bytes(event))
    assert opened.payload == event.payload
    assert opened.salts["answer_delivered"] == event.answer_delivered.salt
    assert opened.salts["prompt_received"] == event.prompt_received.salt
    assert len(opened.salts) == 4


def test_an_event_without_text_has_no_payload():
    assert payload_bytes(make_event()) == b""
    assert payload_bytes(make_intent()) != b""


FREE_TEXT = "please call Ada"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"call_id": b"short"}, "call_id"),
        ({"tenant": "Acme Inc."}, "tenant"),
        ({"tenant": ""}, "tenant"),
        ({"occurred_at_us": 0}, "occurred_at"),
        ({"occurred_at_us": 2**53}, "occurred_at"),
        ({"action": FREE_TEXT}, "action"),
        ({"outcome": FREE_TEXT}, "outcome"),
        ({"model": FREE_TEXT}, "model"),
        ({"model": "ada@example.org"}, "model"),
        ({"purpose": FREE_TEXT}, "purpose"),
        ({"cache_tier": FREE_TEXT}, "cache_tier"),
        ({"connection": Connection(tls_version=FREE_TEXT)}, "tls_version"),
        ({"model_digest": b"x"}, "model_digest"),
        ({"prompt_template_digest": b"x"}, "prompt_template_digest"),
        ({"duration_us": -1}, "duration_us"),
        ({"duration_us": 2**53}, "duration_us"),
        ({"first_token_us": -1}, "first_token_us"),
        ({"subject": "é" * 65}, "subject"),
        ({"usage": Usage(prompt_tokens=-1)}, "usage"),
        ({"usage": Usage(completion_tokens=2**53)}, "usage"),
        ({"detail": (("n", "line\nbreak"),)}, "detail"),
        ({"detail": (("n", "1"), ("n", "2"))}, "detail"),
        ({"detail": (("n", "x" * 513),)}, "detail"),
    ],
)
def test_what_a_leaf_must_not_hold_is_refused_by_name_alone(fields, field):
    with pytest.raises(Refusal) as caught:
        check_event(make_event(Phase.OUTCOME, **fields))
    assert (caught.value.reason, caught.value.field) == (Reason.INVALID_FIELD, field)
    assert FREE_TEXT not in str(caught.value)


def test_findings_are_labels_and_counts():
    for bad in ({"type": FREE_TEXT}, {"subtype": FREE_TEXT}, {"action": ""}, {"count": -1}):
        whole = {"direction": Direction.PROMPT, "type": "EMAIL", "subtype": "", "action": "mask"}
        found = FindingCount(**whole | {"count": 1} | bad)
        with pytest.raises(Refusal, match="counts"):
            check_event(make_event(counts=(found,)))


def test_a_subject_belongs_to_a_tenant():
    with pytest.raises(Refusal, match="subject"):
        check_event(make_event(tenant="", actor=None, subject="patient-7"))


def test_a_leaf_of_the_first_form_still_reads():
    """As written before events told subject, duration, first token, template and address."""
    leaf = (
        b'{"event":{"action":"chat","actor":"61143c0b9f5f4d6aa4ab3c4de5f60718","cache":"l1",'
        b'"call_id":"01a2006155f07d6c8aa35ba1d1c9e2f3","ocsf":{"activity_id":1,"class_uid":6003,'
        b'"status_id":1,"type_uid":600301},"outcome":"released","phase":"outcome",'
        b'"span_id":"b7ad6b7169203331","tenant":"c0a9a10b9f5f4d6aa4ab3c4de5f60718",'
        b'"time_us":1795302722284564,"trace_id":"0af7651916cd43dd8448eb211c80319c"},'
        b'"log":{"intent":41,"producer":"spiffe://sealgate.local/service/gateway",'
        b'"received_us":1795302722284651,"retention":"standard"},"schema":"sealgate/audit/v1"}'
    )
    parsed = parse_leaf(leaf)
    assert (parsed.phase, parsed.event["cache"]) == (Phase.OUTCOME, "l1")
    assert "duration_us" not in parsed.event
    record = ocsf_record(leaf, 42, "mesh.local/audit")
    assert (record["class_uid"], record["duration"]) == (6003, 0)


def test_what_an_event_tells_is_in_its_leaf():
    told = json.loads(
        event_bytes(
            make_outcome(
                subject="patient-7",
                duration_us=1_500,
                first_token_us=900,
                prompt_template_digest=b"t" * 32,
            ),
            NAMES,
        )
    )
    assert told["subject"] == NAMES.subject("acme", "patient-7") != NAMES.user("acme", "patient-7")
    assert (told["duration_us"], told["first_token_us"]) == (1_500, 900)
    assert told["prompt_template_digest"] == (b"t" * 32).hex()


def test_what_is_absent_is_not_in_the_leaf():
    """The same bytes as before for an event that tells none of the newer things."""
    told = json.loads(event_bytes(make_event(), NAMES))
    newer = {"subject", "duration_us", "first_token_us", "prompt_template_digest", "peer"}
    assert not newer & set(told)


def test_an_address_is_a_pseudonym_and_only_of_somebody():
    came = Connection(tls_version="TLSv1.3", peer_ip="192.0.2.77")
    body = event_bytes(make_event(connection=came), NAMES)
    assert b"192.0.2.77" not in body
    assert json.loads(body)["peer"] == NAMES.peer("acme", "192.0.2.77")
    nobody = TENANTS.at_hand(make_event(actor=None))
    assert "peer" not in json.loads(event_bytes(make_event(actor=None, connection=came), nobody))


def test_ocsf_ids_are_of_their_class():
    for event, expected in (
        (make_intent(), [6003, 600301, 0]),
        (make_outcome(), [6003, 600301, 1]),
        (make_outcome(outcome="BLOCKED"), [2006, 200601, 2]),
        (make_outcome(outcome="UNAUTHENTICATED"), [3002, 300201, 2]),
        (make_outcome(outcome="DENIED"), [3003, 300399, 2]),
        (make_outcome(outcome="EVIDENCE_LOST"), [2004, 200401, 2]),
        (make_event(action="log.start", outcome="ok"), [1008, 100806, 1]),
        (make_event(action="log.read", outcome="NOT_FOUND"), [6005, 600501, 2]),
        (make_event(action="service.start"), [6002, 600203, 0]),
        (make_event(action="something.else"), [6003, 600399, 0]),
    ):
        ocsf = json.loads(event_bytes(event, NAMES))["ocsf"]
        assert [ocsf["class_uid"], ocsf["type_uid"], ocsf["status_id"]] == expected


def test_a_producer_with_another_clock_is_flagged():
    part = LogPart(producer="spiffe://x", received_us=1, retention="standard", skewed=True)
    assert parse_leaf(leaf_bytes(event_bytes(make_event(), NAMES), part)).log["skewed"] is True


@given(st.binary(max_size=200))
def test_foreign_bytes_are_no_leaf(raw):
    with pytest.raises(ValueError, match="not of this schema"):
        parse_leaf(raw)
