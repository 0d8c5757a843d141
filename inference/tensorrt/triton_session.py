"""A step by whatever Triton serves under the step's signature: a TensorRT plan, on its own GPU.

Every step's past keys and values travel there, and its new ones back: 46 kB a token of context and
request for SmolLM2 in fp32. On loopback that costs milliseconds; where it matters, Triton's own
TensorRT-LLM backend (`INFERENCE_ENGINE=triton`) keeps them on the GPU.

Run against the real Triton with a stand-in of the same signature on a CPU; NOT RUN with a plan.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import torch
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from inference.engines.triton.connection import channel_options, credentials
from inference.tensorrt.faults import Fault, TensorRtError
from inference.tensorrt.graph import INPUTS, OUTPUTS, Precision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inference.architecture import Architecture
    from inference.engines.triton.settings import TritonSettings

__all__ = ["TritonSession"]

_MS_PER_S = 1_000
_MESSAGE_BYTES_MAX = 1 << 30
_TYPES = {torch.float32: "FP32", torch.float16: "FP16", torch.int64: "INT64"}
_RECEIVE = "grpc.max_receive_message_length"


class TritonSession:
    """Implements `inference.tensorrt.session.Session`.

    Args:
        settings: how Triton is reached.
        model: its name there.
        arch: of the step; Triton's tensors must be its.
        precision: of keys and values; bf16 has no form on this wire.

    Raises:
        TensorRtError: NOT_A_STEP, NOT_ON_CPU, NO_TRITON.
        OSError: a certificate cannot be read.
    """

    device = "cpu"

    def __init__(
        self, settings: TritonSettings, model: str, *, arch: Architecture, precision: Precision
    ) -> None:
        if precision is Precision.BF16:
            raise TensorRtError(Fault.NOT_ON_CPU)
        self.dtype = precision.dtype
        self._model = model
        self._timeout_s = settings.silence_ms_max / _MS_PER_S
        options = [pair for pair in channel_options(settings) if pair[0] != _RECEIVE]
        held = credentials(settings)
        self._client = triton.InferenceServerClient(
            settings.url,
            ssl=held is not None,
            creds=held,
            channel_args=[*options, (_RECEIVE, _MESSAGE_BYTES_MAX)],
        )
        self._must_be(arch, settings.control_ms / _MS_PER_S)

    def run(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """See `Session.run`."""
        given = []
        for name in INPUTS:
            tensor = inputs[name]
            made = triton.InferInput(name, list(tensor.shape), _TYPES[tensor.dtype])
            made.set_data_from_numpy(tensor.numpy())
            given.append(made)
        try:
            result = self._client.infer(self._model, given, client_timeout=self._timeout_s)
        except (InferenceServerException, grpc.RpcError):
            raise TensorRtError(Fault.NOT_RUN) from None
        found = {name: result.as_numpy(name) for name in OUTPUTS}
        if any(value is None for value in found.values()):
            raise TensorRtError(Fault.NOT_RUN)
        # Copied: they are views of the message, which nobody may write to.
        return {name: torch.from_numpy(value.copy()) for name, value in found.items()}

    def _must_be(self, arch: Architecture, timeout_s: float) -> None:
        """Refuse a model of another signature before a prompt is sent to it."""
        try:
            told: Any = self._client.get_model_metadata(self._model, client_timeout=timeout_s)
        except (InferenceServerException, grpc.RpcError):
            raise TensorRtError(Fault.NO_TRITON) from None
        kind, past = _TYPES[self.dtype], [arch.layers, -1, arch.kv_heads, -1, arch.head]
        wanted = {
            "tokens": ("INT64", [-1, -1]),
            "past_tokens": ("INT64", [-1]),
            "past_keys": (kind, past),
            "past_values": (kind, past),
            "wanted": ("INT64", [-1]),
            "logits": ("FP32", [-1, -1, arch.vocabulary]),
            "new_keys": (kind, past),
            "new_values": (kind, past),
        }
        found = {
            tensor.name: (tensor.datatype, list(tensor.shape))
            for tensor in (*told.inputs, *told.outputs)
        }
        if found != wanted:
            raise TensorRtError(Fault.NOT_A_STEP)
