"""Our model behind Triton's Python backend, where a race decides: the backend's module is ours."""

import asyncio
import importlib
import sys
from types import SimpleNamespace

import pytest

FINAL = 1


class Sender:
    """A request's way back, whose caller has gone."""

    def __init__(self):
        self.flags = []

    def is_cancelled(self):
        return True

    def send(self, *_, flags):
        self.flags.append(flags)


@pytest.fixture
def serving(monkeypatch):
    backend = SimpleNamespace(
        TRITONSERVER_RESPONSE_COMPLETE_FINAL=FINAL, TritonModelException=OSError
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", backend)
    name = "inference.triton_repository.serving"
    yield importlib.import_module(name)
    del sys.modules[name]


async def test_who_leaves_before_his_answer_begins_is_let_go_by_triton(serving) -> None:
    """Without a last response Triton keeps the request, and the model is never unloaded."""
    model, sender = serving.TritonPythonModel(), Sender()
    model._loop, model._open = asyncio.get_running_loop(), {}
    model._look_s, model._metric = 0.0, None
    model._begin(None, serving._Call(sender))
    (task,) = model._open
    task.cancel()  # as `_watched` does that comes before its first step
    await asyncio.wait((task,))
    await asyncio.sleep(0)

    assert task.cancelled()
    assert sender.flags == [FINAL]
    assert not model._open
