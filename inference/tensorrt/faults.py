"""What may go wrong on the way to a plan, and the one text told of each. PURE.

Library texts are not passed on: they quote files, paths and, at run time, whatever was computed.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Fault", "TensorRtError"]


class Fault(StrEnum):
    """Why there is no graph, no plan, or no answer from it."""

    NOT_INSTALLED = "TensorRT-RTX is not installed: `make tensorrt` fetches it (95 MB)"
    NO_FULL_TENSORRT = (
        "full TensorRT cannot be had from PyPI (its packages there hold no library), so Sealgate "
        "builds with TensorRT-RTX alone; for Hopper use the torch engine, or build a plan "
        "with trtexec in NVIDIA's own container"
    )
    GRAPH_MISSING = "there is no model.onnx, or it cannot be read"
    GRAPH_REFUSED = "model.onnx is damaged, or not one that can be understood"
    GRAPH_TOO_LARGE = "model.onnx is larger than a graph may be"
    OUTSIDE = "model.onnx asks for weights outside of its folder"
    WEIGHTS_SHORT = "model.onnx asks for weights that are not there"
    NOT_ON_CPU = (
        "bf16 cannot be run so (no products on a CPU, no form on Triton's wire): export fp16"
    )
    TOO_SMALL = "the plan was built for fewer slots or shorter stretches than are configured"
    INCOMPLETE = "the model lacks its configuration, its tokenizer or its plan.json"
    NOT_A_STEP = "a model has other inputs or outputs than a step of ours, or other sizes"
    PRECISION = "that precision needs newer GPUs: bf16 from 8.0, fp8 from 8.9"
    POSITIONS = "the graph was exported for fewer positions than are asked for"
    CAPABILITY = "TensorRT-RTX builds for compute capability 7.5, 8.0, 8.6, 8.9, 12.0 and 12.1 only"
    NO_GPU = "no NVIDIA GPU or no driver for it here: a plan can be built, but not run"
    GPU_REFUSED = "TensorRT-RTX does not run on this GPU (Hopper is one of those)"
    OTHER_VERSION = "the plan was built by another version of TensorRT-RTX: build it again"
    PLAN_DAMAGED = "the plan is damaged, or is none"
    PLAN_UNKNOWN = "there is no plan.json beside the plan, or it is damaged"
    NOT_BUILT = "TensorRT-RTX could not build a plan from this graph"
    KILLED = "the builder was killed or crashed before it was done"
    OUT_OF_TIME = "the builder did not finish in time"
    OUT_OF_MEMORY = "the builder needs more memory than it may have"
    DISK_FULL = "no space left for the plan"
    NO_TRITON = "Triton is not there, or has no such model"
    NOT_RUN = "a step could not be run"


class TensorRtError(Exception):
    """A fault. Takes no free text."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.value)
        self.fault = fault
