"""The states of a model's versions, and what a step asks to have done. PURE.

registered -load-> (engine is built) -> loaded -> (it answers) -> warm
warm -canary-> canary -promote-> live       warm -promote-> live
canary -rollback-> warm                     live -(another is promoted, or rollback)-> warm
warm -unload-> registered                   warm -(too many were live since)-> retired
(a step of loading goes wrong) -> failed, or refused, if nobody vouches for the files
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

from inference.release.windows import Stats

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inference.release.windows import Comparison, Sample, Window

__all__ = [
    "DIGEST_CHANGED",
    "Canary",
    "Decision",
    "Goal",
    "Load",
    "Model",
    "Note",
    "Probation",
    "Shadow",
    "State",
    "Unload",
    "Version",
    "Warm",
]

DIGEST_CHANGED = "digest_changed"
"""Why a version is refused for good: another manifest stands under its name."""


class State(StrEnum):
    """Where a version stands. Only `canary` and `live` get traffic."""

    REGISTERED = "registered"
    LOADED = "loaded"
    """Its engine is built; whether it answers nobody knows yet."""
    WARM = "warm"
    """It has answered, twice the same: it may be released, or serve again."""
    CANARY = "canary"
    LIVE = "live"
    RETIRED = "retired"
    REFUSED = "refused"
    """Not what was registered, or nobody vouches for it: loading it again is refused again."""
    FAILED = "failed"
    """Could not be loaded or warmed up this time."""


class Goal(StrEnum):
    """What a version that is being loaded is for."""

    WARM = "warm"
    CANARY = "canary"
    LIVE = "live"


RELEASED = frozenset({State.CANARY, State.LIVE})


@dataclass(slots=True, kw_only=True)
class Version:
    """One version of a model.

    manifest: SHA-256 of the manifest it was registered with.
    digest: Of the manifest as it runs (a GPU's precision is another model): what records name.
    why: The rule or fault that took it out; empty if none did.
    leaving: To be unloaded once its calls have ended and who was sent to it has come.
    left_s: When it last lost its traffic.
    """

    version: str
    manifest: bytes = b""
    digest: bytes = b""
    state: State = State.REGISTERED
    why: str = ""
    goal: Goal | None = None
    loading: bool = False
    leaving: bool = False
    left_s: float = float("-inf")
    in_flight: int = 0
    calls: Window[Sample]

    @property
    def held(self) -> bool:
        """Whether it takes memory, or will in a moment."""
        loaded = self.state in {State.LOADED, State.WARM, *RELEASED}
        return loaded or self.loading or self.leaving

    @property
    def ready(self) -> bool:
        """Whether it may be given traffic."""
        return self.state in {State.WARM, *RELEASED} and not self.leaving

    @property
    def releasable(self) -> bool:
        """Whether a step may give it traffic that it has not."""
        return self.ready and self.state is not State.LIVE and self.why != DIGEST_CHANGED


@dataclass(slots=True, kw_only=True)
class Canary:
    """A version on trial.

    share: Of traffic, per ten thousand; or `replicas`: all of that on so many replicas.
    ends_s: Seconds since 1970.
    key: Splits conversations: another one with each canary, so that others go first. 16 bytes.
    baseline: What the live version was like when it began; of a restart nothing is known.
    """

    version: str
    share: int
    replicas: int
    ends_s: float
    key: bytes
    over: bool = False
    baseline: Stats = field(default_factory=Stats)


@dataclass(slots=True, kw_only=True)
class Shadow:
    """A version that answers for nobody. share: of calls that are repeated, per ten thousand."""

    version: str
    share: int
    seen: Window[Comparison]


@dataclass(slots=True, kw_only=True)
class Probation:
    """The first hours of a live version. baseline: what its predecessor was like."""

    until_s: float
    baseline: Stats


@dataclass(slots=True, kw_only=True)
class Model:
    """A name and its versions.

    history: Versions that were live before, the newest first.
    older: Whether one that was live before that is in it no more: there is no way back to nobody.
    """

    name: str
    versions: dict[str, Version] = field(default_factory=dict)
    live: str = ""
    history: list[str] = field(default_factory=list)
    older: bool = False
    canary: Canary | None = None
    shadow: Shadow | None = None
    probation: Probation | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """Build the version's engine; then tell `loaded` or `failed`."""

    name: str
    version: str
    manifest: bytes


@dataclass(frozen=True, slots=True)
class Warm:
    """Have the engine answer; then tell `warmed` or `failed`."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Unload:
    """Close the engine: no call is left in it."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Note:
    """Tell the audit log."""

    action: str
    name: str
    version: str
    detail: Mapping[str, str] = field(default_factory=dict)
    outcome: str = "ok"


Decision: TypeAlias = Load | Warm | Unload | Note
