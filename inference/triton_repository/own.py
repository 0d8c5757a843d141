"""The repository folder in which Triton serves a manifest's model by our own engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from inference.settings import InferenceSettings
from inference.store.store import ModelStore
from inference.triton_repository.config import Instances, ModelConfig
from inference.triton_repository.folder import RepositoryError, write_model
from inference.triton_repository.tensors import INPUTS, OUTPUTS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["MODEL_PY", "own_config", "write_own"]

MODEL_PY: Final = b'''"""Sealgate's engine, served by Triton: see inference/triton_repository."""

from inference.triton_repository.serving import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''
_NOT_OURS: Final = frozenset({"cancel_look_ms"})
"""Parameters that are the served model's own, not fields of `InferenceSettings`."""


def own_config(model: str, *, instances: Instances, settings: Mapping[str, str]) -> ModelConfig:
    """Return the configuration under which Triton runs our engine for a model.

    The engine batches by itself, token by token, so Triton's batcher stays out of it.

    Args:
        model: a manifest's name; the model's in Triton too.
        instances: one; several would each hold the weights.
        settings: fields of `InferenceSettings` by name, and `cancel_look_ms`.
    """
    return ModelConfig(
        name=model,
        backend="python",
        decoupled=True,
        inputs=INPUTS,
        outputs=OUTPUTS,
        instances=instances,
        parameters={**settings, "model": model},
    )


def write_own(
    repository: Path,
    model: str,
    *,
    instances: Instances = Instances(),  # noqa: B008 -- frozen
    settings: Mapping[str, str],
) -> Path:
    """Write the model's folder; return it. The weights stay where `models_dir` says.

    Raises:
        RepositoryError: there is no manifest of that name, or a setting is unknown or out of
            range; or as `write_model`.
    """
    try:
        read = InferenceSettings.model_validate(
            {name: value for name, value in settings.items() if name not in _NOT_OURS}
        )
    except ValidationError as error:
        fields = ", ".join(sorted({str(each["loc"][0]) for each in error.errors()}))
        msg = f"unknown or out of range: {fields}"
        raise RepositoryError(msg) from error
    if model not in {manifest.name for manifest in ModelStore(read.models_dir).manifests()}:
        msg = "no manifest bears that name"
        raise RepositoryError(msg)
    config = own_config(model, instances=instances, settings=settings)
    return write_model(repository, config, {"model.py": MODEL_PY})
