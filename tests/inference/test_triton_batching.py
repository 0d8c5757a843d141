"""What a repository says of Triton's dynamic batcher, a real Triton does.

Rows of several callers share a run; no more wait in its queue than may, and none for longer.
"""

import asyncio

import numpy as np
import pytest
from tritonclient.grpc.aio import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from inference.engines.triton.control import Control
from inference.engines.triton.stream import Failure, StreamError, _told
from inference.triton_repository.config import Batching, ModelConfig, Tensor
from inference.triton_repository.folder import write_model
from tests.inference import triton_world as world

ROWS = 4
MODEL_PY = b'''
import time

import numpy as np
import triton_python_backend_utils as backend


class TritonPythonModel:
    """Says of each row in how large a run it was; takes as long as the first row asks."""

    def execute(self, requests):
        waits = [backend.get_input_tensor_by_name(each, "wait_s").as_numpy() for each in requests]
        time.sleep(float(waits[0][0, 0]))
        rows = np.array([[len(requests)]], np.int32)
        return [backend.InferenceResponse([backend.Tensor("rows", rows)]) for _ in requests]
'''


@pytest.fixture
async def asking(triton):
    """Have a model of this batching served; how to ask it."""
    control = Control(world.settings(triton, "batched", models_dir="var/models").triton)

    async def served(batching):
        config = ModelConfig(
            name="batched",
            backend="python",
            batch_max=ROWS,
            inputs=(Tensor(name="wait_s", data_type="TYPE_FP32", dims=(1,)),),
            outputs=(Tensor(name="rows", data_type="TYPE_INT32", dims=(1,)),),
            batching=batching,
        )
        write_model(triton.repository, config, {"model.py": MODEL_PY})
        await asyncio.to_thread(control.load, "batched")
        return ask

    async def ask(wait_s=0.0):
        tensor = InferInput("wait_s", [1, 1], "FP32")
        tensor.set_data_from_numpy(np.array([[wait_s]], np.float32))
        answer = await client.infer("batched", [tensor])
        return int(answer.as_numpy("rows")[0, 0])

    async with InferenceServerClient(triton.address) as client:
        yield served
    await asyncio.to_thread(control.unload, "batched")
    control.close()


async def test_callers_who_come_together_share_a_run(asking) -> None:
    ask = await asking(Batching(preferred=(ROWS,), queue_us=5_000_000))
    # Were the first sent alone, it would be in a run of one; so it waits for the others, 5 s.
    assert await asyncio.gather(*(ask() for _ in range(ROWS))) == [ROWS] * ROWS


@pytest.mark.parametrize(
    "batching",
    [Batching(preferred=(1,), waiting_max=1), Batching(preferred=(1,), waiting_ms=100)],
    ids=["too many wait", "too long a wait"],
)
async def test_whom_tritons_queue_refuses_is_told_to_come_again(asking, batching) -> None:
    ask = await asking(batching)
    told = await asyncio.gather(*(ask(0.5) for _ in range(2 * ROWS)), return_exceptions=True)
    refused = [each for each in told if isinstance(each, InferenceServerException)]
    assert 0 < len(refused) < 2 * ROWS
    for each in refused:
        failed = _told(each.message())
        assert isinstance(failed, StreamError)
        assert failed.failure is Failure.BUSY
