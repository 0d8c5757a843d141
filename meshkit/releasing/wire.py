"""Releases and their steps between sealgate.v1 and our own types."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from meshkit.contract import (
    Reason,
    Refusal,
    Release,
    ReleasedVersion,
    ReleaseShadow,
    ReleaseStep,
    ReleaseTrial,
    StepKind,
)
from sealgate.v1 import inference_pb2, models_pb2

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    StepRequest: TypeAlias = (
        models_pb2.LoadModelRequest
        | models_pb2.UnloadModelRequest
        | models_pb2.PromoteModelRequest
        | models_pb2.RollbackModelRequest
        | models_pb2.SetShadowRequest
    )

__all__ = [
    "read_model",
    "release_from_wire",
    "release_to_wire",
    "step_from_wire",
    "step_to_wire",
    "taken_from_wire",
]

_MILLION = 1_000_000
_MS_PER_S = 1_000
_SECONDS_MAX = 31_536_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


def read_model(name: str) -> str:
    """Check a model's name. Raises Refusal: INVALID_FIELD."""
    return _read(_NAME, name, "model")


def step_from_wire(request: StepRequest) -> ReleaseStep:
    """Read a step. Raises Refusal: INVALID_FIELD."""
    model = read_model(request.model)
    match request:
        case models_pb2.RollbackModelRequest():
            return ReleaseStep(kind=StepKind.ROLLBACK, model=model)
        case models_pb2.LoadModelRequest():
            return ReleaseStep(kind=StepKind.LOAD, model=model, version=_version(request.version))
        case models_pb2.UnloadModelRequest():
            return ReleaseStep(kind=StepKind.UNLOAD, model=model, version=_version(request.version))
        case models_pb2.SetShadowRequest():
            return ReleaseStep(
                kind=StepKind.SHADOW,
                model=model,
                version=_version(request.version),
                percent=request.percent,
            )
        case _:
            return _promotion(request)


def _promotion(request: models_pb2.PromoteModelRequest) -> ReleaseStep:
    version = _version(request.version)
    if request.stage == models_pb2.MODEL_STAGE_CANARY:
        if request.seconds > _SECONDS_MAX:
            raise Refusal(Reason.INVALID_FIELD, field="seconds")
        return ReleaseStep(
            kind=StepKind.CANARY,
            model=request.model,
            version=version,
            percent=request.percent,
            replicas=request.replicas,
            seconds=request.seconds,
        )
    if request.stage != models_pb2.MODEL_STAGE_LIVE:
        raise Refusal(Reason.INVALID_FIELD, field="stage")
    if request.percent or request.replicas or request.seconds:
        raise Refusal(Reason.INVALID_FIELD, field="stage")
    return ReleaseStep(kind=StepKind.PROMOTE, model=request.model, version=version)


def step_to_wire(step: ReleaseStep) -> StepRequest:
    """Write a step."""
    match step.kind:
        case StepKind.LOAD:
            return models_pb2.LoadModelRequest(model=step.model, version=step.version)
        case StepKind.UNLOAD:
            return models_pb2.UnloadModelRequest(model=step.model, version=step.version)
        case StepKind.ROLLBACK:
            return models_pb2.RollbackModelRequest(model=step.model)
        case StepKind.SHADOW:
            return models_pb2.SetShadowRequest(
                model=step.model, version=step.version, percent=step.percent
            )
        case StepKind.CANARY:
            return models_pb2.PromoteModelRequest(
                model=step.model,
                version=step.version,
                stage=models_pb2.MODEL_STAGE_CANARY,
                percent=step.percent,
                replicas=step.replicas,
                seconds=step.seconds,
            )
        case StepKind.PROMOTE:
            return models_pb2.PromoteModelRequest(
                model=step.model, version=step.version, stage=models_pb2.MODEL_STAGE_LIVE
            )


def taken_from_wire(request: inference_pb2.TakeStepRequest) -> ReleaseStep:
    """Read a step that the gateway sends. Raises Refusal: INVALID_FIELD."""
    asked: dict[str, Callable[[], StepRequest]] = {
        "load": lambda: request.load,
        "unload": lambda: request.unload,
        "promote": lambda: request.promote,
        "rollback": lambda: request.rollback,
        "shadow": lambda: request.shadow,
    }
    which = request.WhichOneof("step")
    if which is None:
        raise Refusal(Reason.INVALID_FIELD, field="step")
    return step_from_wire(asked[which]())


def release_to_wire(release: Release) -> models_pb2.ModelRelease:
    """Write a release."""
    trial, shadow = release.trial, release.shadow
    return models_pb2.ModelRelease(
        model=release.model,
        versions=[_version_to_wire(each) for each in release.versions],
        history=release.history,
        trial=models_pb2.ModelTrial(
            version=trial.version,
            share=trial.share,
            replicas=trial.replicas,
            ends_s=int(trial.ends_s),
        )
        if trial
        else None,
        shadow=models_pb2.ModelShadow(
            version=shadow.version,
            share=shadow.share,
            calls=shadow.calls,
            agreement=shadow.agreement,
            length_ratio=shadow.length_ratio,
            slower=shadow.slower,
            refusals_live=shadow.refusals_live,
            refusals_candidate=shadow.refusals_candidate,
        )
        if shadow
        else None,
    )


def _version_to_wire(each: ReleasedVersion) -> models_pb2.ModelVersion:
    return models_pb2.ModelVersion(
        version=each.version,
        digest=each.digest,
        state=each.state,
        why=each.why,
        share=each.share,
        in_flight=each.in_flight,
        calls=each.calls,
        errors_per_million=round(each.error_rate * _MILLION),
        p99_ms=round(each.p99_s * _MS_PER_S),
        tokens=each.tokens,
        loading=each.loading,
    )


def release_from_wire(release: models_pb2.ModelRelease) -> Release:
    """Read a release."""
    trial, shadow = release.trial, release.shadow
    return Release(
        model=release.model,
        versions=tuple(_version_from_wire(each) for each in release.versions),
        history=tuple(release.history),
        trial=ReleaseTrial(
            version=trial.version,
            share=trial.share,
            replicas=trial.replicas,
            ends_s=float(trial.ends_s),
        )
        if release.HasField("trial")
        else None,
        shadow=ReleaseShadow(
            version=shadow.version,
            share=shadow.share,
            calls=shadow.calls,
            agreement=shadow.agreement,
            length_ratio=shadow.length_ratio,
            slower=shadow.slower,
            refusals_live=shadow.refusals_live,
            refusals_candidate=shadow.refusals_candidate,
        )
        if release.HasField("shadow")
        else None,
    )


def _version_from_wire(each: models_pb2.ModelVersion) -> ReleasedVersion:
    return ReleasedVersion(
        version=each.version,
        digest=each.digest,
        state=each.state,
        why=each.why,
        share=each.share,
        in_flight=each.in_flight,
        calls=each.calls,
        error_rate=each.errors_per_million / _MILLION,
        p99_s=each.p99_ms / _MS_PER_S,
        tokens=each.tokens,
        loading=each.loading,
    )


def _version(text: str) -> str:
    return _read(_VERSION, text, "version")


def _read(pattern: re.Pattern[str], text: str, field: str) -> str:
    if not pattern.fullmatch(text):
        raise Refusal(Reason.INVALID_FIELD, field=field)
    return text
