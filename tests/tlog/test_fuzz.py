"""A short run of the fuzzer, and the readers under inputs that hypothesis thinks of.

The long one is a program: `python -m tests.fuzz --inputs 10000000 --seed 1`.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.__main__ import fuzz
from tests.fuzz.targets import targets

TARGETS = targets()


def test_a_short_run_finds_neither_crash_nor_false_accept():
    done = fuzz(inputs=5_000, seed=7)
    assert set(done["tried"]) == {target.name for target in TARGETS}
    assert sum(done["accepted_and_right"].values()) > 100, "they refuse all there is"


@settings(deadline=None, max_examples=60)
@given(st.data())
@pytest.mark.parametrize("target", TARGETS, ids=[target.name for target in TARGETS])
def test_no_reader_crashes_or_accepts_what_it_must_not(target, data):
    """Pieces of good samples and anything else, in any order."""
    piece = st.sampled_from(target.samples).flatmap(
        lambda sample: st.tuples(st.integers(0, len(sample)), st.integers(0, len(sample))).map(
            lambda cut: sample[min(cut) : max(cut)]
        )
    )
    parts = data.draw(st.lists(piece | st.binary(max_size=40), max_size=4))
    target.check(b"".join(parts))
