"""From a row of logits to the next token. PURE: numpy alone.

Greedy at temperature 0. Otherwise the nucleus (the smallest set of most likely tokens whose mass
reaches top_p) of the tempered distribution, sampled with a generator of the request's own, seeded
by its seed: who else is in the forward pass draws from other generators.
"""

from __future__ import annotations

import math
import secrets
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from meshkit.contract import Parameters

__all__ = ["BadLogitsError", "Sampler", "nucleus"]

_SEED_BITS = 64


class BadLogitsError(Exception):
    """The model's output is not a number everywhere: its state or its weights are damaged."""


def nucleus(
    logits: NDArray[np.float32], *, temperature: float, top_p: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the tokens that may be drawn and their probabilities.

    Most likely first; in order of their ids if `top_p` is 1, since nothing need be sorted then.

    Args:
        logits: shape (vocabulary,), finite.
        temperature: greater than 0.
        top_p: in (0, 1]; at least one token is always left.

    Cost: about 0.5 ms for 49,152 tokens (only those near the top are sorted).
    """
    scaled = (logits.astype(np.float64) - logits.max()) / temperature
    mass = np.exp(scaled)
    mass /= mass.sum()
    if top_p >= 1:
        return np.arange(mass.size), mass
    # Tokens below a small share cannot all be in the nucleus; sort the few above it first.
    candidates = np.flatnonzero(mass > mass.max() / 1_000)
    if mass[candidates].sum() < top_p:
        candidates = np.arange(mass.size)
    order = candidates[np.argsort(-mass[candidates], kind="stable")]
    before = np.cumsum(mass[order]) - mass[order]
    kept = order[before < top_p]
    shares = mass[kept]
    return kept, shares / shares.sum()


class Sampler:
    """Draws one request's tokens. Equal parameters, seed and logits give equal tokens."""

    def __init__(self, parameters: Parameters) -> None:
        self._temperature = parameters.temperature
        self._top_p = parameters.top_p
        seed = secrets.randbits(_SEED_BITS) if parameters.seed is None else parameters.seed
        self.seed = seed % (1 << _SEED_BITS)
        """The caller's, or drawn: 0 to 2**64 - 1."""
        self._random = np.random.Generator(np.random.Philox(self.seed))

    def draw(self, logits: NDArray[np.float32]) -> int:
        """Pick the next token.

        Args:
            logits: shape (vocabulary,).

        Raises:
            BadLogitsError: a logit is NaN or infinite.
        """
        if self._temperature == 0:
            return _likeliest(logits)
        if not np.isfinite(logits).all():
            raise BadLogitsError
        tokens, shares = nucleus(logits, temperature=self._temperature, top_p=self._top_p)
        at = int(np.searchsorted(np.cumsum(shares), self._random.random(), side="right"))
        return int(tokens[min(at, tokens.size - 1)])


def _likeliest(logits: NDArray[np.float32]) -> int:
    """Return the first of the largest; see `Sampler.draw`. NaN is above all others to numpy."""
    at = int(logits.argmax())
    if not (math.isfinite(logits[at]) and math.isfinite(logits.min())):
        raise BadLogitsError
    return at
