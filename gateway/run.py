"""One admitted call on its way: what each step found out, and the events that tell of it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.arrival import now_us
from meshkit.call_id import new_call_id
from meshkit.contract import (
    BlockedText,
    CachedAnswer,
    Commitment,
    Event,
    FinishReason,
    Payload,
    Phase,
    Reason,
    Usage,
    answer_bytes,
    prompt_bytes,
)
from meshkit.tlog import commit
from meshkit.tlog.receipts import SALT_BYTES
from meshkit.w3c import fresh_trace

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from gateway.admission import Reservation
    from gateway.arrival import Arrival, End
    from gateway.restoring import Restoring
    from meshkit.contract import (
        Actor,
        Appended,
        Call,
        Connection,
        FindingCount,
        ModelInfo,
        Question,
        Receipt,
        Refusal,
        Released,
        Screened,
    )

__all__ = ["Answer", "Run", "committed", "door_event", "stranger_event"]

RELEASED = "released"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a caller is told at the end. `text` is all of it, also what was streamed before."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    counts: tuple[FindingCount, ...]
    policy_digest: bytes
    cache_tier: str
    receipt: Receipt | None


@dataclass(slots=True, kw_only=True)
class Run:
    """An admitted call. Steps write what they found; `outcome` reads all of it."""

    arrival: Arrival
    call: Call
    model: ModelInfo
    end: End
    authorization_digest: bytes
    reservation: Reservation
    answer_tokens: int
    """Of `reservation`: what is paid for of the answer; the rest is the estimate of the prompt."""
    deliver: Callable[[str], Awaitable[None]] | None
    """None: nothing leaves before the end."""
    restoring: Restoring
    received: Commitment = field(init=False)
    intent: asyncio.Task[Appended] | None = None
    outcome: Event | None = None
    """As it was first sent: whatever happens then, no other is."""
    screened: Screened | None = None
    question: Question | None = None
    lease: bytes = b""
    tier: str = "off"
    pieces: list[str] = field(default_factory=list)
    """Released text, in the order in which it was handed over, tokens in place."""
    delivered: list[str] = field(default_factory=list)
    """The same as the caller gets it: restored where it may be, what is held missing."""
    answer_counts: tuple[FindingCount, ...] = ()
    blocked_counts: tuple[FindingCount, ...] = ()
    blocked_policy: bytes = b""
    """Digest of the compliance policy that blocked the prompt."""
    released: Released | None = None
    finish: FinishReason | None = None
    usage: Usage = field(default_factory=Usage)
    first_token_us: int = 0
    """From the call's arrival to the first text of model or cache; 0: none came."""
    served: bool = False
    """The model was asked, or might have been: tokens are settled by `usage`."""
    settled: bool = False

    def __post_init__(self) -> None:
        """Commit to what the caller sent, while it is at hand."""
        self.received = committed(prompt_bytes(self.call.messages))

    @property
    def text(self) -> str:
        """All that was released so far."""
        return "".join(self.pieces)

    async def hand_over(self, text: str) -> None:
        """Note released text; of a streamed answer, hand over what may leave by now.

        Reversible tokens are still in `text`, and stay in what is recorded as released and in what
        the cache gets.
        """
        self.pieces.append(text)
        if self.deliver is not None:
            await self._give(await self.restoring.feed(text))

    async def complete(self) -> None:
        """Hand over what is left, once all of the answer is there. Raises as `Restoring.feed`."""
        rest = "" if self.deliver is not None else self.text
        await self._give(await self.restoring.feed(rest) + await self.restoring.close())

    async def _give(self, text: str) -> None:
        """Note text, then deliver it: the record may say more, never less."""
        if text:
            self.delivered.append(text)
            if self.deliver is not None:
                await self.deliver(text)

    def token_came(self) -> None:
        """Note when the first text came."""
        self.first_token_us = self.first_token_us or self.arrival.elapsed_us

    async def from_cache(self, found: CachedAnswer) -> None:
        """Take an answer that was released before."""
        self.token_came()
        self.tier, self.finish, self.usage = found.tier, found.finish_reason, found.usage
        self.answer_counts = found.verdict.counts
        if found.text:
            await self.hand_over(found.text)

    def blocked(self, refusal: Refusal) -> None:
        """Keep what a blocked prompt held, for the record."""
        if isinstance(refusal, BlockedText):
            self.blocked_counts = refusal.verdict.counts
            self.blocked_policy = refusal.verdict.policy_digest

    @property
    def counts(self) -> tuple[FindingCount, ...]:
        """What was found in the prompt, then in the answer, then what was revealed in it."""
        prompt = self.blocked_counts or (self.screened.verdict.counts if self.screened else ())
        return prompt + self.answer_counts + self.restoring.counts

    @property
    def tokens(self) -> int:
        """What the limits are settled by: nothing, if the model was not asked."""
        if not self.served:
            return 0
        estimate = self.reservation.tokens - self.answer_tokens
        return (self.usage.prompt_tokens or estimate) + self.usage.completion_tokens

    def intent_event(self) -> Event:
        """Tell what is about to be tried."""
        return self._event(
            Phase.INTENT,
            outcome="",
            occurred_at_us=self.arrival.received_at_us,
            prompt_received=self.received,
        )

    def outcome_event(self, failure: Refusal | None, *, sealed: bool = True) -> Event:
        """Tell how it ended.

        Args:
            failure: Why it was refused; None if the answer was given.
            sealed: Whether the payload can be sealed. If not, nothing that needs a salt is told.
        """
        gone = failure is None or (self.deliver is not None and bool(self.delivered))
        answered = bool(self.pieces) or failure is None
        raw = answer_bytes(self.text) if sealed and answered else b""
        given = answer_bytes("".join(self.delivered)) if sealed and gone else b""
        screened = self.screened.messages if self.screened else ()
        policy = self.screened.verdict.policy_digest if self.screened else self.blocked_policy
        return self._event(
            Phase.OUTCOME,
            outcome=RELEASED if failure is None else failure.reason.name,
            occurred_at_us=now_us(),
            finish_reason=_finish(self.finish, failure),
            compliance_policy_digest=policy,
            counts=self.counts,
            usage=self.usage,
            cache_tier=self.tier if self.question else "",
            duration_us=self.arrival.elapsed_us,
            first_token_us=self.first_token_us,
            prompt_screened=committed(prompt_bytes(screened)) if sealed and screened else None,
            answer_released=committed(raw) if raw else None,
            answer_delivered=committed(given) if given else None,
            payload=Payload(screened=screened, released=self.text) if sealed and screened else None,
        )

    def answer(self, receipt: Receipt | None) -> Answer:
        """Tell the caller."""
        assert self.screened is not None
        assert self.finish is not None
        return Answer(
            text="".join(self.delivered),
            finish_reason=self.finish,
            usage=self.usage,
            counts=self.counts,
            policy_digest=self.screened.verdict.policy_digest,
            cache_tier=self.tier,
            receipt=receipt,
        )

    def _event(self, phase: Phase, **rest: object) -> Event:
        return Event(
            call_id=self.call.scope.call_id,
            phase=phase,
            tenant=self.call.scope.tenant,
            trace=self.call.scope.trace,
            actor=self.call.actor,
            subject=self.call.scope.subject,
            connection=self.call.connection,
            action=self.arrival.action,
            model=self.model.name,
            model_digest=self.model.digest,
            prompt_template_digest=self.model.template_digest,
            authorization_policy_digest=self.authorization_digest,
            purpose=self.call.purpose,
            **rest,  # type: ignore[arg-type] # the two callers name fields of Event
        )


