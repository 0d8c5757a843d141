"""What may be loaded here, whoever asks. PURE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from inference.store.errors import Fault, ModelFileError

if TYPE_CHECKING:
    from pathlib import Path

    from inference.store.manifest import Manifest, RiskClass

__all__ = ["Rules"]

_RISKS: tuple[RiskClass, ...] = ("minimal", "limited", "high")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What may be loaded here.

    signed: `required`: every model; `packaged`: all but those whose manifest came with this
        release; `off`: none need be.
    risk_class_max: None: any.
    classifications: None: any.
    plain_dir: Where sealed models are opened; None: memory if there is room, else the temporary
        folder.
    """

    signed: Literal["required", "packaged", "off"] = "packaged"
    risk_class_max: RiskClass | None = None
    classifications: frozenset[str] | None = None
    plain_dir: Path | None = None

    def must_allow(self, manifest: Manifest) -> None:
        """Raise ModelFileError RISK or CLASSIFICATION for what may not be loaded here."""
        top = self.risk_class_max
        if top is not None and _RISKS.index(manifest.risk_class) > _RISKS.index(top):
            raise ModelFileError(Fault.RISK)
        if self.classifications is not None and manifest.classification not in self.classifications:
            raise ModelFileError(Fault.CLASSIFICATION)
