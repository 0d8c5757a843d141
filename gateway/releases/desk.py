"""A step of a model's release, as somebody at the gateway's port asks for it.

    1  authenticate   certificate, token            }  a refusal here is one OUTCOME,
    2  admit          limits: a request             }  as with any call
    3  authorize      Cedar: `model.<step>` on the model
    4  intent         durable before anything is changed
    5  the step       inference takes it, or refuses
    6  outcome        durable before the answer, or the refusal, leaves

What inference then does of itself (a load that fails, a rollback) it records by itself.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gateway.run import RELEASED, door_event
from meshkit.contract import Phase, Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.arrival import Arrival
    from gateway.door import Door, Entrant
    from gateway.ledger import Ledger
    from meshkit.contract import Actor, Event, Release, ReleaseDesk, ReleaseStep

__all__ = ["ModelDesk"]


@dataclass(slots=True, kw_only=True)
class ModelDesk:
    """Owns the order of these steps.

    steps_max: Calls at this desk at once; beyond it: OVERLOADED.
    """

    door: Door
    ledger: Ledger
    releases: ReleaseDesk
    steps_max: int
    retry_ms: int
    in_flight: int = 0

    async def read(
        self, arrival: Arrival, model: Callable[[], str] | None = None
    ) -> tuple[Release, ...]:
        """Tell how models stand: those that the caller may look after.

        Args:
            arrival: The call at the door.
            model: Reads which one is asked for (INVALID_FIELD); None: all.

        Raises:
            Refusal: as the steps above say; DENIED, also where there is none one may look after.
        """
        entrant: Entrant | None = None
        self.in_flight += 1
        try:
            entrant = await self._enter(arrival)
            name = model() if model is not None else ""
            if name and not self._may(arrival, entrant.actor, name):
                raise Refusal(Reason.DENIED)  # noqa: TRY301 -- recorded below, as all of them
            found = tuple(
                release
                for release in await self.releases.releases(name)
                if self._may(arrival, entrant.actor, release.model)
            )
            if not found:
                raise Refusal(Reason.DENIED)  # noqa: TRY301 -- recorded below, as all of them
            await self.ledger.record(self._event(arrival, entrant.actor, outcome=RELEASED))
        except Refusal as refusal:
            await self._turned_away(arrival, entrant, refusal)
            raise
        finally:
            self.in_flight -= 1
        return found

    async def take(self, arrival: Arrival, read: Callable[[], ReleaseStep]) -> Release:
        """Take a step; return how the model stands then.

        Args:
            arrival: The call at the door.
            read: Turns the request into a step; raises INVALID_FIELD.

        Raises:
            Refusal: as the steps above say; AUDIT_DOWN before 5: nothing was changed.
        """
        work = asyncio.create_task(self._asked(arrival, read))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            # Inference may have taken the step: it is recorded to its end, whoever waits for it.
            self.ledger.in_background(work)
            raise

    async def _asked(self, arrival: Arrival, read: Callable[[], ReleaseStep]) -> Release:
        entrant: Entrant | None = None
        self.in_flight += 1
        try:
            entrant = await self._enter(arrival)
            step = read()
            if not self._may(arrival, entrant.actor, step.model):
                raise Refusal(Reason.DENIED)  # noqa: TRY301 -- recorded below, as all of them
            event = await self._step_event(arrival, entrant.actor, step)
            await self.ledger.record(replace(event, phase=Phase.INTENT, outcome=""))
        except Refusal as refusal:
            await self._turned_away(arrival, entrant, refusal)
            raise
        finally:
            self.in_flight -= 1
        return await self._taken(step, event)

    async def _taken(self, step: ReleaseStep, event: Event) -> Release:
        self.in_flight += 1
        try:
            release = await self.releases.take(step)
        except Refusal as refusal:
            refusal.receipt = await self.ledger.record(replace(event, outcome=refusal.reason.name))
            raise
        except Exception:
            # A bug. The record says INTERNAL; the interceptor mutes the rest.
            await self.ledger.record(replace(event, outcome=Reason.INTERNAL.name))
            raise
        finally:
            self.in_flight -= 1
        found = release.find(step.version)
        digest = found.digest if found else b""
        told = _detail(step) if found or not step.version else ()
        await self.ledger.record(
            replace(event, model=release.model, model_digest=digest, detail=told)
        )
        return release

    async def _enter(self, arrival: Arrival) -> Entrant:
        if self.in_flight > self.steps_max:
            raise Refusal(Reason.OVERLOADED, retry_after_ms=self.retry_ms)
        entrant = await self.door.authenticate(arrival)
        arrival.deadline.demand()
        await self.door.admit_list(entrant.actor)
        return entrant

    def _may(self, arrival: Arrival, actor: Actor, model: str) -> bool:
        return self.door.may(actor, arrival, arrival.action, model=model)

    async def _step_event(self, arrival: Arrival, actor: Actor, step: ReleaseStep) -> Event:
        """Tell of a step; the model is named only if it exists: else its name is caller's text."""
        event = self._event(arrival, actor, outcome=RELEASED)
        known = (await self.door.models.all()).get(step.model)
        return replace(event, model=known.name) if known else event

    def _event(self, arrival: Arrival, actor: Actor | None, *, outcome: str) -> Event:
        return door_event(
            arrival,
            actor=actor,
            call=None,
            model=None,
            outcome=outcome,
            authorization_digest=self.door.authorizer.digest,
        )

    async def _turned_away(
        self, arrival: Arrival, entrant: Entrant | None, refusal: Refusal
    ) -> None:
        actor = entrant.actor if entrant else None
        await self.ledger.refused(
            refusal,
            arrival.peer.tenant,
            lambda: self._event(arrival, actor, outcome=refusal.reason.name),
        )


def _detail(step: ReleaseStep) -> tuple[tuple[str, str], ...]:
    """Tell what a step asked for, once inference knew what it speaks of."""
    told = {
        "version": step.version,
        "percent": str(step.percent) if step.percent else "",
        "replicas": str(step.replicas) if step.replicas else "",
        "seconds": str(step.seconds) if step.seconds else "",
    }
    return tuple(sorted((name, value) for name, value in told.items() if value))
