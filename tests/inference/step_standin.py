"""A stand-in for a TensorRT plan in Triton: the same tensors, answered by ONNX Runtime."""

from pathlib import Path

import onnxruntime
import triton_python_backend_utils as triton

GIVEN = ("tokens", "past_tokens", "past_keys", "past_values", "wanted")
MADE = ("logits", "new_keys", "new_values")


class TritonPythonModel:
    def initialize(self, args):
        path = Path(args["model_repository"], args["model_version"], "model.onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options)

    def execute(self, requests):
        answers = []
        for request in requests:
            given = {
                name: triton.get_input_tensor_by_name(request, name).as_numpy() for name in GIVEN
            }
            made = zip(MADE, self.session.run(list(MADE), given), strict=True)
            tensors = [triton.Tensor(name, value) for name, value in made]
            answers.append(triton.InferenceResponse(tensors))
        return answers
