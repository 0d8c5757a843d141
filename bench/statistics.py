"""The few statistics that benchmarks here rest on. PURE.

Two systems are compared by interleaved pairs: A B A B … in one run, one ratio a pair, and the
median of the ratios. A neighbour that disturbs one pair moves one ratio; drift over the run moves
both halves of a pair alike.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def median(values: Sequence[float]) -> float:
    """Return the middle value, or the mean of the two in the middle.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        msg = "median of nothing"
        raise ValueError(msg)
    return statistics.median(values)


def quantile(values: Sequence[float], q: float) -> float:
    """Return the smallest value that at least the share `q` of all values does not exceed.

    Nearest rank, so it is always a value that was seen, never an interpolation.

    Args:
        values: In any order; at least one.
        q: Above 0, to 1.

    Raises:
        ValueError: there are no values, or `q` is out of range.
    """
    if not values or not 0 < q <= 1:
        msg = f"quantile {q} of {len(values)} values"
        raise ValueError(msg)
    return sorted(values)[math.ceil(q * len(values)) - 1]


def pair_ratios(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, ...]:
    """Return ours over theirs, pair by pair.

    Raises:
        ValueError: the sequences differ in length, or a reference is not above zero.
    """
    if len(ours) != len(theirs) or any(value <= 0 for value in theirs):
        msg = f"{len(ours)} values cannot be paired with {len(theirs)} references"
        raise ValueError(msg)
    return tuple(a / b for a, b in zip(ours, theirs, strict=True))


def spread(values: Sequence[float]) -> float:
    """Return half the distance between the quartiles over the median: 0 is perfectly steady."""
    middle = median(values)
    if middle == 0:
        return 0.0
    return (quantile(values, 0.75) - quantile(values, 0.25)) / 2 / abs(middle)
