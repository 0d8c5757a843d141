"""An ONNX model of anybody's, before a runtime or a builder is let near it.

    1  the graph is there, and not larger than GRAPH_BYTES_MAX
    2  it parses, and holds no functions, no other domains, no sub-graphs to hide a tensor in
    3  every weight outside of it lies in a plain file of its own folder: no folder, link or `..`
    4  and within that file's bytes
    5  onnx.checker holds

Both ONNX Runtime and TensorRT-RTX read external weights from wherever a graph says, as far as their
own checks let them; so ours come first.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from inference.tensorrt.faults import Fault, TensorRtError
from inference.tensorrt.graph import INPUTS, OUTPUTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["GRAPH_BYTES_MAX", "checked_graph", "notes_of"]

GRAPH_BYTES_MAX = 2_147_483_647
"""Protobuf's own end."""

_DOMAINS = {"", "ai.onnx"}


def checked_graph(path: Path) -> onnx.ModelProto:
    """Return a graph once it is known to be sound; weights outside of it stay there.

    Raises:
        TensorRtError: GRAPH_MISSING, GRAPH_TOO_LARGE, GRAPH_REFUSED, OUTSIDE, WEIGHTS_SHORT or
            NOT_A_STEP.
    """
    try:
        if path.stat().st_size > GRAPH_BYTES_MAX:  # 1
            raise TensorRtError(Fault.GRAPH_TOO_LARGE)
        model = onnx.ModelProto.FromString(path.read_bytes())
    except OSError:
        raise TensorRtError(Fault.GRAPH_MISSING) from None
    except DecodeError:
        raise TensorRtError(Fault.GRAPH_REFUSED) from None
    if model.functions or any(each.domain not in _DOMAINS for each in model.opset_import):  # 2
        raise TensorRtError(Fault.GRAPH_REFUSED)
    if any(_has_graph(node) for node in model.graph.node):
        raise TensorRtError(Fault.GRAPH_REFUSED)
    for tensor in _tensors(model.graph):
        if tensor.data_location == TensorProto.EXTERNAL:
            _must_be_within(tensor, path.parent)
    try:
        onnx.checker.check_model(str(path))  # 5
    except (onnx.checker.ValidationError, ValueError, RuntimeError):
        raise TensorRtError(Fault.GRAPH_REFUSED) from None
    given, made = ({each.name for each in side} for side in (model.graph.input, model.graph.output))
    if given != set(INPUTS) or made != set(OUTPUTS):
        raise TensorRtError(Fault.NOT_A_STEP)
    return model


def notes_of(model: onnx.ModelProto) -> dict[str, str]:
    """Return what the export noted in the graph."""
    return {note.key: note.value for note in model.metadata_props}


def _has_graph(node: onnx.NodeProto) -> bool:
    return any(each.HasField("g") or each.graphs for each in node.attribute)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    for node in graph.node:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors


def _must_be_within(tensor: onnx.TensorProto, folder: Path) -> None:
    place = {entry.key: entry.value for entry in tensor.external_data}
    name = place.get("location", "")
    if not name or "/" in name or "\\" in name or "\0" in name or name in {".", ".."}:  # 3
        raise TensorRtError(Fault.OUTSIDE)
    try:
        found = (folder / name).lstat()
        offset, length = int(place.get("offset", "0")), int(place["length"])
    except (OSError, KeyError, ValueError):
        raise TensorRtError(Fault.WEIGHTS_SHORT) from None
    if not stat.S_ISREG(found.st_mode):
        raise TensorRtError(Fault.OUTSIDE)
    if min(offset, length) < 0 or offset + length > found.st_size:  # 4
        raise TensorRtError(Fault.WEIGHTS_SHORT)
