import pytest

from bench.catalogue import ENTRIES, Budget, Figure, Verdict, judge, paired, repeated

HIGHER = Budget(of="ratio", better="higher", budget=0.25, stretch=0.6)
LOWER = Budget(of="value", better="lower", budget=60, stretch=15)


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [
        (0.6, Verdict.STRETCH),
        (0.5999, Verdict.MET),
        (0.25, Verdict.MET),
        (0.2499, Verdict.MISSED),
        (None, Verdict.MISSED),
    ],
)
def test_a_ratio_that_ought_to_be_high(ratio, verdict):
    assert judge(Figure(name="x", value=10_000.0, ratio=ratio), HIGHER) is verdict


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(15.0, Verdict.STRETCH), (15.1, Verdict.MET), (60.0, Verdict.MET), (60.1, Verdict.MISSED)],
)
def test_a_value_that_ought_to_be_low(value, verdict):
    assert judge(Figure(name="x", value=value, ratio=0.0), LOWER) is verdict


def test_without_a_budget_there_is_no_verdict():
    assert judge(Figure(name="x", value=1.0), None) is Verdict.PLAIN


def test_every_budget_has_a_stretch_beyond_it():
    for name, entry in ENTRIES.items():
        if (budget := entry.budget) is not None:
            further = budget.stretch > budget.budget
            assert further == (budget.better == "higher"), name


def test_a_paired_figure_has_the_median_of_ratios_not_the_ratio_of_medians():
    figure = paired("governed_hit_rps", (10.0, 20.0, 90.0), (100.0, 50.0, 100.0))
    assert (figure.value, figure.reference, figure.ratio) == (20.0, 100.0, 0.4)
    assert figure.verdict is Verdict.MET


def test_a_repeated_figure_has_no_reference():
    figure = repeated("cache_l1_hit_us", (9.0, 30.0, 11.0))
    assert (figure.value, figure.reference, figure.ratio) == (11.0, None, None)
    assert figure.verdict is Verdict.MET
