"""The moves that steps and rules of `core` are made of. PURE."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from inference.release.rules import PER_WHOLE, Rules
from inference.release.states import (
    RELEASED,
    Canary,
    Decision,
    Goal,
    Load,
    Model,
    Note,
    State,
    Unload,
    Version,
)
from inference.release.windows import Sample, Window
from meshkit.contract import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PERCENT", "Decisions", "Moves"]

PERCENT = PER_WHOLE // 100
_PERCENT_MAX = 99
_HOPELESS = frozenset({State.REFUSED, State.FAILED, State.RETIRED})

Decisions = list[Decision]


@dataclass(slots=True)
class Moves:
    """All models of one inference process.

    new_key: gives 16 random bytes.
    own: the name that is never without a live version; None: no name is, once it had one.
    """

    rules: Rules
    new_key: Callable[[], bytes]
    models: dict[str, Model] = field(default_factory=dict)
    own: str | None = None
    _queue: deque[tuple[str, str]] = field(default_factory=deque)

    # --- finding ------------------------------------------------------------------------------

    def _model(self, name: str) -> Model:
        model = self.models.get(name)
        if model is None:
            raise Refusal(Reason.NOT_FOUND)
        return model

    def _found(self, name: str, version: str) -> tuple[Model, Version]:
        model = self._model(name)
        found = model.versions.get(version)
        if found is None:
            raise Refusal(Reason.NOT_FOUND)
        return model, found

    def _versions(self) -> list[Version]:
        return [each for model in self.models.values() for each in model.versions.values()]

    @property
    def _loading(self) -> bool:
        return bool(self._queue) or any(each.loading for each in self._versions())

    @property
    def held(self) -> int:
        """How many versions take memory, or will."""
        return sum(each.held for each in self._versions()) + len(self._queue)

    def _trial(self, model: Model) -> Version | None:
        """Return the candidate, if it gets traffic now."""
        found = model.versions.get(model.canary.version) if model.canary else None
        return found if found is not None and found.state is State.CANARY else None

    def _previous(self, model: Model) -> Version | None:
        """Return what a rollback goes to."""
        known = (model.versions.get(each) for each in model.history)
        return next((v for v in known if v is not None and v.state not in _HOPELESS), None)

    def _lives(self, model: Model) -> bool:
        live = model.versions.get(model.live)
        return live is not None and live.state is State.LIVE

    # --- shares -------------------------------------------------------------------------------

    def _share(self, canary: Canary) -> int:
        if canary.replicas:
            return PER_WHOLE if self.rules.replica < canary.replicas else 0
        return canary.share

    def _scope_of(self, percent: int, replicas: int) -> tuple[int, int]:
        """Check how much a trial gets: (share per ten thousand, replicas), one of them 0."""
        if percent and replicas:
            raise Refusal(Reason.INVALID_FIELD, field="percent")
        if not percent and not replicas:
            if self.rules.canary_replicas < self.rules.replicas:
                return 0, self.rules.canary_replicas
            percent = self.rules.canary_percent
        if replicas:
            if not 0 < replicas < self.rules.replicas:
                raise Refusal(Reason.INVALID_FIELD, field="replicas")
            return 0, replicas
        if not 0 < percent <= _PERCENT_MAX:
            raise Refusal(Reason.INVALID_FIELD, field="percent")
        return percent * PERCENT, 0

    # --- loading ------------------------------------------------------------------------------

    def _want(self, model: Model, found: Version, goal: Goal) -> Decisions:
        """Have a version loaded, now or when the one before it is."""
        found.goal = goal
        place = (model.name, found.version)
        if found.loading or place in self._queue:
            return []
        if self._loading:
            self._queue.append(place)
            return []
        return self._begin(model, found)

    def _begin(self, model: Model, found: Version) -> Decisions:
        found.loading, found.why = True, ""
        return [Load(model.name, found.version, found.manifest)]

    def _next(self) -> Decisions:
        """Begin with the next that waits."""
        if not self._queue or any(each.loading for each in self._versions()):
            return []
        return self._begin(*self._found(*self._queue.popleft()))

    # --- moving -------------------------------------------------------------------------------

    def _switch(self, model: Model, found: Version, now_s: float) -> None:
        """Give `found` the traffic of the live version, which stays as it is but for that."""
        old = model.versions.get(model.live)
        if old is not None and old.state is State.LIVE and old is not found:
            old.state, old.left_s = State.WARM, now_s
        found.state, found.why = State.LIVE, ""
        found.calls.clear()
        for each in model.versions.values():
            if each.goal is Goal.LIVE:  # a rollback that still loads: the later step counts
                each.goal = Goal.WARM
        model.live, model.probation = found.version, None
        model.history = [each for each in model.history if each != found.version]
        if model.shadow is not None and model.shadow.version == found.version:
            model.shadow = None

    def _end_trial(self, model: Model, now_s: float, why: str = "") -> None:
        trial, model.canary = model.canary, None
        found = model.versions.get(trial.version) if trial else None
        if found is None:
            return
        found.why = why
        if found.state is State.CANARY:
            found.state, found.left_s = State.WARM, now_s
        elif found.goal is Goal.CANARY:
            found.goal = Goal.WARM

    def _back(self, model: Model, why: str, now_s: float, *, trial: bool = True) -> Decisions:
        """End the trial, or else put the previous version back. Raises Refusal: WRONG_STATE."""
        by = "operator" if why == "operator" else "rule"
        if trial and model.canary is not None:
            found = model.versions[model.canary.version]
            self._end_trial(model, now_s, why)
            return [self._note("model.rollback", model, found, by=by, rule=why, to=model.live)]
        old, previous = model.versions.get(model.live), self._previous(model)
        if previous is None:
            return self._withdrawn(model, now_s)
        if by == "rule" and previous.goal is Goal.LIVE:
            return []  # told before: it is being loaded
        done: Decisions = []
        if previous.ready or previous.leaving:
            previous.leaving = False
            self._end_trial_of(model, previous, now_s)
            self._switch(model, previous, now_s)
        else:
            done = self._want(model, previous, Goal.LIVE)
        if old is not None:
            old.why = why
        left = _version(old)
        note = self._note("model.rollback", model, previous, by=by, rule=why, before=left)
        return [note, *done]

    def _withdrawn(self, model: Model, now_s: float) -> Decisions:
        """Take the first promotion of a name back: as before it, nobody answers under that name."""
        own = self.own is None or self.own == model.name
        others = model.older or model.history  # of these, none that may be loaded again
        if own or others or not self._lives(model):
            raise Refusal(Reason.WRONG_STATE)
        live = model.versions[model.live]
        live.state, live.left_s, live.why = State.WARM, now_s, "operator"
        model.live, model.probation = "", None
        return [self._note("model.rollback", model, live, by="operator", rule="operator")]

    def _end_trial_of(self, model: Model, found: Version, now_s: float) -> None:
        if model.canary is not None and model.canary.version == found.version:
            self._end_trial(model, now_s)

    def _fallen(self, model: Model, now_s: float) -> Decisions:
        """The live version could not be loaded again: the one before it is wanted."""
        model.live, previous = "", self._previous(model)
        if previous is None:
            return []
        note = self._note("model.rollback", model, previous, by="rule", rule="not_loaded")
        if previous.ready:
            self._end_trial_of(model, previous, now_s)
            self._switch(model, previous, now_s)
            return [note]
        return [note, *self._want(model, previous, Goal.LIVE)]

    def _sweep(self, model: Model) -> Decisions:
        """Retire what was live too long ago; unload what need only be loadable."""
        rules, notes = self.rules, Decisions()
        gone = set(model.history[max(0, rules.keep - 1) :])
        for at, version in enumerate(tuple(model.history)):
            found = model.versions[version]
            shadowing = model.shadow is not None and model.shadow.version == version
            if version in gone and not found.loading and found.state not in RELEASED:
                model.history.remove(version)
                model.older = True
                found.leaving, found.state = found.held, State.RETIRED
                notes.append(self._note("model.retire", model, found))
                if shadowing:
                    model.shadow = None
            elif at >= rules.keep_loaded - 1 and found.state is State.WARM and not shadowing:
                found.leaving = True
        return notes

    def _drained(self, now_s: float) -> Decisions:
        """Unload what no call is in any more, and nobody is on the way to."""
        done = Decisions()
        for model in self.models.values():
            for found in model.versions.values():
                # Nobody is on the way for a day because a clock was put back by one.
                away = abs(now_s - found.left_s) >= self.rules.linger_s
                if found.leaving and not found.in_flight and away:
                    found.leaving = False
                    if found.state is State.WARM:
                        found.state = State.REGISTERED
                    done.append(Unload(model.name, found.version))
                    done.append(self._note("model.unload", model, found))
        return done

    # --- telling ------------------------------------------------------------------------------

    def _window(self) -> Window[Sample]:
        return Window(self.rules.window_s)

    def _note(self, action: str, model: Model, found: Version, **told: str) -> Note:
        digest = {"digest": found.digest.hex()} if found.digest else {}
        named = {"model": model.name, "version": found.version, **digest}
        return Note(action, model.name, found.version, named | {k: v for k, v in told.items() if v})


def _version(found: Version | None) -> str:
    return found.version if found is not None else ""
