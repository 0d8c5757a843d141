"""Where the appliance's models lie, and where it remembers which version of each is live."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inference.settings import InferenceSettings

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.settings import ApplianceSettings

__all__ = ["RELEASES", "inference_settings"]

RELEASES = "inference/releases.json"
"""Under the data folder."""


def inference_settings(settings: ApplianceSettings) -> InferenceSettings:
    """Return inference's settings as the environment has them, with the appliance's places."""
    loaded = InferenceSettings.load()
    kept: Path = loaded.release.state_file or settings.data_dir / RELEASES
    release = loaded.release.model_copy(update={"state_file": kept})
    return loaded.model_copy(update={"models_dir": settings.models_dir, "release": release})
