"""Our engine as a model of Triton's Python backend; `1/model.py` of a repository imports it.

    Triton's threads              sender's thread (an event loop)        engine's thread
    execute -> one task each ---> generate ---------------------------->  plan, run, sample
                                  text of one or more tokens <----------  one hop a step
    gRPC <---------------------   send

The same engine as in the inference service, with its scheduler and its coalescing of tokens. Where
sending falls behind, text waits in the mailboxes and goes out in larger pieces: a response costs
40 us and more whatever it holds. Requests whose callers have gone are looked for every
`cancel_look_ms`, and leave the engine within a step.

Runs inside Triton's stub, where `triton_python_backend_utils` is; needs numpy below 2 there.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import structlog
import triton_python_backend_utils as backend

from inference.engines.base import RequestContext
from inference.engines.load import load_engine
from inference.settings import InferenceSettings
from inference.triton_repository.asked import description, read_asked
from inference.triton_repository.tensors import refusal_text
from meshkit.contract import Ended, Message, Parameters, Reason, Refusal, Role

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from inference.triton_repository.asked import Asked
    from meshkit.contract import Generated

__all__ = ["LOOK_MS", "TritonPythonModel"]

log = structlog.get_logger()

LOOK_MS: Final = 50
"""Between two looks for callers who have gone, unless the configuration says otherwise."""
_WARM_UP_S: Final = 600.0
_WARM_UP: Final = (Message(Role.USER, "Hello"),)


class TritonPythonModel:
    """What Triton calls. Parameters of the configuration are fields of `InferenceSettings`."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model and have it answer once. An exception here keeps it from being served."""
        told = json.loads(args["model_config"]).get("parameters", {})
        given = {key: value["string_value"] for key, value in told.items()}
        self._look_s = int(given.pop("cancel_look_ms", LOOK_MS)) / 1_000
        # Whatever the environment says of who runs models: here it is we.
        self._engine = load_engine(InferenceSettings(**{**given, "engine": "torch"}))
        self._digest = np.frombuffer(self._engine.info.digest, np.uint8)
        self._open: dict[asyncio.Task[None], _Call] = {}
        self._metric = _counter(args["model_name"])
        self._told_tokens = 0
        self._loop = asyncio.new_event_loop()
        self._sender = threading.Thread(target=self._loop.run_forever, name="sender", daemon=True)
        self._sender.start()
        self._engine.start()
        self._wait_for(self._warm_up())
        self._watch = asyncio.run_coroutine_threadsafe(self._watched(), self._loop)

    def execute(self, requests: list[Any]) -> None:
        """Take requests in; their answers follow by their senders."""
        for request in requests:
            call = _Call(request.get_response_sender())
            try:
                asked = read_asked(_values(request))
            except Refusal as refusal:
                call.refuse(refusal)
            else:
                self._loop.call_soon_threadsafe(self._begin, asked, call)

    def finalize(self) -> None:
        """End what is under way with INFERENCE_DOWN and give everything back."""
        self._watch.cancel()
        self._wait_for(self._engine.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._sender.join(_WARM_UP_S)

    def _wait_for(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_WARM_UP_S)

    # --- in the sender's thread -------------------------------------------------------------

    async def _warm_up(self) -> None:
        async with aclosing(self._engine.generate(_WARM_UP, Parameters(max_tokens=2))) as items:
            async for _ in items:
                pass

    def _begin(self, asked: Asked, call: _Call) -> None:
        task = self._loop.create_task(self._answer(asked, call))
        self._open[task] = call
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Send the last response if none was: also for a task that was cancelled unbegun."""
        self._open.pop(task).send(None, final=True)

    async def _answer(self, asked: Asked, call: _Call) -> None:
        if asked.describe:
            call.send([_text("description", description(self._engine.info))], final=True)
            return
        model = [backend.Tensor("model", self._digest)]
        context = _context(asked)
        try:
            async with aclosing(
                self._engine.generate(asked.messages, asked.parameters, context=context)
            ) as items:
                async for item in items:
                    call.send([*_outputs(item), *model], final=isinstance(item, Ended))
                    model = []
        except Refusal as refusal:
            call.refuse(refusal)
        except Exception as bug:  # noqa: BLE001 -- the last line before the wire; no text leaves
            log.error("inference.triton_bug", kind=type(bug).__name__)  # noqa: TRY400 -- as above
            call.refuse(Refusal(Reason.INFERENCE_DOWN))

    async def _watched(self) -> None:
        """Let go of callers who have gone; tell Triton's metrics of tokens."""
        while True:
            await asyncio.sleep(self._look_s)
            for task, call in list(self._open.items()):
                if call.gone():
                    task.cancel()
                await asyncio.sleep(0)
            if self._metric is not None and (fresh := self._fresh_tokens()):
                self._metric[1].increment(fresh)

    def _fresh_tokens(self) -> int:
        now, before = self._engine.generated_tokens, self._told_tokens
        self._told_tokens = now
        return now - before


class _Call:
    """A request's way back. Its methods belong to one thread at a time.

    Triton frees what stands behind a sender with the final response, and to ask such a one whether
    it is cancelled takes the whole server down (a segmentation fault in tritonserver 2.51): hence
    `_over`, set before that response is sent.
    """

    def __init__(self, sender: Any) -> None:  # noqa: ANN401 -- Triton's own
        self._sender = sender
        self._over = False

    def gone(self) -> bool:
        """Whether the caller has gone, as far as that can still matter."""
        return not self._over and bool(self._sender.is_cancelled())

    def send(self, outputs: list[Any] | None, *, final: bool) -> None:
        """Send a response, None: only that there is no other; nothing once the last was sent."""
        if self._over:
            return
        self._over = final
        flags = backend.TRITONSERVER_RESPONSE_COMPLETE_FINAL if final else 0
        # A caller who has gone is let go of by the next look.
        with suppress(backend.TritonModelException):
            if outputs is None:
                self._sender.send(flags=flags)
            else:
                self._sender.send(backend.InferenceResponse(outputs), flags=flags)

    def refuse(self, refusal: Refusal) -> None:
        """Send an error as the last response."""
        if self._over:
            return
        self._over = True
        error = backend.TritonError(refusal_text(refusal))
        with suppress(backend.TritonModelException):
            self._sender.send(
                backend.InferenceResponse(output_tensors=[], error=error),
                flags=backend.TRITONSERVER_RESPONSE_COMPLETE_FINAL,
            )


def _values(request: Any) -> dict[str, list[Any]]:  # noqa: ANN401 -- Triton's own
    return {each.name(): each.as_numpy().reshape(-1).tolist() for each in request.inputs()}


def _context(asked: Asked) -> RequestContext:
    left_ms = asked.time_left_ms
    return RequestContext(
        salt=asked.salt,
        deadline_s=None if left_ms is None else time.monotonic() + left_ms / 1_000,
        priority=asked.priority,
    )


def _outputs(item: Generated | Ended) -> list[Any]:
    if isinstance(item, Ended):
        usage = [item.usage.prompt_tokens, item.usage.completion_tokens]
        return [
            _text("finish_reason", item.finish_reason.value.encode()),
            backend.Tensor("usage", np.array(usage, np.int32)),
        ]
    return [
        _text("text", item.text.encode()),
        backend.Tensor("tokens", np.array([item.tokens], np.int32)),
    ]


def _text(name: str, raw: bytes) -> Any:  # noqa: ANN401 -- Triton's own
    return backend.Tensor(name, np.array([raw], np.object_))


def _counter(model: str) -> tuple[Any, Any] | None:
    """Tokens among Triton's own metrics: the family, which must live as long, and the counter.

    None, if Triton has its metrics off.
    """
    try:
        family = backend.MetricFamily(
            name="sealgate_generated_tokens",
            description="Tokens sampled, for callers who have gone meanwhile too.",
            kind=backend.MetricFamily.COUNTER,
        )
        return family, family.Metric(labels={"model": model})
    except backend.TritonModelException:
        return None
