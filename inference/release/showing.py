"""How releases stand, for people and for metrics. PURE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inference.release.states import State
from inference.release.windows import compared, stats
from meshkit.contract import Release, ReleasedVersion, ReleaseShadow, ReleaseTrial

if TYPE_CHECKING:
    from collections.abc import Callable

    from inference.release.core import Releases
    from inference.release.states import Model, Version

__all__ = ["gauges_of", "shown"]


def shown(core: Releases, name: str, now_s: float) -> Release:
    """Tell how a model stands."""
    model = core.models[name]
    shares = {version.version: share for version, share in core.shares(name)}
    trial = model.canary
    return Release(
        model=name,
        versions=tuple(
            _version(each, shares.get(each.version, 0), now_s) for each in model.versions.values()
        ),
        history=tuple(model.history),
        trial=ReleaseTrial(
            version=trial.version, share=trial.share, replicas=trial.replicas, ends_s=trial.ends_s
        )
        if trial
        else None,
        shadow=_shadow(model, now_s),
    )


def _version(version: Version, share: int, now_s: float) -> ReleasedVersion:
    seen = stats(version.calls.recent(now_s))
    return ReleasedVersion(
        version=version.version,
        digest=version.digest,
        state=version.state.value,
        why=version.why,
        share=share,
        in_flight=version.in_flight,
        calls=seen.seen,
        error_rate=seen.error_rate,
        p99_s=seen.p99_s,
        tokens=seen.tokens,
        loading=version.loading or version.goal is not None,
    )


def _shadow(model: Model, now_s: float) -> ReleaseShadow | None:
    if model.shadow is None:
        return None
    seen = compared(model.shadow.seen.recent(now_s))
    return ReleaseShadow(
        version=model.shadow.version,
        share=model.shadow.share,
        calls=seen.seen,
        agreement=seen.agreement,
        length_ratio=seen.length_ratio,
        slower=seen.slower,
        refusals_live=seen.refusals_live,
        refusals_candidate=seen.refusals_candidate,
    )


def gauges_of(
    core: Releases, name: str, clock: Callable[[], float]
) -> dict[str, Callable[[], float]]:
    """Return what is measured of a model: versions by state, the trial's share, agreement."""

    def in_state(state: State) -> Callable[[], float]:
        return lambda: sum(v.state is state for v in list(core.models[name].versions.values()))

    def share() -> float:
        trial = core.models[name].canary
        return sum(s for v, s in core.shares(name) if trial and v.version == trial.version) / 10_000

    def agreement() -> float:
        shadow = _shadow(core.models[name], clock())
        return shadow.agreement if shadow is not None and shadow.calls else 1.0

    states = {f"release.versions.{state.value}.{name}": in_state(state) for state in State}
    return {
        **states,
        f"release.canary_share.{name}": share,
        f"release.shadow_agreement.{name}": agreement,
    }
