"""How releases stand, for people and for metrics. PURE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inference.release.windows import compared, stats
from meshkit.contract import PER_WHOLE, Release, ReleasedVersion, ReleaseShadow, ReleaseTrial

if TYPE_CHECKING:
    from inference.release.core import Releases
    from inference.release.states import Model, State, Version

__all__ = ["canary_share", "shadow_agreement", "shown", "versions_in"]


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


def versions_in(core: Releases, name: str, state: State) -> float:
    """Return how many versions of a model are in a state."""
    return sum(each.state is state for each in list(core.models[name].versions.values()))


def canary_share(core: Releases, name: str) -> float:
    """Return the share of this replica's conversations that a trial gets, 0 to 1."""
    trial = core.models[name].canary
    if trial is None:
        return 0.0
    return sum(s for v, s in core.shares(name) if v.version == trial.version) / PER_WHOLE


def shadow_agreement(core: Releases, name: str, now_s: float) -> float:
    """Return the mean agreement of the shadow; 1 if nothing was compared."""
    shadow = _shadow(core.models[name], now_s)
    return shadow.agreement if shadow is not None and shadow.calls else 1.0