def _finish(finish: FinishReason | None, failure: Refusal | None) -> FinishReason | None:
    if failure is None:
        return finish
    cancelled = failure.reason in {Reason.CANCELLED, Reason.OUT_OF_TIME}
    return FinishReason.CANCELLED if cancelled else None


def committed(raw: bytes) -> Commitment:
    """Commit to bytes under a fresh salt."""
    salt = os.urandom(SALT_BYTES)
    return Commitment(salt, commit(salt, raw))


def door_event(
    arrival: Arrival,
    *,
    actor: Actor | None,
    call: Call | None,
    model: ModelInfo | None,
    outcome: str,
    authorization_digest: bytes = b"",
) -> Event:
    """Tell of a call that ends at the door: its one OUTCOME.

    The prompt is committed to where it was well formed: a refused caller can show what it asked.
    The model is named only if it exists: any other name is the caller's text.
    """
    return Event(
        call_id=arrival.call_id,
        phase=Phase.OUTCOME,
        tenant=arrival.peer.tenant,
        occurred_at_us=now_us(),
        trace=arrival.trace,
        actor=actor,
        subject=call.scope.subject if call else "",
        connection=arrival.connection,
        action=arrival.action,
        outcome=outcome,
        model=model.name if model else "",
        model_digest=model.digest if model else b"",
        prompt_template_digest=model.template_digest if model else b"",
        duration_us=arrival.elapsed_us,
        purpose=call.purpose if call else "",
        authorization_policy_digest=authorization_digest,
        prompt_received=committed(prompt_bytes(call.messages)) if call else None,
    )


_ACTIONS = {
    "Chat": "chat",
    "ChatStream": "chat.stream",
    "ListModels": "models.list",
    "ListVersions": "model.read",
    "GetRelease": "model.read",
    "LoadModel": "model.load",
    "UnloadModel": "model.unload",
    "PromoteModel": "model.promote",
    "RollbackModel": "model.rollback",
    "SetShadow": "model.shadow",
}


def stranger_event(method: str, outcome: str, connection: Connection) -> Event:
    """Tell of a peer that the interceptor turned away, before anybody knew who it is.

    A NOTE: there is no tenant whose call it could be the OUTCOME of, and so no receipt.

    Args:
        method: `/sealgate.v1.GatewayService/Chat`; one that is not ours is not named.
        outcome: The reason.
        connection: How it came.
    """
    return Event(
        call_id=new_call_id(),
        phase=Phase.NOTE,
        tenant="",
        occurred_at_us=now_us(),
        trace=fresh_trace(),
        connection=connection,
        action=_ACTIONS.get(method.rpartition("/")[2], "unknown"),
        outcome=outcome,
    )
