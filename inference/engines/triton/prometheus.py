"""Sums out of a page in Prometheus's text format. PURE.

    nv_inference_request_success{model="smollm2",version="1"} 12

Source: prometheus.io, "Exposition formats". Labels are not told apart: of each name, all its lines
are added up.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["summed"]


def summed(page: str, names: Collection[str]) -> dict[str, float]:
    """Add up the lines of each name; what has no line, no finite value or sum, is left out."""
    found: dict[str, float] = defaultdict(float)
    for line in page.splitlines():
        name = line.partition("{")[0].partition(" ")[0]
        if name not in names:
            continue
        # A label's value may hold spaces, so what follows the last brace counts.
        rest = line.rpartition("}")[2] if "{" in line else line[len(name) :]
        words = rest.split()
        try:
            value = float(words[0])
        except (IndexError, ValueError):
            continue
        if math.isfinite(value):
            found[name] += value
    return {name: value for name, value in found.items() if math.isfinite(value)}
