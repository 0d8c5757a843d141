"""Puts an ONNX graph together, node by node, its large weights within it or in a file beside it.

A graph is built from our own weights instead of traced from PyTorch: equal weights give equal
bytes, whatever the versions of the exporters, so that an export's digest can be made again.
Protobuf ends at 2 GiB. A model beyond that keeps what is larger than `INLINE_BYTES` in
`model.onnx.data`, each tensor at a multiple of 64 bytes; a smaller one is a single file, which a
store of models can check and seal as such.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["GRAPH_FILE", "OPSET", "WEIGHTS_FILE", "Assembly", "onnx_type"]

GRAPH_FILE, WEIGHTS_FILE = "model.onnx", "model.onnx.data"
OPSET = 20
"""TensorRT-RTX 1.7 and ONNX Runtime 1.31 both know it wholly."""

INLINE_BYTES = 1_024
_ALIGNMENT = 64
_IR_VERSION = 10
_TYPES = {
    torch.float32: TensorProto.FLOAT,
    torch.float16: TensorProto.FLOAT16,
    torch.bfloat16: TensorProto.BFLOAT16,
    torch.float8_e4m3fn: TensorProto.FLOAT8E4M3FN,
    torch.int64: TensorProto.INT64,
}


def onnx_type(dtype: torch.dtype) -> int:
    """ONNX's number for a type of PyTorch's."""
    return int(_TYPES[dtype])


class Assembly:
    """A growing graph. Methods return the names of the tensors that they make.

    Args:
        weights: where large weights go, opened for writing, at its start; None: into the graph.
    """

    def __init__(self, weights: BinaryIO | None = None) -> None:
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._numbers: dict[tuple[str, tuple[int, ...]], str] = {}

    def op(self, kind: str, *inputs: str, **attributes: float | str | Sequence[int]) -> str:
        """Add a node with one output."""
        return self.ops(kind, 1, *inputs, **attributes)[0]

    def ops(
        self, kind: str, outputs: int, *inputs: str, **attributes: float | str | Sequence[int]
    ) -> list[str]:
        """Add a node with several outputs."""
        number = len(self._nodes)
        made = [f"{kind.lower()}_{number}_{i}" for i in range(outputs)]
        self._nodes.append(
            helper.make_node(kind, inputs, made, f"{kind}_{number}", None, None, None, **attributes)
        )
        return made

    def rename(self, tensor: str, name: str) -> None:
        """Give an output of the graph its name."""
        self._nodes.append(helper.make_node("Identity", [tensor], [name], name=name))

    def ints(self, *numbers: int) -> str:
        """Return a vector of int64; equal ones are one."""
        key = ("i", numbers)
        if key not in self._numbers:
            self._numbers[key] = self.tensor(f"ints_{len(self._numbers)}", torch.tensor(numbers))
        return self._numbers[key]

    def number(self, value: float, dtype: torch.dtype = torch.float32) -> str:
        """Return a scalar."""
        name = f"number_{len(self._initializers)}"
        return self.tensor(name, torch.tensor(value, dtype=dtype))

    def tensor(self, name: str, value: torch.Tensor) -> str:
        """Add a constant."""
        raw = _bytes(value)
        proto = TensorProto(name=name, data_type=onnx_type(value.dtype), dims=value.shape)
        if self._weights is None or len(raw) <= INLINE_BYTES:
            proto.raw_data = raw
        else:
            _put(self._weights, proto, raw)
        self._initializers.append(proto)
        return name

    def save(
        self,
        path: Path,
        *,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
        notes: Sequence[tuple[str, str]],
    ) -> None:
        """Write the graph; `notes` go into its metadata, in their order."""
        graph = helper.make_graph(self._nodes, "step", inputs, outputs, self._initializers)
        model = helper.make_model(
            graph,
            producer_name="sealgate",
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=_IR_VERSION,
        )
        for key, value in notes:
            model.metadata_props.add(key=key, value=value)
        path.write_bytes(model.SerializeToString(deterministic=True))


def _put(file: BinaryIO, proto: onnx.TensorProto, raw: bytes) -> None:
    file.write(bytes(-file.tell() % _ALIGNMENT))
    proto.data_location = TensorProto.EXTERNAL
    place = {"location": WEIGHTS_FILE, "offset": file.tell(), "length": len(raw)}
    for key, value in place.items():
        proto.external_data.add(key=key, value=str(value))
    file.write(raw)


def _bytes(value: torch.Tensor) -> bytes:
    """Return little-endian bytes, whatever the type: NumPy knows neither bf16 nor fp8."""
    flat = value.contiguous().flatten()
    return bytes(flat.view(torch.uint8).numpy().astype(np.uint8, copy=False).data)
