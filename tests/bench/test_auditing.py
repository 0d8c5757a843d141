from bench.auditing import BATCH_EVENTS, batch
from sealgate.v1 import audit_pb2


def test_a_batch_put_together_by_hand_is_the_message_it_claims_to_be():
    events = audit_pb2.AppendRequest.FromString(batch(3)).events
    assert len(events) == BATCH_EVENTS
    for intent, outcome in zip(events[::2], events[1::2], strict=True):
        assert (intent.phase, outcome.phase) == (audit_pb2.PHASE_INTENT, audit_pb2.PHASE_OUTCOME)
        assert intent.call_id == outcome.call_id
        assert len(intent.call_id) == 16
        assert intent.tenant == outcome.tenant == "bench"
        assert intent.occurred_at.seconds > 0
        assert len(outcome.payload.released) == 200
        assert not intent.HasField("payload")
        assert outcome.cache_tier == "l1"


def test_every_call_is_a_new_one():
    numbers = [
        event.call_id
        for n in range(50)
        for event in audit_pb2.AppendRequest.FromString(batch(n)).events
    ]
    assert len(set(numbers)) == len(numbers) // 2
