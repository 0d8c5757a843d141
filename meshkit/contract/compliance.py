"""What compliance is asked and what it vouches for. PURE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from meshkit.contract.refusal import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence

    from meshkit.contract.call import Direction, Message, Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingCount:
    """How often a type was found in one direction, and what was done. Never the text."""

    direction: Direction
    type: str
    subtype: str
    action: str
    """`allow`, `flag`, `mask`, `replace`, `hash`, `tokenise` or `block`; of an answer as delivered
    also `reveal`: so many tokens had their values put back for this caller."""
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What compliance thought of a text, in numbers, and under which policy."""

    counts: tuple[FindingCount, ...] = ()
    policy_digest: bytes = b""
    """SHA-256 of the policy's canonical form: 32 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Screened:
    """A prompt that `Compliance.screen` let in. Only this may reach cache or model."""

    messages: tuple[Message, ...]
    verdict: Verdict
    mac: bytes
    """`screening_mac.tag` over stage, digest of `prompt_bytes(messages)`, policy, tenant, call."""
    mac_key_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """An answer that `Compliance.release` let out. Only this may be cached or delivered."""

    text: str
    """All of it, with reversible tokens still in place; equal to the deltas yielded before."""
    verdict: Verdict
    mac: bytes
    mac_key_version: int
    blocked: bool = False
    """A segment was blocked: `text` is what stood before it, and nothing follows. Not cached."""


class Compliance(Protocol):
    """Decides what text may travel. A pure function of text and policy, but for the MAC."""

    async def screen(self, scope: Scope, messages: Sequence[Message]) -> Screened:
        """Let a prompt in, masked where policy says so.

        Raises:
            Refusal: BLOCKED, with the counts lost to the caller but kept in `blocked_verdict`
                (see `BlockedText`); COMPLIANCE_DOWN, if a recognizer failed or no policy is loaded.
        """
        ...

    def release(
        self, scope: Scope, deltas: AsyncIterable[str], *, policy_digest: bytes = b""
    ) -> AsyncIterator[str | Released]:
        """Let an answer out as it comes; the last item, and only it, is `Released`.

        policy_digest: the verdict's of the call's `Screened`, so that one policy judges all of a
            call even if another is loaded meanwhile; empty: the tenant's policy of now.

        Yields non-empty pieces whose concatenation is `Released.text`. Closing the iterator
        closes `deltas`.

        Raises:
            Refusal: COMPLIANCE_DOWN, also if no policy of that digest was in force lately. What
                was yielded before stands.
        """
        ...

    async def reveal(self, scope: Scope, names: Sequence[str]) -> Mapping[str, str]:
        """Return the values behind tokens; to be asked only once policy has allowed it.

        names: as `meshkit.tokens.find_tokens` tells them. Those of another tenant or session, that
            have expired or never were, have none.

        Raises:
            Refusal: COMPLIANCE_DOWN.
        """
        ...


class BlockedText(Refusal):
    """`BLOCKED`, with what was found, for the record."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(Reason.BLOCKED)
        self.verdict = verdict
