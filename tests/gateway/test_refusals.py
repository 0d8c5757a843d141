"""A flood of like refusals: ten records a second, and one count that is exact."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.ledger import Ledger
from gateway.refusals import Counted, RefusalFlood
from gateway.run import stranger_event
from meshkit.contract import Appended, Connection, Reason, Refusal

floods = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.sampled_from([Reason.DENIED, Reason.LIMITED]),
        st.integers(0, 3),
    ),
    max_size=200,
)


@settings(max_examples=60)
@given(floods)
def test_every_refusal_is_recorded_singly_or_counted_once(flood) -> None:
    gate, singly = RefusalFlood(), []
    for tenant, reason, second in sorted(flood, key=lambda each: each[2]):
        if gate.record_singly(tenant, reason, second):
            singly.append((tenant, reason, second))
    counted = gate.due(99)

    assert len(singly) + sum(each.count for each in counted) == len(flood)
    assert all(singly.count(kind) <= 10 for kind in singly)
    assert gate.due(99) == ()


def test_a_second_is_told_once_it_is_over() -> None:
    gate = RefusalFlood()
    for _ in range(13):
        gate.record_singly("a", Reason.DENIED, 5)

    assert gate.due(5) == ()
    assert gate.due(6) == (Counted(tenant="a", reason=Reason.DENIED, second=5, count=3),)


def test_tenants_and_reasons_do_not_use_up_each_others_records() -> None:
    gate = RefusalFlood(singly_max=1)
    assert gate.record_singly("a", Reason.DENIED, 1)
    assert gate.record_singly("b", Reason.DENIED, 1)
    assert gate.record_singly("a", Reason.LIMITED, 1)
    assert gate.record_singly("a", Reason.DENIED, 2)
    assert not gate.record_singly("a", Reason.DENIED, 1)


def test_many_tenants_cannot_fill_the_memory() -> None:
    gate = RefusalFlood(singly_max=1, kinds_max=10)
    alone = sum(gate.record_singly(f"t{n}", Reason.DENIED, 1) for n in range(1_000))

    assert alone == 11
    assert sum(each.count for each in gate.due(2)) == 989


class _Kept:
    def __init__(self) -> None:
        self.events = []

    async def append(self, event):
        self.events.append(event)
        return Appended(index=0, leaf_hash=b"")


async def test_a_clock_that_is_put_back_loses_no_count() -> None:
    now_us, audit = [3_600_000_000], _Kept()
    ledger = Ledger(audit, RefusalFlood(singly_max=1), 1.0, clock_us=lambda: now_us[0])
    for _ in range(3):
        await ledger.refused(
            Refusal(Reason.DENIED), "demo", lambda: stranger_event("Chat", "DENIED", Connection())
        )
    now_us[0] = 0
    await ledger.settled()

    counted = [dict(event.detail)["count"] for event in audit.events if event.detail]
    assert (len(audit.events), counted) == (2, ["2"])
