"""A step on an NVIDIA GPU, by TensorRT-RTX, inside this process.

NOT RUN: no machine of ours has a GPU that TensorRT-RTX takes (it refuses Hopper). What is tested is
everything up to the library, and what the library does here: it loads, and finds no GPU.

A plan has two profiles (`inference.tensorrt.builder.Shapes`): the first for steps of one token a
row, the second for stretches. Each has an execution context of its own, so that no step waits for
another's shapes to be set up.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

from inference.tensorrt.faults import Fault, TensorRtError
from inference.tensorrt.graph import OUTPUTS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["TensorRtSession"]

_LIBRARY = "tensorrt_rtx_bindings"
_DECODE, _STRETCH = 0, 1


class TensorRtSession:
    """Implements `inference.tensorrt.session.Session`.

    Args:
        plan: one that `inference.tensorrt.plan.must_load` let by.
        dtype: of its keys and values.
        home: where TensorRT-RTX is installed.

    Raises:
        TensorRtError: NOT_INSTALLED, NO_GPU or PLAN_DAMAGED.
    """

    device = "cuda"

    def __init__(self, plan: Path, *, dtype: torch.dtype, home: Path) -> None:
        self.dtype = dtype
        rtx = _library(home)
        self._logger = rtx.Logger(rtx.Logger.INTERNAL_ERROR)  # it would quote paths and sizes
        self._runtime = rtx.Runtime(self._logger)
        if not torch.cuda.is_available():
            raise TensorRtError(Fault.NO_GPU)
        self._engine = self._runtime.deserialize_cuda_engine(plan.read_bytes())
        if self._engine is None:
            raise TensorRtError(Fault.PLAN_DAMAGED)
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # as PyTorch has it
        self._contexts = [self._context(profile) for profile in (_DECODE, _STRETCH)]

    def run(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """See `Session.run`."""
        context = self._contexts[_DECODE if inputs["tokens"].shape[1] == 1 else _STRETCH]
        for name, tensor in inputs.items():
            if not context.set_input_shape(name, tuple(tensor.shape)):
                raise TensorRtError(Fault.NOT_RUN)
            context.set_tensor_address(name, tensor.data_ptr())
        made = {name: self._room(context, name) for name in OUTPUTS}
        for name, tensor in made.items():
            context.set_tensor_address(name, tensor.data_ptr())
        self._stream.wait_stream(torch.cuda.current_stream())
        if not context.execute_async_v3(self._stream.cuda_stream):
            raise TensorRtError(Fault.NOT_RUN)
        self._stream.synchronize()
        return made

    def _context(self, profile: int) -> Any:  # noqa: ANN401 -- the bindings bring no types
        context = self._engine.create_execution_context()
        if context is None or not context.set_optimization_profile_async(
            profile, self._stream.cuda_stream
        ):
            raise TensorRtError(Fault.PLAN_DAMAGED)
        return context

    def _room(self, context: Any, name: str) -> torch.Tensor:  # noqa: ANN401 -- as above
        dtype = torch.float32 if name == "logits" else self.dtype
        return torch.empty(tuple(context.get_tensor_shape(name)), dtype=dtype, device=self.device)


def _library(home: Path) -> Any:  # noqa: ANN401 -- as above
    """Import the bindings out of their own environment; nothing else is taken from it."""
    found = next((home / ".venv" / "lib").glob("python*/site-packages"), None)
    if found is None or not (home / "ready.json").exists():
        raise TensorRtError(Fault.NOT_INSTALLED)
    sys.path.append(str(found.resolve()))  # last: nothing of ours is shadowed
    try:
        return import_module(_LIBRARY)
    except ImportError:
        raise TensorRtError(Fault.NOT_INSTALLED) from None
    finally:
        sys.path.remove(str(found.resolve()))
