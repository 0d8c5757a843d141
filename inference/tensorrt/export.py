"""From our weights to an ONNX graph, in one file where it fits.

    model.onnx     the step (`inference.tensorrt.graph`); its metadata tells precision, positions,
                   the architecture, and the digest of the model it was made from
    model.onnx.data    beside it, only where protobuf's 2 GiB would not hold the weights

Cost: 2 s and the weights' size in memory, for SmolLM2-135M in fp32 (540 MB).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from errno import EDQUOT, ENOSPC
from typing import TYPE_CHECKING, Any

from inference.architecture import Architecture, RopeScaling
from inference.tensorrt.assembly import GRAPH_FILE, WEIGHTS_FILE, Assembly
from inference.tensorrt.faults import Fault, TensorRtError
from inference.tensorrt.files import checked_graph
from inference.tensorrt.graph import Precision, StepGraph, graph_values

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from inference.engines.cuda.device import DeviceWeights

__all__ = ["INLINE_BYTES_MAX", "Exported", "export_onnx", "exported_from", "read_notes"]

INLINE_BYTES_MAX = 1_900 << 20
"""Of weights; the rest of protobuf's 2 GiB is for the graph and to spare."""

_SCHEMA = "sealgate/step/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an exported graph says of itself.

    positions: how far rope's tables reach: no context is longer. built_from: hexadecimal digest of
    the model's manifest, or empty.
    """

    architecture: Architecture
    precision: Precision
    positions: int
    built_from: str


def export_onnx(
    weights: DeviceWeights,
    folder: Path,
    *,
    precision: Precision,
    positions: int,
    built_from: str = "",
    peaks: Mapping[str, float] | None = None,
) -> Exported:
    """Write a model's step into a folder, and have it checked.

    Args:
        weights: on the CPU, as `inference.engines.cuda.device` makes them.
        folder: made if it is not there.
        precision: of products, keys and values.
        positions: how far rope's tables reach.
        built_from: hexadecimal digest of the model's manifest, or empty.
        peaks: see `inference.tensorrt.calibration`; fp8 is poor without.

    Raises:
        TensorRtError: DISK_FULL.
        OSError: the folder cannot be written.
    """
    exported = Exported(
        architecture=weights.architecture,
        precision=precision,
        positions=positions,
        built_from=built_from,
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(weights, folder, exported, peaks or {})
    except OSError as error:
        if error.errno in {ENOSPC, EDQUOT}:
            raise TensorRtError(Fault.DISK_FULL) from None
        raise
    checked_graph(folder / GRAPH_FILE)
    return exported


def read_notes(notes: Mapping[str, str]) -> Exported:
    """Read what a graph says of itself.

    Raises:
        TensorRtError: NOT_A_STEP.
    """
    try:
        told = json.loads(notes["sealgate"])
        if told.pop("schema") != _SCHEMA:
            raise TensorRtError(Fault.NOT_A_STEP)
        return exported_from(told)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise TensorRtError(Fault.NOT_A_STEP) from None


def exported_from(told: dict[str, Any]) -> Exported:
    """Read it from JSON. Raises KeyError, TypeError, ValueError or AttributeError."""
    sizes = dict(told["architecture"])
    scaling = sizes.pop("rope_scaling")
    arch = Architecture(**sizes, rope_scaling=RopeScaling(**scaling) if scaling else None)
    return Exported(
        architecture=arch,
        precision=Precision(told["precision"]),
        positions=int(told["positions"]),
        built_from=str(told["built_from"]),
    )


def _write(
    weights: DeviceWeights, folder: Path, exported: Exported, peaks: Mapping[str, float]
) -> None:
    inputs, outputs = graph_values(exported.architecture, exported.precision)
    told = {"schema": _SCHEMA, **asdict(exported)}
    notes = [("sealgate", json.dumps(told, sort_keys=True, separators=(",", ":")))]
    outside = folder / WEIGHTS_FILE
    if _bytes(weights, exported.precision) <= INLINE_BYTES_MAX:
        outside.unlink(missing_ok=True)
        assembly = _assembled(Assembly(), weights, exported, peaks)
    else:
        with outside.open("wb") as file:
            assembly = _assembled(Assembly(file), weights, exported, peaks)
    assembly.save(folder / GRAPH_FILE, inputs=inputs, outputs=outputs, notes=notes)


def _assembled(
    assembly: Assembly, weights: DeviceWeights, exported: Exported, peaks: Mapping[str, float]
) -> Assembly:
    graph = StepGraph(
        assembly, weights, precision=exported.precision, positions=exported.positions, peaks=peaks
    )
    graph.add()
    return assembly


def _bytes(weights: DeviceWeights, precision: Precision) -> int:
    numbers = weights.bytes_read // weights.embedding.element_size()
    if weights.head is not weights.embedding:
        numbers += weights.embedding.numel()
    return numbers * precision.dtype.itemsize
