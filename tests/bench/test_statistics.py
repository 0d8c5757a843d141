import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.statistics import median, pair_ratios, quantile, spread

positive = st.floats(min_value=1e-6, max_value=1e6)
samples = st.lists(positive, min_size=1, max_size=50)


def test_median_of_an_even_number_is_between_the_middle_two():
    assert median([1.0, 9.0, 2.0, 4.0]) == 3.0


@pytest.mark.parametrize(
    ("q", "expected"), [(0.01, 1.0), (0.5, 50.0), (0.99, 99.0), (0.991, 100.0), (1.0, 100.0)]
)
def test_quantile_is_the_nearest_rank(q, expected):
    assert quantile([float(n) for n in range(100, 0, -1)], q) == expected


@given(samples, st.floats(min_value=0.001, max_value=1))
def test_quantile_covers_its_share_and_no_smaller_value_does(values, q):
    found = quantile(values, q)
    assert found in values
    assert sum(v <= found for v in values) >= q * len(values)
    assert sum(v < found for v in values) < q * len(values)


@pytest.mark.parametrize("q", [0.0, -0.1, 1.01])
def test_quantile_refuses_a_share_that_is_none(q):
    with pytest.raises(ValueError, match="quantile"):
        quantile([1.0], q)


def test_nothing_has_no_median_and_no_quantile():
    with pytest.raises(ValueError, match="nothing"):
        median([])
    with pytest.raises(ValueError, match="of 0 values"):
        quantile([], 0.5)


@given(st.lists(st.tuples(positive, positive), min_size=1, max_size=30), positive)
def test_a_machine_twice_as_slow_changes_no_ratio(pairs, factor):
    ours, theirs = zip(*pairs, strict=True)
    slower = pair_ratios([a * factor for a in ours], [b * factor for b in theirs])
    assert slower == pytest.approx(pair_ratios(ours, theirs))


@pytest.mark.parametrize(("ours", "theirs"), [([1.0], [1.0, 2.0]), ([1.0], [0.0])])
def test_what_cannot_be_paired_is_refused(ours, theirs):
    with pytest.raises(ValueError, match="cannot be paired"):
        pair_ratios(ours, theirs)


def test_one_disturbed_pair_does_not_move_the_median_ratio():
    steady = median(pair_ratios([2.0] * 5, [4.0] * 5))
    disturbed = median(pair_ratios([2.0, 2.0, 0.1, 2.0, 2.0], [4.0] * 5))
    assert disturbed == steady == 0.5


def test_spread_is_nothing_for_equal_values_and_grows():
    assert spread([3.0, 3.0, 3.0]) == 0.0
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(1 / 3)
