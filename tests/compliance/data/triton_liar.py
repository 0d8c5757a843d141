"""Answers of a model that is not ours, one after another."""

import numpy as np
import triton_python_backend_utils as backend


class TritonPythonModel:
    def initialize(self, _args):
        self.asked = 0

    def execute(self, requests):
        return [self.lie(request) for request in requests]

    def lie(self, request):
        rows, tokens = backend.get_input_tensor_by_name(request, "input_ids").as_numpy().shape
        self.asked += 1
        if self.asked % 4 == 0:
            return backend.InferenceResponse([], backend.TritonError("it was about Ada Lovelace"))
        shapes = ((rows, tokens + 1, 35), (rows, tokens, 9), (rows, tokens, 35))
        values = np.zeros(shapes[self.asked % 4 - 1], np.float32)
        if self.asked % 4 == 3:
            values[0, 0, 0] = np.nan
        return backend.InferenceResponse([backend.Tensor("logits", values)])
