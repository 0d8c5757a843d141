"""A real tritonserver: scripted models with the signatures of those we ask, and SmolLM2."""

import base64
import http.client
import re
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

from inference.engines.triton.load import load_triton
from inference.registry import load_manifest, model_info
from inference.settings import InferenceSettings
from inference.triton_repository.asked import description
from inference.triton_repository.config import ModelConfig, Tensor
from inference.triton_repository.folder import write_model
from inference.triton_repository.own import write_own
from inference.triton_repository.tensors import INPUTS, OUTPUTS
from tests.compliance.triton_server import ROOT, Server, script
from tests.ports import unused_port

MODEL = "smollm2-135m-instruct"
STANDIN = Path(__file__).with_name("triton_standin.py")
ADMIN_KEY = "an-admin-key-of-the-tests"


def tensors(*rows):
    """`name TYPE dims`, an input that may be left out with a `?` behind."""
    made = []
    for row in rows:
        name, kind, dims = row.split(maxsplit=2)
        sizes = tuple(int(size) for size in dims.rstrip("?").split())
        made.append(
            Tensor(name=name, data_type=f"TYPE_{kind}", dims=sizes, optional=dims.endswith("?"))
        )
    return tuple(made)


# Source: triton-inference-server/tensorrtllm_backend, all_models/inflight_batcher_llm/
# tensorrt_llm_bls/config.pbtxt. (Its reshaped ones, which nobody asks for here, are left out.)
TENSORRT_LLM_IN = tensors(
    "text_input STRING 1", "decoder_text_input STRING 1?", "max_tokens INT32 1",
    "bad_words STRING -1?", "stop_words STRING -1?", "end_id INT32 1?", "pad_id INT32 1?",
    "top_k INT32 1?", "top_p FP32 1?", "temperature FP32 1?", "length_penalty FP32 1?",
    "repetition_penalty FP32 1?", "min_length INT32 1?", "presence_penalty FP32 1?",
    "frequency_penalty FP32 1?", "random_seed UINT64 1?", "beam_width INT32 1?", "stream BOOL 1?",
    "prompt_embedding_table FP16 -1 -1?", "prompt_vocab_size INT32 1?",
)  # fmt: skip
TENSORRT_LLM_OUT = tensors(
    "text_output STRING -1", "cum_log_probs FP32 -1", "output_log_probs FP32 -1 -1",
    "context_logits FP32 -1 -1", "generation_logits FP32 -1 -1 -1", "batch_index INT32 1",
)  # fmt: skip
# Source: triton-inference-server/vllm_backend, src/model.py, `auto_complete_config`.
VLLM_IN = tensors(
    "text_input STRING 1", "image STRING -1?", "stream BOOL 1?", "sampling_parameters STRING 1?",
    "exclude_input_in_output BOOL 1?", "return_finish_reason BOOL 1?",
    "return_cumulative_logprob BOOL 1?", "return_logprobs BOOL 1?",
    "return_num_input_tokens BOOL 1?", "return_num_output_tokens BOOL 1?",
    "embedding_request STRING 1?",
)  # fmt: skip
VLLM_OUT = tensors(
    "text_output STRING -1", "finish_reason STRING -1", "cumulative_logprob FP32 -1",
    "logprobs STRING -1", "num_input_tokens UINT32 1", "num_output_tokens UINT32 -1",
)  # fmt: skip
DIALECTS = {
    "sealgate": (INPUTS, OUTPUTS, 0),
    "tensorrt_llm": (TENSORRT_LLM_IN, TENSORRT_LLM_OUT, 4),
    "accumulating": (TENSORRT_LLM_IN, TENSORRT_LLM_OUT, 4),
    "vllm": (VLLM_IN, VLLM_OUT, 0),
    # As its first releases had it.
    "vllm_old": (VLLM_IN[:1] + VLLM_IN[2:4], VLLM_OUT[:1], 0),
}


def standin(repository, name, dialect="sealgate", *, told=None, answers_as=None, **changes):
    """Write a scripted model. told: what it says it is; answers_as: the digest in its answers."""
    info = told or model_info(load_manifest(MODEL), context_tokens=512)
    inputs, outputs, batch = DIALECTS[dialect]
    given = {
        "name": name, "backend": "python", "decoupled": True, "batch_max": batch,
        "inputs": inputs, "outputs": outputs,
        "parameters": {
            "dialect": dialect.removesuffix("_old"),
            "description": base64.b64encode(description(info)).decode(),
            "digest": (answers_as or info.digest).hex(),
        },
    }  # fmt: skip
    write_model(repository, ModelConfig(**given | changes), {"model.py": STANDIN})


def smollm2(repository, models_dir):
    """Write the real model as `sealgate models triton-repository` does."""
    given = {
        "models_dir": str(models_dir), "device": "cpu", "slots": "4", "context_tokens_max": "1024",
        "cancel_look_ms": "5",
    }  # fmt: skip
    write_own(repository, MODEL, settings=given)


class Triton(Server):
    """A tritonserver in whose Python our packages are, models under explicit control."""

    host = "127.0.0.1"
    floor = True

    @property
    def address(self):
        return f"{self.host}:{self.port}"

    def start(self):
        setup = script("triton_server")
        folder = ROOT / "var" / "triton"
        assert setup.is_ready(folder), "run `make triton` first"
        self.metrics_port = unused_port()
        command = setup.command(
            folder,
            self.repository,
            "--allow-http=false",
            f"--grpc-address={self.host}",
            f"--grpc-port={self.port}",
            "--metrics-address=127.0.0.1",
            f"--metrics-port={self.metrics_port}",
            "--metrics-interval-ms=100",
            "--model-control-mode=explicit",
            "--exit-timeout-secs=5",
            f"--backend-config=python,shm-region-prefix-name={self.shared}",
            *self.options,
        )
        environment = setup.environment(folder, setup.layered(folder))
        if not self.floor:
            for name in setup.TLS_13_ONLY:
                environment.pop(name)
        with (self.repository / "log").open("ab") as out:
            self.process = subprocess.Popen(
                command, env=environment, stdout=out, stderr=out, start_new_session=True
            )
        self.until_ready()

    def metric(self, name, model):
        """A metric of a model now; 0 while it is not there."""
        line = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=10)
        line.request("GET", "/metrics")
        page = line.getresponse().read().decode()
        line.close()
        found = re.search(rf'^{name}{{[^}}]*model="{model}"[^}}]*}} (\S+)$', page, re.MULTILINE)
        return float(found[1]) if found else 0.0


@contextmanager
def running(repository, *options, host="127.0.0.1", tls=None, floor=True):
    server = Triton(repository, unused_port(), tls or {}, options)
    server.host, server.floor = host, floor
    try:
        server.start()
        yield server
    finally:
        if server.process is not None:
            server.kill()
        shutil.rmtree(repository, ignore_errors=True)


def settings(server, model, *, models_dir, **changes):
    key = server.repository / "admin.key"
    key.write_text(f"{ADMIN_KEY}\n")
    place = {
        "url": server.address, "model": model, "admin_key_file": key, "look_ms": 100,
        "return_wait_ms": 5_000, "control_ms": 20_000,
    }  # fmt: skip
    return InferenceSettings(engine="triton", models_dir=models_dir, triton=place | changes)


def opened(server, model, *, models_dir, **changes):
    """An engine over a served model; not started."""
    return load_triton(settings(server, model, models_dir=models_dir, **changes))
