"""What an engine is told of who asks: out of the caller's checked identity, and of the RPC served.

The salt is HMAC-SHA-256, under a key made for this process alone, of tenant and principal: whoever
sees salts learns no names, and nobody can choose one.
"""

from __future__ import annotations

import hmac
import secrets
from typing import TYPE_CHECKING, Literal

from inference.engines.base import RequestContext
from meshkit.reading import wanted
from meshkit.request import current

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meshkit.contract import Scope

__all__ = ["Contexts"]

_KEY_BYTES = 32


class Contexts:
    """Makes contexts.

    Args:
        share: whose prompts may share computed prefixes: one principal's (as in the answer cache:
            nobody learns from an answer's speed what a colleague asked), one tenant's, or nobody's.
        priorities: of tenants; 0 is everyone else's. Higher is served sooner.
    """

    def __init__(
        self,
        *,
        share: Literal["principal", "tenant", "nobody"] = "principal",
        priorities: Mapping[str, int] | None = None,
    ) -> None:
        self._key = secrets.token_bytes(_KEY_BYTES)
        self._share = share
        self._priorities = dict(priorities or {})

    def of(self, scope: Scope) -> RequestContext:
        """Return the context of a call; its deadline is that of the RPC which this task serves."""
        return RequestContext(
            salt=self._salt(scope),
            deadline_s=_deadline_s(),
            priority=self._priorities.get(scope.tenant, 0),
            wanted=wanted(),
        )

    def _salt(self, scope: Scope) -> bytes:
        if self._share == "nobody":
            return b""
        whose = [self._share, scope.tenant]
        if self._share == "principal":
            whose.append(scope.principal)
        # Lengths first, so that no two lists of names give the same bytes.
        parts = [part.encode() for part in whose]
        raw = b"".join(len(part).to_bytes(4) + part for part in parts)
        return hmac.digest(self._key, raw, "sha256")


def _deadline_s() -> float | None:
    try:
        return current().deadline.at_s
    except LookupError:
        # Nobody's RPC: a warm-up or a program of our own.
        return None
