"""The path of a call: the order of its steps, and nothing else.

    1  authenticate   certificate, token            }
    2  read           the request, checked          }  a refusal here is one OUTCOME,
    3  admit          limits: reserve               }  of a flood only the first ten
    4  authorize      Cedar; the model must exist   }
    5  intent         sent first; durable before 8, or before anything leaves
    6  screen         beside 5
    7  look up        beside 5
    8  generate       the model is asked
    9  release        before a single character leaves
    10 keep           the cache, reversible tokens still in place
    11 restore        tokens, for those allowed; of a stream, as its pieces leave
    12 outcome        durable before the last frame, the unary answer or the refusal
    13 settle         limits; whatever became of the call

One path serves unary and streamed calls: `deliver` is where released text leaves before the end, or
None. A cancelled call gets 12 and 13 in the background, which `settled` waits for.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from gateway.restoring import Restoring
from gateway.run import RELEASED, Answer, Run, door_event, stranger_event
from meshkit.contract import CachedAnswer, FinishReason, Question, Reason, Refusal
from meshkit.counters import TOKENS, observed
from meshkit.telemetry import annotate, step
from meshkit.telemetry_names import AUDIT_INDEX, AUDIT_LEAF_HASH, AUDIT_ORIGIN

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.arrival import Arrival
    from gateway.asking import Asking
    from gateway.door import Admitted, Door, Entrant
    from gateway.ledger import Ledger
    from gateway.settings import GatewaySettings
    from gateway.shelf import Shelf
    from meshkit.contract import (
        Actor,
        Call,
        Compliance,
        Connection,
        ModelInfo,
        Receipt,
        ReleaseDesk,
    )

__all__ = ["Pipeline"]


@dataclass(slots=True)
class _Entry:
    """What the door has found out; some of it is missing when it refuses."""

    entrant: Entrant | None = None
    call: Call | None = None
    admitted: Admitted | None = None

    @property
    def model(self) -> ModelInfo | None:
        return self.admitted.model if self.admitted else None


@dataclass(slots=True, kw_only=True)
class Pipeline:
    """Owns the order of the steps."""

    door: Door
    ledger: Ledger
    compliance: Compliance
    shelf: Shelf
    asking: Asking
    settings: GatewaySettings
    releases: ReleaseDesk | None = None
    """What the models' desk asks; the path of a call has no part in it."""
    in_flight: int = 0

    async def answer(
        self,
        arrival: Arrival,
        read: Callable[[Actor], Call],
        deliver: Callable[[str], Awaitable[None]] | None = None,
    ) -> Answer:
        """Answer a call, leaving a durable record whatever happens.

        Args:
            arrival: The call at the door.
            read: Turns the request into a `Call` of this actor; raises INVALID_FIELD.
            deliver: Takes released text as it comes, none of it empty.

        Raises:
            Refusal: a step refused. Its `receipt` names the record; it has none if it was only
                counted, or if the record could not be made (then it is AUDIT_DOWN, KEYS_DOWN or
                OVERLOADED).
        """
        self.in_flight += 1
        try:
            run = await self._enter(arrival, read, deliver)
            try:
                return await self._governed(run)
            except asyncio.CancelledError:
                self.ledger.in_background(self._after_cancel(run))
                raise
        finally:
            self.in_flight -= 1

    async def models(self, arrival: Arrival) -> tuple[ModelInfo, ...]:
        """List the models that this caller may ask. Raises Refusal, as `answer` does."""
        entry = _Entry()
        try:
            entrant = entry.entrant = await self.door.authenticate(arrival)
            self._room()
            await self.door.admit_list(entrant.actor)
            if not self.door.may(entrant.actor, arrival, "models.list"):
                raise Refusal(Reason.DENIED)  # noqa: TRY301 -- recorded below, as all of them
            known = await self.door.models.all()
        except Refusal as refusal:
            await self._turned_away(arrival, entry, refusal)
            raise
        await self.ledger.record(
            door_event(
                arrival,
                actor=entrant.actor,
                call=None,
                model=None,
                outcome=RELEASED,
                authorization_digest=self.door.authorizer.digest,
            )
        )
        return tuple(
            model
            for name, model in sorted(known.items())
            if self.door.may(entrant.actor, arrival, "chat", model=name)
        )

    async def stranger(self, refusal: Refusal, method: str, connection: Connection) -> None:
        """Record a refusal by the interceptor: of a peer that is nobody we know, or not for us."""
        told = partial(stranger_event, method, refusal.reason.name, connection)
        await self.ledger.refused(refusal, "", told)

    async def settled(self) -> None:
        """Wait for what cancelled calls have left behind: to be called once none is under way."""
        await self.ledger.settled()

    # --- the door: 1 to 4 ---------------------------------------------------------------------

    async def _enter(
        self,
        arrival: Arrival,
        read: Callable[[Actor], Call],
        deliver: Callable[[str], Awaitable[None]] | None,
    ) -> Run:
        entry = _Entry()
        try:
            run = await self._through(arrival, read, entry)
        except Refusal as refusal:
            if entry.admitted is not None:
                await self.door.limits.settle(entry.admitted.reservation, 0)
            await self._turned_away(arrival, entry, refusal)
            raise
        run.deliver = deliver
        return run

    async def _through(self, arrival: Arrival, read: Callable[[Actor], Call], entry: _Entry) -> Run:
        with step("authenticate"):
            entrant = entry.entrant = await self.door.authenticate(arrival)
        with step("read"):
            self._room()
            arrival.deadline.demand()
            call = entry.call = read(entrant.actor)
        with step("admit"):
            admitted = entry.admitted = await self.door.admit(call)
        with step("authorize"):
            self.door.authorize(entrant.actor, arrival, call)
            if admitted.model is None:
                raise Refusal(Reason.NOT_FOUND)
        digest = self.door.authorizer.digest
        allowed = partial(self.door.may_reveal, entrant.actor, arrival, call, digest)
        stream = arrival.action == "chat.stream"
        life_ms = self.settings.stream_life_ms if stream else self.settings.call_budget_ms
        return Run(
            arrival=arrival,
            call=call,
            model=admitted.model,
            end=arrival.ends(entrant.token_ends_s, life_ms),
            authorization_digest=digest,
            reservation=admitted.reservation,
            answer_tokens=admitted.answer_tokens,
            deliver=None,
            restoring=Restoring(call.scope, self.compliance.reveal, allowed),
        )

    def _room(self) -> None:
        if self.in_flight > self.settings.in_flight_max:
            retry_ms = self.settings.overloaded_retry_ms
            raise Refusal(Reason.OVERLOADED, retry_after_ms=retry_ms)

    async def _turned_away(self, arrival: Arrival, entry: _Entry, refusal: Refusal) -> None:
        await self.ledger.refused(
            refusal,
            arrival.peer.tenant,
            lambda: door_event(
                arrival,
                actor=entry.entrant.actor if entry.entrant else None,
                call=entry.call,
                model=entry.model,
                outcome=refusal.reason.name,
                authorization_digest=self.door.authorizer.digest,
            ),
        )
        _name_record(refusal.receipt)

    # --- the work: 5 to 11 --------------------------------------------------------------------

    async def _governed(self, run: Run) -> Answer:
        failure: Refusal | None = None
        limit = asyncio.timeout_at(run.end.at_s)
        try:
            async with limit:
                await self._work(run)
        except Refusal as refusal:
            failure = refusal
        except Exception as error:
            if not (isinstance(error, TimeoutError) and limit.expired()):
                # A bug. The record says INTERNAL; the interceptor mutes the rest.
                await self._finish(run, Refusal(Reason.INTERNAL))
                raise
            failure = Refusal(run.end.reason)
        receipt = await self._finish(run, failure)
        if failure is not None:
            failure.receipt = receipt
            raise failure
        return run.answer(receipt)

    async def _work(self, run: Run) -> None:
        self.ledger.open(run)
        await asyncio.sleep(0)  # the INTENT is on its way before screening takes the processor
        with step("screen"):
            try:
                run.screened = await self.compliance.screen(run.call.scope, run.call.messages)
            except Refusal as refusal:
                run.blocked(refusal)
                raise
        run.restoring.expect(run.screened)
        run.question = Question(
            scope=run.call.scope,
            screened=run.screened,
            model_digest=run.model.digest,
            parameters=run.call.parameters,
        )
        found = await self.shelf.look_up(run, run.question)
        with step("intent"):
            await self.ledger.opened(run)
        if isinstance(found, CachedAnswer):
            await run.from_cache(found)
        else:
            with step("generate"):
                await self.asking.ask(run)
            await self.shelf.keep(run, run.question)
        await run.complete()

    # --- the end: 12 and 13 -------------------------------------------------------------------

    async def _finish(self, run: Run, failure: Refusal | None) -> Receipt | None:
        try:
            with step("outcome"):
                receipt = await self.ledger.close(run, failure)
            _name_record(receipt)
            return receipt
        finally:
            await self._leave(run)

    async def _after_cancel(self, run: Run) -> None:
        """Say what was released, to the record only: the caller is gone."""
        run.finish = FinishReason.CANCELLED
        await self._finish(run, Refusal(Reason.CANCELLED))

    async def _leave(self, run: Run) -> None:
        """Give back what the call held: once, however it ended."""
        with step("settle"):
            await self.shelf.give_back(run)
            if not run.settled:
                run.settled = True
                _tokens_observed(run)
                await self.door.limits.settle(run.reservation, run.tokens)


def _tokens_observed(run: Run) -> None:
    for kind, tokens in (
        ("input", run.usage.prompt_tokens),
        ("output", run.usage.completion_tokens),
    ):
        if tokens:
            observed(f"gen_ai.tokens.{kind}.{run.model.name}", tokens, TOKENS)


def _name_record(receipt: Receipt | None) -> None:
    """Let the call's root span name its record."""
    if receipt is not None:
        annotate(AUDIT_INDEX, receipt.index)
        annotate(AUDIT_ORIGIN, receipt.origin)
        annotate(AUDIT_LEAF_HASH, receipt.leaf_hash.hex())
