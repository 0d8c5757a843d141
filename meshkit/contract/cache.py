"""What the cache is asked and what it keeps. PURE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from meshkit.contract.call import FinishReason, Parameters, Scope
    from meshkit.contract.compliance import Released, Screened, Verdict
    from meshkit.contract.inference import Ended, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """All that an answer depends on; the cache's key is a keyed hash of it."""

    scope: Scope
    screened: Screened
    model_digest: bytes
    parameters: Parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedAnswer:
    """A released answer that was given before to the same principal under the same policy."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    verdict: Verdict
    tier: str
    """`l1`, `l2` or `l3`: for the record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheMiss:
    """No answer yet.

    lease: not empty if this caller is the one that should produce the answer (single flight): it
        must `put` or `abandon`. Empty: produce one too, and keep it to yourself.
    """

    lease: bytes = b""


class Cache(Protocol):
    """Sealed answers. Losing one is never an error: every failure is a miss."""

    async def get(self, question: Question) -> CachedAnswer | CacheMiss:
        """Look up; wait a bounded time if an equal question is being answered right now.

        Raises:
            Refusal: CACHE_DOWN; the gateway counts it and goes on as after a miss. INVALID_FIELD,
                if `question.screened.mac` does not hold.
        """
        ...

    async def put(self, question: Question, lease: bytes, answer: Released, ended: Ended) -> None:
        """Keep an answer and wake those who wait for it. Raises as `get` does."""
        ...

    async def abandon(self, question: Question, lease: bytes) -> None:
        """Give the lease back without an answer; one waiter becomes the next to try."""
        ...

    async def purge(
        self, tenant: str, *, session: str = "", model_digest: bytes = b"", subject: str = ""
    ) -> int:
        """Forget everything of a tenant, or what bears the one of the three that is given.

        Returns:
            How many entries went.

        Raises:
            Refusal: CACHE_DOWN: some may be left; do it again.
        """
        ...
