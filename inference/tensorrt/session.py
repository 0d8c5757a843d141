"""What runs one step of an exported model, and the one that runs anywhere: ONNX Runtime.

A session knows nothing of requests: tensors in, tensors out, as `inference.tensorrt.graph` names
them. So the same runner drives ONNX Runtime here and a TensorRT plan where there is a GPU for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

from inference.tensorrt.faults import Fault, TensorRtError
from inference.tensorrt.graph import INPUTS, OUTPUTS, Precision

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["OnnxSession", "Session"]

_TYPES = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16}


class Session(Protocol):
    """Runs one step. One thread at a time."""

    @property
    def device(self) -> str:
        """Where its tensors lie, as PyTorch names it."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Of keys and values."""
        ...

    def run(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Take the inputs of `graph.INPUTS`, contiguous; return the outputs of `graph.OUTPUTS`.

        Raises:
            TensorRtError: NOT_RUN; the next step may well run.
        """
        ...


class OnnxSession:
    """A step on the CPU, by ONNX Runtime.

    Args:
        path: of a graph that `inference.tensorrt.files` found sound.
        precision: of the graph.
        threads: of a product.

    Raises:
        TensorRtError: GRAPH_REFUSED.
    """

    device = "cpu"

    def __init__(self, path: Path, *, precision: Precision, threads: int) -> None:
        import onnxruntime  # noqa: PLC0415 -- 0.2 s and 60 MB that a torch engine does not need

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        # Its threads would spin between two steps, while the other services wait for a core.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if precision is Precision.FP8:
            # Its optimiser moves a transposition before a conversion, and then lacks the former
            # for fp8 (1.31): the graph is run as it is, slowly. It is there to be measured.
            off = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.graph_optimization_level = off
        options.log_severity_level = 4  # it would write what it reads from the file to stderr
        try:
            self._session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        except Exception:  # noqa: BLE001 -- its exceptions share no base, and quote the file
            raise TensorRtError(Fault.GRAPH_REFUSED) from None
        kinds = {given.name: given.type for given in self._session.get_inputs()}
        outputs = {made.name for made in self._session.get_outputs()}
        if set(kinds) != set(INPUTS) or outputs != set(OUTPUTS):
            raise TensorRtError(Fault.NOT_A_STEP)
        try:
            self.dtype = _TYPES[kinds["past_keys"]]
        except KeyError:
            raise TensorRtError(Fault.NOT_A_STEP) from None

    def run(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """See `Session.run`."""
        given = {name: tensor.numpy() for name, tensor in inputs.items()}
        try:
            made = self._session.run(list(OUTPUTS), given)
        except Exception:  # noqa: BLE001 -- as above; its text may quote sizes and names, or more
            raise TensorRtError(Fault.NOT_RUN) from None
        return {name: torch.from_numpy(value) for name, value in zip(OUTPUTS, made, strict=True)}
