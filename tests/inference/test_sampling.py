"""Drawing tokens: greedy, nucleus, seeds, and what is not a number."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from inference.sampling import BadLogitsError, Sampler, nucleus
from meshkit.contract import Parameters

logits = arrays(
    np.float32, st.integers(1, 60), elements=st.floats(-30, 30, width=32, allow_nan=False)
)


def softmax(row, temperature: float):
    mass = np.exp((row.astype(np.float64) - row.max()) / temperature)
    return mass / mass.sum()


@settings(max_examples=200)
@given(logits, st.floats(0.1, 2), st.floats(0.01, 1))
def test_the_nucleus_is_the_smallest_set_that_reaches_top_p(row, temperature, top_p) -> None:
    mass = softmax(row, temperature)
    tokens, shares = nucleus(row, temperature=temperature, top_p=top_p)

    kept = mass[tokens]
    assert kept.sum() >= top_p - 1e-9
    assert kept[:-1].sum() < top_p + 1e-9
    assert kept.min() >= np.delete(mass, tokens).max(initial=0)
    assert top_p == 1 or (np.diff(kept) <= 0).all()
    assert shares.sum() == pytest.approx(1)


@given(logits)
def test_temperature_zero_takes_the_most_likely(row) -> None:
    assert Sampler(Parameters(temperature=0)).draw(row) == row.argmax()


@given(logits, st.integers(0, 2**64 - 1))
def test_a_seed_gives_the_same_tokens_again(row, seed) -> None:
    one, other = (Sampler(Parameters(temperature=1.0, seed=seed)) for _ in range(2))

    assert [one.draw(row) for _ in range(5)] == [other.draw(row) for _ in range(5)]


def test_tokens_come_as_often_as_their_probability_says() -> None:
    row = np.log(np.array([0.5, 0.3, 0.15, 0.05], dtype=np.float32))
    sampler = Sampler(Parameters(temperature=1.0, top_p=1.0, seed=1))
    counts = np.bincount([sampler.draw(row) for _ in range(4_000)], minlength=4) / 4_000

    assert counts == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.03)


def test_without_a_seed_two_requests_differ() -> None:
    row = np.zeros(1_000, dtype=np.float32)
    one, other = (Sampler(Parameters(temperature=1.0)) for _ in range(2))

    assert [one.draw(row) for _ in range(8)] != [other.draw(row) for _ in range(8)]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("temperature", [0, 1])
def test_what_is_no_number_is_refused(bad, temperature) -> None:
    row = np.zeros(10, dtype=np.float32)
    row[3] = bad

    with pytest.raises(BadLogitsError):
        Sampler(Parameters(temperature=temperature)).draw(row)
