"""How many calls of one tenant are open at a server, so that none takes everybody's places. PURE.

Limits of rate do not see what stays open: watches of health, reflection, streams that nobody reads.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from meshkit.contract import Reason, Refusal
from meshkit.identity import ServiceIdentity, TenantIdentity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshkit.identity import Identity

__all__ = ["Places"]

RETRY_MS = 250
"""What a tenant is told whose places are taken."""


class Places:
    """Counts the open calls of each tenant; certificates that name none share one count.

    Services are not counted: they carry everybody's calls.
    """

    def __init__(self, each_max: int) -> None:
        """Let each tenant have `each_max` calls open."""
        self.each_max = each_max
        self._taken: Counter[str] = Counter()

    @contextmanager
    def taken(self, identity: Identity | None) -> Iterator[None]:
        """Hold a place for as long as the block runs.

        Raises:
            Refusal: OVERLOADED, with the delay to try again after.
        """
        if isinstance(identity, ServiceIdentity):
            yield
            return
        tenant = identity.tenant if isinstance(identity, TenantIdentity) else ""
        if self._taken[tenant] >= self.each_max:
            raise Refusal(Reason.OVERLOADED, retry_after_ms=RETRY_MS)
        self._taken[tenant] += 1
        try:
            yield
        finally:
            self._taken[tenant] -= 1
            if not self._taken[tenant]:
                del self._taken[tenant]
