"""The releases of all models: events in, what is to be done out. PURE.

    releases = Releases(Rules(), new_key=lambda: os.urandom(16))
    releases.register("m", "2", manifest)
    for decision in releases.load("m", "2", now_s): ...

Each method changes state at once and returns the I/O it asks for; whoever does that tells how it
went by another method. Time is the caller's: seconds since 1970. What a step may not do in the
state that there is, it refuses, and nothing has changed.

Held by properties (tests/inference/test_release_core.py): a name has one live version at most, and
from its first on always one, unless a person takes that first one back; traffic goes to warm
versions alone; a call ends on the version it began on, and only then is that unloaded; with a
predecessor there is a way back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inference.release.moves import PERCENT, Decisions, Moves
from inference.release.rules import PER_WHOLE, breach, drifted
from inference.release.states import (
    DIGEST_CHANGED,
    RELEASED,
    Canary,
    Goal,
    Model,
    Probation,
    Shadow,
    State,
    Unload,
    Version,
    Warm,
)
from inference.release.windows import Window, compared, stats
from meshkit.contract import Reason, Refusal

if TYPE_CHECKING:
    from inference.release.windows import Comparison, Sample, Stats

__all__ = ["Releases"]


@dataclass(slots=True)
class Releases(Moves):
    """All models of one inference process. new_key: gives 16 random bytes."""

    # --- what there is ------------------------------------------------------------------------

    def register(
        self, name: str, version: str, manifest: bytes, *, quiet: bool = False
    ) -> Decisions:
        """Make a version known. One that is known under another digest is refused for good."""
        model = self.models.setdefault(name, Model(name=name))
        known = model.versions.get(version)
        if known is None:
            fresh = Version(version=version, manifest=manifest, calls=self._window())
            model.versions[version] = fresh
            return [] if quiet else [self._note("model.register", model, fresh)]
        if known.manifest == manifest:
            return []
        if known.why == DIGEST_CHANGED:
            return []
        known.why = DIGEST_CHANGED
        if not known.held:
            known.state = State.REFUSED
        return [self._note("model.refuse", model, known, rule=DIGEST_CHANGED)]

    def adopt(self, name: str, version: str, digest: bytes) -> None:
        """Take over an engine that runs already: it is live."""
        model = self.models.setdefault(name, Model(name=name))
        model.versions[version] = Version(
            version=version,
            manifest=digest,
            digest=digest,
            state=State.LIVE,
            calls=self._window(),
        )
        model.live = version

    def shares(self, name: str) -> list[tuple[Version, int]]:
        """Return who gets traffic, and how much of it on this replica: the candidate first."""
        model = self.models.get(name)
        if model is None:
            return []
        live, trial = model.versions.get(model.live), self._trial(model)
        share = self._share(model.canary) if model.canary and trial else 0
        parts = [(trial, share)] if trial and share else []
        if live is not None and live.state is State.LIVE and share < PER_WHOLE:
            parts.append((live, PER_WHOLE - share))
        return parts

    # --- steps --------------------------------------------------------------------------------

    def load(self, name: str, version: str, goal: Goal = Goal.WARM) -> Decisions:
        """Load a version; one at a time, and never more than `loaded_max` in memory.

        Raises:
            Refusal: NOT_FOUND; WRONG_STATE (it is loaded, or refused for good); OVERLOADED.
        """
        model, found = self._found(name, version)
        if found.why == DIGEST_CHANGED or (found.held and not found.leaving):
            raise Refusal(Reason.WRONG_STATE)
        if found.leaving:
            found.leaving, found.state, found.why = False, State.WARM, ""
            return [self._note("model.load", model, found, by="operator")]
        if self._loading or self.held >= self.rules.loaded_max:
            raise Refusal(Reason.OVERLOADED, retry_after_ms=1_000)
        return self._want(model, found, goal)

    def unload(self, name: str, version: str, now_s: float) -> Decisions:
        """Unload a version that has no traffic, once its calls have ended.

        Raises:
            Refusal: NOT_FOUND; WRONG_STATE (live, on trial, being loaded, or not loaded).
        """
        model, found = self._found(name, version)
        if found.state is not State.WARM or found.leaving:
            raise Refusal(Reason.WRONG_STATE)
        if model.shadow is not None and model.shadow.version == version:
            model.shadow = None
        found.leaving = True
        return self._drained(now_s)

    def canary(
        self,
        name: str,
        version: str,
        *,
        percent: int = 0,
        replicas: int = 0,
        for_s: float = 0.0,
        now_s: float,
    ) -> Decisions:
        """Try a warm version on some of the traffic; again: change how much, and for how long.

        Args:
            name: The model's.
            version: The candidate.
            percent: Of conversations, 1 to 99.
            replicas: All of the traffic on so many replicas, fewer than there are. Neither: what
                the rules say, replicas if there are more than they ask for.
            for_s: Then people are told, and it goes on; 0: what the rules say.
            now_s: Seconds since 1970.

        Raises:
            Refusal: NOT_FOUND; WRONG_STATE; INVALID_FIELD.
        """
        model, found = self._found(name, version)
        share, replicas = self._scope_of(percent, replicas)
        trial = model.canary
        other = trial is not None and trial.version != version
        if other or not found.releasable or not self._lives(model):
            raise Refusal(Reason.WRONG_STATE)
        key = trial.key if trial else self.new_key()
        ends_s = now_s + (for_s or self.rules.canary_s)
        baseline = self._fair(model, now_s)
        if trial is None:
            found.calls.clear()
        found.state, found.why = State.CANARY, ""
        model.canary = Canary(
            version=version,
            share=share,
            replicas=replicas,
            ends_s=ends_s,
            key=key,
            baseline=baseline,
        )
        told = {"replicas": str(replicas)} if replicas else {"percent": str(share // PERCENT)}
        return [self._note("model.canary", model, found, by="operator", **told)]

    def promote(self, name: str, version: str, now_s: float) -> Decisions:
        """Give a warm version all traffic; the one before stays loaded, as the way back.

        Raises:
            Refusal: NOT_FOUND; WRONG_STATE.
        """
        model, found = self._found(name, version)
        if not found.releasable:
            raise Refusal(Reason.WRONG_STATE)
        old = model.versions.get(model.live)
        baseline = self._fair(model, now_s)
        if old is not None:
            model.older |= version in model.history
            model.history = [old.version, *(v for v in model.history if v != version)]
        self._end_trial(model, now_s)
        self._switch(model, found, now_s)
        if old is not None:
            model.probation = Probation(until_s=now_s + self.rules.probation_s, baseline=baseline)
        note = self._note(
            "model.promote", model, found, by="operator", before=old.version if old else ""
        )
        return [note, *self._sweep(model), *self._drained(now_s)]

    def rollback(self, name: str, now_s: float) -> Decisions:
        """End the trial if there is one; else put the version back that was live before.

        Raises:
            Refusal: NOT_FOUND; WRONG_STATE: there is nothing to go back to. Before its first
                promotion nobody answered under a name; the service's own is never without.
        """
        model = self._model(name)
        return self._back(model, "operator", now_s)

    def shadow(self, name: str, version: str, percent: int) -> Decisions:
        """Repeat some calls on a version that answers for nobody; 0 per cent: no more.

        Raises:
            Refusal: NOT_FOUND; WRONG_STATE; INVALID_FIELD.
        """
        model, found = self._found(name, version)
        if not 0 <= percent <= 100:  # noqa: PLR2004 -- per cent
            raise Refusal(Reason.INVALID_FIELD, field="percent")
        other = model.shadow is not None and model.shadow.version != version
        if (percent and not found.releasable) or (not percent and other):
            raise Refusal(Reason.WRONG_STATE)
        seen: Window[Comparison] = Window(self.rules.canary_s)
        if model.shadow is not None and model.shadow.version == version:
            seen = model.shadow.seen
        made = Shadow(version=version, share=percent * PERCENT, seen=seen)
        model.shadow = made if percent else None
        return [self._note("model.shadow", model, found, by="operator", percent=str(percent))]

    # --- what happened ------------------------------------------------------------------------

    def first(self, name: str, version: str) -> Decisions:
        """Begin with a version: nothing else is live yet."""
        model, found = self._found(name, version)
        return self._want(model, found, Goal.LIVE)

    def again(self) -> Decisions:
        """Load what was loaded before a restart, the live ones first."""
        wanted = [
            (found.goal is not Goal.LIVE, model.name, found.version, found.goal)
            for model in self.models.values()
            for found in model.versions.values()
            if found.goal is not None and not found.loading
        ]
        done = Decisions()
        for _, name, version, goal in sorted(wanted):
            done += self._want(*self._found(name, version), goal)
        return done

    def loaded(self, name: str, version: str, digest: bytes) -> Decisions:
        """An engine was built. digest: what records will name."""
        _, found = self._found(name, version)
        found.state, found.digest = State.LOADED, digest
        return [Warm(name, version)]

    def warmed(self, name: str, version: str, now_s: float) -> Decisions:
        """It has answered, and twice the same."""
        model, found = self._found(name, version)
        goal, found.goal, found.loading = found.goal, None, False
        found.state, found.why = State.WARM, ""
        notes: Decisions = [self._note("model.load", model, found)]
        if goal is Goal.LIVE:
            self._switch(model, found, now_s)
            notes += self._sweep(model)
        elif goal is Goal.CANARY and model.canary and model.canary.version == version:
            found.state = State.CANARY
        return [*notes, *self._next()]

    def failed(
        self, name: str, version: str, why: str, now_s: float, *, refused: bool = False
    ) -> Decisions:
        """It could not be loaded or warmed up. why: a constant."""
        model, found = self._found(name, version)
        built = found.state is State.LOADED
        goal, found.goal, found.loading = found.goal, None, False
        found.state, found.why = (State.REFUSED if refused else State.FAILED), why
        done: Decisions = [self._note("model.refuse", model, found, rule=why)]
        if built:
            done.append(Unload(name, version))
        if model.canary is not None and model.canary.version == version:
            model.canary = None
        if model.shadow is not None and model.shadow.version == version:
            model.shadow = None
        model.older |= version in model.history
        model.history = [each for each in model.history if each != version]
        if goal is Goal.LIVE and (model.live == version or not self._lives(model)):
            done += self._fallen(model, now_s)
        return [*done, *self._next()]

    def began(self, name: str, digest: bytes, now_s: float) -> str | None:
        """A call comes that was promised this digest; None: nobody here may answer it.

        A version that lost its traffic takes calls for a while longer: who was sent to it before
        is still on the way.
        """
        model = self.models.get(name)
        for found in model.versions.values() if model else ():
            # Not what is being loaded again: a clock that was put back would make it look late.
            left = abs(now_s - found.left_s) <= self.rules.linger_s
            late = found.held and not found.loading and left
            if found.digest == digest and (found.state in RELEASED or (late and found.digest)):
                found.in_flight += 1
                return found.version
        return None

    def ended(self, name: str, version: str, sample: Sample | None, now_s: float) -> Decisions:
        """A call has ended. sample: None if it says nothing of the version."""
        _, found = self._found(name, version)
        found.in_flight -= 1
        if sample is not None:
            found.calls.add(sample, now_s)
        return self._drained(now_s) if found.leaving else []

    def compared(self, name: str, version: str, comparison: Comparison, now_s: float) -> None:
        """A shadow answered; nothing if it is none any more."""
        shadow = self._model(name).shadow
        if shadow is not None and shadow.version == version:
            shadow.seen.add(comparison, now_s)

    def down(self, name: str, version: str, now_s: float) -> Decisions:
        """A version's engine has ended: a trial ends with it, and a probation."""
        model, found = self._found(name, version)
        if found.state is State.CANARY:
            return self._back(model, "down", now_s)
        if found.state is State.LIVE and model.probation and self._previous(model):
            return self._back(model, "down", now_s, trial=False)
        return []

    def tick(self, now_s: float) -> Decisions:
        """Look at windows and clocks: about once a second."""
        done: Decisions = []
        for model in self.models.values():
            done += self._judged(model, now_s)
        return [*done, *self._drained(now_s)]

    # --- rules --------------------------------------------------------------------------------

    def _judged(self, model: Model, now_s: float) -> Decisions:
        live, trial = model.versions.get(model.live), self._trial(model)
        if live is None:
            return []
        if trial is not None and model.canary is not None:
            seen = stats(trial.calls.recent(now_s))
            why = breach(seen, self._fair(model, now_s), self.rules)
            if why or self._drifts(model, now_s):
                return self._back(model, why or "drift", now_s)
            if now_s >= model.canary.ends_s and not model.canary.over:
                model.canary.over = True
                return [self._note("model.canary", model, trial, by="clock", stage="over")]
        if model.probation is None:
            return []
        if now_s >= model.probation.until_s:
            model.probation = None
            return []
        why = breach(stats(live.calls.recent(now_s)), model.probation.baseline, self.rules)
        if why and self._previous(model):
            return self._back(model, why, now_s, trial=False)
        return []

    def _fair(self, model: Model, now_s: float) -> Stats:
        """Sum up what a candidate is held against: the live version's calls.

        Where a trial takes them all, as on a replica, those of before the trial.
        """
        live = model.versions.get(model.live)
        seen = stats(live.calls.recent(now_s) if live else [])
        before = model.canary.baseline if model.canary else seen
        few = seen.seen < self.rules.samples_min
        return before if few and before.seen > seen.seen else seen

    def _drifts(self, model: Model, now_s: float) -> bool:
        shadow, trial = model.shadow, model.canary
        if shadow is None or trial is None or shadow.version != trial.version:
            return False
        return drifted(compared(shadow.seen.recent(now_s)), self.rules)
