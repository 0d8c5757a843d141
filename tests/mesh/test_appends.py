"""The buffer behind the audit stream, under any order of appends, breaks, acks and losses."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshkit.appends import Appends
from meshkit.contract import Appended, Event, Phase, Reason, Refusal, TraceContext

TRACE = TraceContext(trace_id=b"t" * 16, span_id=b"s" * 8)
ROOM = 5


def event(number):
    return Event(
        call_id=number.to_bytes(16),
        phase=Phase.INTENT,
        tenant="demo",
        occurred_at_us=1,
        trace=TRACE,
    )


moves = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 7)),
        st.tuples(st.just("leave"), st.integers(0, 7)),
        st.tuples(st.just("take"), st.integers(1, 3)),
        st.tuples(st.just("ack"), st.integers(0, 7)),
        st.tuples(st.just("rewind"), st.just(0)),
    ),
    max_size=40,
)


class Model:
    """What must hold, in plain words: who waits, and what the peer may have seen."""

    def __init__(self):
        self.appends = Appends(ROOM, retry_after_ms=7)
        self.waiting = {}
        self.on_stream = set()

    def add(self, number):
        if number not in self.waiting and len(self.waiting) >= ROOM:
            with pytest.raises(Refusal) as caught:
                self.appends.add(event(number), sampled=False)
            assert caught.value.reason is Reason.OVERLOADED
            assert caught.value.retry_after_ms == 7
            return
        pending = self.appends.add(event(number), sampled=False)
        self.waiting.setdefault(number, []).append(pending)

    def leave(self, number):
        if number in self.waiting:
            self.appends.leave(self.waiting[number].pop())
            if not self.waiting[number]:
                del self.waiting[number]
                self.on_stream.discard(number)

    def take(self, most):
        taken = [int.from_bytes(each.event.call_id) for each in self.appends.take(most)]
        assert len(taken) <= most
        assert set(taken) <= set(self.waiting), "nobody waits for it"
        self.on_stream |= set(taken)

    def ack(self, number):
        answer = Appended(index=number, leaf_hash=b"")
        self.appends.settle((number.to_bytes(16), Phase.INTENT), answer)
        for pending in self.waiting.pop(number, ()):
            assert pending.done.result() is answer
        self.on_stream.discard(number)

    def rewind(self, _):
        self.appends.rewind()
        self.on_stream.clear()


@given(moves)
@settings(max_examples=150, deadline=None)
def test_nothing_is_lost_and_nothing_outlives_its_appender(steps):
    async def play():
        model = Model()
        for name, number in steps:
            getattr(model, name)(number)
            assert len(model.appends) == len(model.waiting) <= ROOM
            sent = {int.from_bytes(each.event.call_id) for each in model.appends.sent()}
            assert sent == model.on_stream
        model.take(1_000)
        assert model.on_stream == set(model.waiting), "what has no ack is on this stream"

    asyncio.run(play())


def test_one_key_with_other_content_is_a_conflict():
    async def play():
        appends = Appends(ROOM, retry_after_ms=7)
        appends.add(event(1), sampled=False)
        other = Event(
            call_id=(1).to_bytes(16),
            phase=Phase.INTENT,
            tenant="other",
            occurred_at_us=1,
            trace=TRACE,
        )
        with pytest.raises(Refusal) as caught:
            appends.add(other, sampled=False)
        return caught.value.reason

    assert asyncio.run(play()) is Reason.CONFLICT
