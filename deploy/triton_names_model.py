# ruff: noqa: INP001 -- Triton loads it by path
"""The Latin name model for Triton's Python backend; `triton_names.py` copies it to `1/model.py`.

INT64 input_ids and attention_mask [rows, n] in, FP32 logits [rows, n, labels] out. Each row is run
by itself, without its padding, as Sealgate does on its own: the weights are 8-bit and activations
are rounded over all that is run at once, so rows that share a run change each other's numbers. With
the parameter `batching` = `true` rows of all waiting requests are padded and run as one: faster on
wide machines, and a finding close to a threshold then depends on its neighbours.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as backend


class TritonPythonModel:
    """What Triton calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the weights that lie beside this file."""
        parameters = json.loads(args["model_config"])["parameters"]
        self.batching = parameters["batching"]["string_value"] == "true"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(parameters["threads"]["string_value"])
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = Path(__file__).with_name("names.onnx")
        self.session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request; one that cannot be run spoils no other."""
        asked = [_rows(request) for request in requests]
        good = [one for one in asked if one is not None]
        answers = iter(self.together(good) if self.batching else map(self.apart, good))
        return [_refused() if one is None else _answer(next(answers)) for one in asked]

    def apart(self, asked: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Run each row by itself."""
        ids, mask = asked
        rows = []
        for row, kept in zip(ids, mask.sum(axis=1), strict=True):
            logits = self.run(row[None, :kept], np.ones((1, kept), np.int64))[0]
            rows.append(np.pad(logits, ((0, len(row) - kept), (0, 0))))
        return np.stack(rows)

    def together(self, asked: list[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
        """Run all rows of all requests at once."""
        if not asked:
            return []
        longest = max(ids.shape[1] for ids, _ in asked)
        ids, mask = (
            np.concatenate([np.pad(one, ((0, 0), (0, longest - one.shape[1]))) for one in each])
            for each in zip(*asked, strict=True)
        )
        logits = self.run(ids, mask)
        ends = np.cumsum([len(one) for one, _ in asked])[:-1]
        return [
            part[:, : one.shape[1]]
            for part, (one, _) in zip(np.split(logits, ends), asked, strict=True)
        ]

    def run(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Logits, float32 [rows, n, labels]."""
        return self.session.run(["logits"], {"input_ids": ids, "attention_mask": mask})[0]


def _rows(request: Any) -> tuple[np.ndarray, np.ndarray] | None:  # noqa: ANN401 -- Triton's own
    """Token ids and mask [rows, n], padding at the end; None if they are something else."""
    ids, mask = (
        backend.get_input_tensor_by_name(request, name).as_numpy()
        for name in ("input_ids", "attention_mask")
    )
    kept = mask.sum(axis=1) if mask.ndim == ids.ndim == 2 else np.zeros(1)  # noqa: PLR2004 -- rows and tokens
    if ids.shape != mask.shape or not ids.size or kept.min() < 1:
        return None
    whole = np.arange(ids.shape[1])[None, :] < kept[:, None]
    return (ids, mask) if np.array_equal(mask, whole) else None


def _answer(logits: np.ndarray) -> Any:  # noqa: ANN401 -- Triton's own
    values = np.ascontiguousarray(logits, dtype=np.float32)
    return backend.InferenceResponse([backend.Tensor("logits", values)])


def _refused() -> Any:  # noqa: ANN401 -- Triton's own
    # A constant: what was asked must not come back in an error.
    error = backend.TritonError("input_ids and attention_mask must be rows padded at the end")
    return backend.InferenceResponse(output_tensors=[], error=error)
