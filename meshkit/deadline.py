"""How much time a call has left, and how much of it the next hop may have. PURE.

    client --10 s--> gateway --shave(20 ms)--> inference: 9.98 s, so that a timeout there can
                                                          still be told, and recorded, here

A deadline is a point on the monotonic clock of this process, so it never travels: the next hop is
told `remaining_s` (gRPC's `grpc-timeout`) and counts from its own clock.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Self

from meshkit.contract import Reason, Refusal

__all__ = ["Deadline"]


@dataclass(frozen=True, slots=True)
class Deadline:
    """When a call must be over.

    at_s: on `time.monotonic()`, in seconds.
    """

    at_s: float

    @classmethod
    def after(cls, seconds: float) -> Self:
        """Return the deadline `seconds` from now."""
        return cls(time.monotonic() + seconds)

    @classmethod
    def of_rpc(cls, time_remaining_s: float | None, *, budget_ms: int) -> Self:
        """Return the deadline of an RPC: the caller's, or `budget_ms` where it set none.

        Args:
            time_remaining_s: As gRPC's `time_remaining()` tells: None or infinite without a
                deadline, 0 or less once it has passed.
            budget_ms: For calls that bring no deadline; also the longest that any call may have.
        """
        budget_s = budget_ms / 1_000
        if time_remaining_s is None or not math.isfinite(time_remaining_s):
            return cls.after(budget_s)
        return cls.after(min(time_remaining_s, budget_s))

    @property
    def remaining_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at_s - time.monotonic())

    def shave(self, reserve_ms: int) -> Self:
        """Return the deadline for the next hop: `reserve_ms` earlier than ours.

        Raises:
            Refusal: OUT_OF_TIME, if that leaves nothing: the work would be thrown away.
        """
        earlier = type(self)(self.at_s - reserve_ms / 1_000)
        earlier.demand()
        return earlier

    def demand(self, needed_ms: int = 0) -> None:
        """Go on only if more than `needed_ms` are left.

        Raises:
            Refusal: OUT_OF_TIME.
        """
        if self.at_s - time.monotonic() <= needed_ms / 1_000:
            raise Refusal(Reason.OUT_OF_TIME)
