"""How often one address may ask: a bucket each, as GCRA has it. PURE.

A bucket is one number, the time at which it is full again; those that are full are forgotten.
"""

from __future__ import annotations

__all__ = ["Rates"]

_BUCKETS_MAX = 10_000
_ROUNDING_S = 1e-9


class Rates:
    """`per_minute` requests of one key, `burst` at once. Times are seconds of any one clock."""

    def __init__(self, *, per_minute: float, burst: int) -> None:
        self._step_s = 60 / per_minute
        self._room_s = self._step_s * burst
        self._full_at: dict[str, float] = {}

    def wait_s(self, key: str, now_s: float) -> float:
        """Take one; return 0, or how long to wait for it, in which case none was taken."""
        full_at = max(self._full_at.get(key, now_s), now_s) + self._step_s
        over_s = full_at - now_s - self._room_s
        if over_s > _ROUNDING_S:
            return over_s
        if key not in self._full_at and len(self._full_at) >= _BUCKETS_MAX:
            self._forget(now_s)
        self._full_at[key] = full_at
        return 0.0

    def _forget(self, now_s: float) -> None:
        """Drop full buckets; if none is, all of them: a flood must not lock others out."""
        self._full_at = {key: at for key, at in self._full_at.items() if at > now_s}
        if len(self._full_at) >= _BUCKETS_MAX:
            self._full_at.clear()
