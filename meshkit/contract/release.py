"""Which version of a model answers whom: what there is, which steps there are, who is sent where.

PURE.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from meshkit.contract.inference import PER_WHOLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshkit.contract.call import Scope
    from meshkit.contract.inference import ModelInfo


class StepKind(StrEnum):
    """Steps of a release. Each is an action of the policies and of the record: `model.<value>`."""

    LOAD = "load"
    UNLOAD = "unload"
    CANARY = "canary"
    PROMOTE = "promote"
    ROLLBACK = "rollback"
    SHADOW = "shadow"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseStep:
    """One step, as somebody asks for it.

    version: Of all but a rollback.
    percent, replicas, seconds: Of a canary; 0: what the settings say. percent: of a shadow, too.
    """

    kind: StepKind
    model: str
    version: str = ""
    percent: int = 0
    replicas: int = 0
    seconds: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedVersion:
    """A version, as `sealgate.v1.ModelVersion` tells it."""

    version: str
    digest: bytes
    state: str
    why: str = ""
    share: int = 0
    in_flight: int = 0
    calls: int = 0
    error_rate: float = 0.0
    p99_s: float = 0.0
    tokens: float = 0.0
    loading: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseTrial:
    """A canary: share per ten thousand, or so many replicas, until `ends_s` (since 1970)."""

    version: str
    share: int
    replicas: int
    ends_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseShadow:
    """A shadow and what was compared, as `sealgate.v1.ModelShadow` tells it."""

    version: str
    share: int
    calls: int = 0
    agreement: float = 0.0
    length_ratio: float = 0.0
    slower: float = 0.0
    refusals_live: float = 0.0
    refusals_candidate: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A model's name and all that is known of its versions."""

    model: str
    versions: tuple[ReleasedVersion, ...] = ()
    history: tuple[str, ...] = field(default=())
    trial: ReleaseTrial | None = None
    shadow: ReleaseShadow | None = None

    def find(self, version: str) -> ReleasedVersion | None:
        """Find a version."""
        return next((each for each in self.versions if each.version == version), None)


class ReleaseDesk(Protocol):
    """Takes steps. Who may ask for one is not seen here."""

    async def releases(self, model: str = "") -> tuple[Release, ...]:
        """Tell of one model, or of all. Raises Refusal: NOT_FOUND, INFERENCE_DOWN."""
        ...

    async def take(self, step: ReleaseStep) -> Release:
        """Take a step; return how things stand then.

        Raises:
            Refusal: NOT_FOUND, WRONG_STATE, INVALID_FIELD, OVERLOADED or INFERENCE_DOWN.
        """
        ...


def choose(versions: Sequence[ModelInfo], scope: Scope) -> ModelInfo:
    """Return which version of a model answers a call.

    A conversation (tenant and session) stays with one version while shares stay as they are, and
    with the candidate while its share grows: versions are ordered, the candidate first, and a keyed
    hash of the conversation is a point in their shares. A call without a session is a conversation
    of its own.

    Args:
        versions: Of one name, at least one, as `Inference.models` lists them.
        scope: Of the call.
    """
    if len(versions) == 1:
        return versions[0]
    parts = (scope.tenant.encode(), scope.session.encode() or scope.call_id)
    raw = b"".join(len(part).to_bytes(4) + part for part in parts)
    digest = hmac.digest(versions[0].split_key, raw, "sha256")
    point = int.from_bytes(digest[:8]) % PER_WHOLE
    for version in versions:
        if point < version.share:
            return version
        point -= version.share
    return versions[-1]
