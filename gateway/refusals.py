"""How a flood of refusals at the door is kept from filling the log. PURE.

Of like refusals (same tenant, same reason, same second) the first ten are recorded singly; the
rest are counted, and each second's count becomes one NOTE. Time is given by the caller, in whole
seconds.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshkit.contract import Reason

__all__ = ["Counted", "RefusalFlood"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Refusals of one second that have no record of their own."""

    tenant: str
    reason: Reason
    second: int
    count: int


@dataclass(slots=True)
class RefusalFlood:
    """Tells which refusals are recorded singly and keeps count of the others.

    kinds_max: distinct (tenant, reason) pairs kept apart within a second. Beyond it refusals are
        counted under the tenant `""`, so that many tenants cannot fill the memory either.
    """

    singly_max: int = 10
    kinds_max: int = 4_096
    _seen: Counter[tuple[str, Reason, int]] = field(default_factory=Counter)

    def record_singly(self, tenant: str, reason: Reason, second: int) -> bool:
        """Note one refusal; return whether it gets a record of its own."""
        key = (tenant, reason, second)
        if key not in self._seen and len(self._seen) >= self.kinds_max:
            self._seen["", reason, second] += 1
            return self._seen["", reason, second] <= self.singly_max
        self._seen[key] += 1
        return self._seen[key] <= self.singly_max

    def due(self, second: int) -> tuple[Counted, ...]:
        """Take the counts of all seconds before `second`; each is told once."""
        over = [key for key in self._seen if key[2] < second]
        seen = [(key, self._seen.pop(key)) for key in over]
        return tuple(
            Counted(tenant=tenant, reason=reason, second=at, count=n - self.singly_max)
            for (tenant, reason, at), n in seen
            if n > self.singly_max
        )
