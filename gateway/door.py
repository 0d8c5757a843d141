"""The door: who is it, is there room, may it. Each step passes or refuses; `pipeline` orders."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.admission import Ask
from meshkit.authorization import Request
from meshkit.contract import Actor, Reason, Refusal

if TYPE_CHECKING:
    from gateway.admission import Limits, Reservation
    from gateway.arrival import Arrival
    from gateway.models import ModelList
    from gateway.users import Users
    from meshkit.authorization import Authorizer
    from meshkit.contract import Call, ModelInfo

__all__ = ["Admitted", "Door", "Entrant"]

_BYTES_PER_TOKEN = 3
"""Of a prompt, for the estimate: English has about 4, Chinese 3. The truth is settled."""


@dataclass(frozen=True, slots=True)
class Entrant:
    """Who entered, and when its token ends (seconds since 1970)."""

    actor: Actor
    token_ends_s: float | None = None


@dataclass(frozen=True, slots=True)
class Admitted:
    """What was reserved.

    model: None if there is none of that name: not said before the caller is authorized.
    answer_tokens: how many of the reserved tokens are for the answer.
    """

    reservation: Reservation
    model: ModelInfo | None
    answer_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """The three steps before any work."""

    authorizer: Authorizer
    limits: Limits
    models: ModelList
    users: Users | None
    expected_tokens: int

    async def authenticate(self, arrival: Arrival) -> Entrant:
        """Tell who calls: the certificate's workload, for the token's user if there is one.

        Raises:
            Refusal: UNAUTHENTICATED. A token that cannot be believed is never as none.
        """
        peer = arrival.peer
        if arrival.certified.ends_s <= time.time():  # a connection may outlive its certificate
            raise Refusal(Reason.UNAUTHENTICATED)
        if not arrival.token:
            roles = self.authorizer.roles_of(peer.spiffe_id)
            return Entrant(_actor(arrival, None, roles))
        if self.users is None:
            raise Refusal(Reason.UNAUTHENTICATED)
        user = await self.users.verify(
            arrival.token, tenant=peer.tenant, thumbprint=arrival.certified.thumbprint
        )
        roles = self.authorizer.user_roles(peer.tenant, user.roles)
        return Entrant(_actor(arrival, user.subject, roles), user.ends_s)

    async def admit(self, call: Call) -> Admitted:
        """Reserve a request and the tokens it may need; tell the version, if there is one.

        Raises:
            Refusal: LIMITED; INFERENCE_DOWN, if nobody knows what models there are.
        """
        model = await self.models.choose(call.model, call.scope)
        prompt_bytes = sum(len(message.content.encode()) for message in call.messages)
        answer = min(call.parameters.max_tokens, self.expected_tokens)
        ask = Ask(
            tenant=call.scope.tenant,
            principal=call.scope.principal,
            model=model.name if model else "",
            tokens=prompt_bytes // _BYTES_PER_TOKEN + answer,
        )
        return Admitted(await self.limits.reserve(ask), model, answer)

    async def admit_list(self, actor: Actor) -> None:
        """Reserve a request of no tokens: each list is recorded, so it must not be free.

        Raises:
            Refusal: LIMITED.
        """
        ask = Ask(tenant=actor.tenant, principal=actor.principal, model="", tokens=0)
        await self.limits.reserve(ask)

    def authorize(self, actor: Actor, arrival: Arrival, call: Call) -> None:
        """Ask the policies. Raises Refusal: DENIED."""
        if not self.may(actor, arrival, "chat", model=call.model, purpose=call.purpose):
            raise Refusal(Reason.DENIED)

    def may_reveal(self, actor: Actor, arrival: Arrival, call: Call, digest: bytes) -> bool:
        """Whether the caller may have values put back in the place of tokens.

        digest: of the policies by which the call was authorized, and which its record names: others
            that were loaded meanwhile say nothing about this call, so its tokens stay.
        """
        unchanged = self.authorizer.digest == digest
        return unchanged and self.may(actor, arrival, "tokens.reveal", purpose=call.purpose)

    def may(
        self, actor: Actor, arrival: Arrival, action: str, *, model: str = "", purpose: str = ""
    ) -> bool:
        """Ask the policies about one thing."""
        request = Request(
            actor=actor,
            action=action,
            model=model,
            purpose=purpose,
            peer_ip=arrival.connection.peer_ip,
        )
        return self.authorizer.decide(request).allowed


def _actor(arrival: Arrival, user: str | None, roles: frozenset[str]) -> Actor:
    peer = arrival.peer
    return Actor(
        spiffe_id=peer.spiffe_id,
        tenant=peer.tenant,
        workload=peer.workload,
        user=user,
        roles=roles,
    )
