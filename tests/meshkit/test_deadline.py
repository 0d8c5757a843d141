import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshkit.contract import Reason, Refusal
from meshkit.deadline import Deadline


@pytest.mark.parametrize("none", [None, math.inf, 1e300])
def test_a_call_without_a_deadline_gets_the_budget(none):
    assert 190 < Deadline.of_rpc(none, budget_ms=200_000).remaining_s <= 200


@given(st.floats(-10, 1e6), st.integers(1, 100_000))
def test_a_call_gets_no_more_than_it_asked_nor_than_the_budget(asked_s, budget_ms):
    remaining = Deadline.of_rpc(asked_s, budget_ms=budget_ms).remaining_s
    assert 0 <= remaining <= max(0, min(asked_s, budget_ms / 1_000))


def test_the_next_hop_gets_less():
    ours = Deadline.after(10)
    theirs = ours.shave(500)
    assert ours.at_s - theirs.at_s == pytest.approx(0.5)


@pytest.mark.parametrize("left_s", [-1, 0, 0.4])
def test_hopeless_work_is_refused(left_s):
    with pytest.raises(Refusal) as caught:
        Deadline(time.monotonic() + left_s).shave(500)
    assert caught.value.reason is Reason.OUT_OF_TIME


def test_time_is_demanded_before_work():
    Deadline.after(100).demand(9_000)
    with pytest.raises(Refusal):
        Deadline.after(1).demand(2_000)
