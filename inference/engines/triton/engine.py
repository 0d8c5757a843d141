"""The engine whose model Triton runs: one gRPC stream an answer, everything bounded.

    caller ── generate ── Triton there? ── place free? ── stream ── items
                              ▲
                  watch ──────┘  (a thread: `inference.engines.triton.watch`)

Each failure is INFERENCE_DOWN, OVERLOADED or OUT_OF_TIME for its caller alone, counted as
`triton.failed.<failure>`, and has the watch look at once. A request that comes while Triton is away
waits `return_wait_ms` for it.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack, aclosing
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

import structlog
import tritonclient.grpc.aio as triton

from inference.engines.base import ANONYMOUS
from inference.engines.triton.adapters.base import Question, ShapeError
from inference.engines.triton.connection import channel_options, credentials, inputs_of
from inference.engines.triton.stream import Bounds, Failure, StreamError, answered
from inference.engines.triton.watch import Opened, Watch
from meshkit.contract import Generated, ModelInfo, Reason, Refusal
from meshkit.counters import counted, measured

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from inference.engines.base import RequestContext
    from inference.engines.triton.adapters.base import Reading, Value
    from inference.engines.triton.control import Control
    from inference.engines.triton.settings import TritonSettings
    from meshkit.contract import Ended, Message, Parameters

__all__ = ["Opened", "TritonEngine"]

log = structlog.get_logger()

_MS_PER_S: Final = 1_000
_AGAIN_S: Final = 0.05
"""Between two looks while a request waits for Triton to be back."""
_LONG_PROMPT_CHARACTERS: Final = 8_192
"""Above it, tokenising (for backends of others) takes milliseconds that the loop should not."""


class TritonEngine:
    """Implements `inference.engines.base.Engine`. Build it opened, `start` it, `close` it.

    Args:
        settings: where Triton is, and every bound.
        model: its name there.
        open_model: looks at the served model; blocking. Raises ControlError or ShapeError.
        opened: what it said when the engine was built.
        overloaded_retry_ms: what an OVERLOADED caller is told.
    """

    def __init__(
        self,
        settings: TritonSettings,
        model: str,
        open_model: Callable[[Control], Opened],
        *,
        opened: Opened,
        overloaded_retry_ms: int,
    ) -> None:
        self._settings = settings
        self._model = model
        self._retry_ms = overloaded_retry_ms
        self._watch = Watch(settings, model, open_model, opened)
        self._client: Any = None
        self._clients: WeakSet[Any] = WeakSet()
        """With those before it, for as long as answers are read from them."""
        self._client_losses = 0
        self._under_way = 0
        self._generated = 0
        self._gauges = ExitStack()

    @property
    def info(self) -> ModelInfo:
        """The model."""
        return self._watch.opened.info

    @property
    def healthy(self) -> bool:
        """Whether Triton and the model were ready when last looked at."""
        return self._watch.ready

    @property
    def generated_tokens(self) -> int:
        """Tokens that came out of Triton since the start."""
        return self._generated

    def start(self) -> None:
        """Begin to watch Triton; once, from any thread."""
        self._gauges.enter_context(measured("triton.up", lambda: float(self.healthy)))
        self._gauges.enter_context(measured("triton.under_way", lambda: float(self._under_way)))
        self._watch.start()

    async def close(self) -> None:
        """Close the connections; answers under way end with INFERENCE_DOWN."""
        await asyncio.to_thread(self._watch.stop)
        self._gauges.close()
        self._client = None
        for client in tuple(self._clients):
            await client.close()

    async def generate(
        self,
        messages: Sequence[Message],
        parameters: Parameters,
        *,
        context: RequestContext = ANONYMOUS,
    ) -> AsyncGenerator[Generated | Ended, None]:
        """See `Engine.generate`."""
        if not self.healthy:
            await self._returned()
        if self._under_way >= self._settings.streams_max:
            raise Refusal(Reason.OVERLOADED, retry_after_ms=self._retry_ms)
        self._under_way += 1
        try:
            limit_s = _time_left(context)
            if sum(len(message.content) for message in messages) > _LONG_PROMPT_CHARACTERS:
                asked = await asyncio.to_thread(self._asked, messages, parameters, context)
            else:
                asked = self._asked(messages, parameters, context)
            async with aclosing(self._stream(*asked, limit_s)) as items:
                async for item in items:
                    if isinstance(item, Generated):
                        self._generated += item.tokens
                    yield item
        except StreamError as error:
            raise self._refusal(error.failure, hurried=context.deadline_s is not None) from None
        finally:
            self._under_way -= 1

    def _asked(
        self, messages: Sequence[Message], parameters: Parameters, context: RequestContext
    ) -> tuple[Sequence[Value], Reading]:
        """Return what to send, and how to read what comes."""
        opened, limit_s = self._watch.opened, _time_left(context)
        question = Question(
            messages=messages,
            parameters=parameters,
            most=opened.adapter.most(messages, parameters, opened.info.context_tokens),
            salt=context.salt,
            priority=context.priority,
            time_left_ms=None if limit_s is None else int(limit_s * _MS_PER_S) + 1,
        )
        try:
            values = opened.adapter.ask(question, opened.served)
        except ShapeError:
            raise StreamError(Failure.SHAPE) from None
        return values, opened.adapter.reading(question)

    def _stream(
        self, values: Sequence[Value], reading: Reading, limit_s: float | None
    ) -> AsyncGenerator[Generated | Ended, None]:
        try:
            client = self._connected()
        except OSError:  # our certificate, which is being replaced
            raise StreamError(Failure.AWAY) from None
        most_s = self._settings.answer_ms_max / _MS_PER_S
        bounds = Bounds(
            most_s if limit_s is None else min(limit_s, most_s),
            self._settings.silence_ms_max / _MS_PER_S,
        )
        return answered(client, self._model, inputs_of(values), reading=reading, bounds=bounds)

    def _connected(self) -> Any:  # noqa: ANN401 -- tritonclient has no types
        if self._client is None or self._client_losses != self._watch.losses:
            self._client_losses = self._watch.losses
            self._client = triton.InferenceServerClient(
                self._settings.url,
                creds=credentials(self._settings),
                channel_args=channel_options(self._settings),
            )
            self._clients.add(self._client)
        return self._client

    def _refusal(self, failure: Failure, *, hurried: bool) -> Refusal:
        counted(f"triton.failed.{failure.value}")
        if failure is Failure.BUSY:
            return Refusal(Reason.OVERLOADED, retry_after_ms=self._retry_ms)
        if failure is Failure.LATE and hurried:
            return Refusal(Reason.OUT_OF_TIME)
        log.warning("triton.failed", model=self.info.name, kind=failure.value)
        # Not closed: others may still read from it. It closes when the last lets go.
        self._client = None
        self._watch.suspect(doubt=True)
        return Refusal(Reason.INFERENCE_DOWN)

    async def _returned(self) -> None:
        """Wait a moment for a Triton that was away. Raises Refusal: INFERENCE_DOWN."""
        if self._watch.over:
            raise Refusal(Reason.INFERENCE_DOWN)
        ends_s = time.monotonic() + self._settings.return_wait_ms / _MS_PER_S
        while not self.healthy:
            if time.monotonic() >= ends_s:
                raise Refusal(Reason.INFERENCE_DOWN)
            self._watch.suspect()
            await asyncio.sleep(_AGAIN_S)


def _time_left(context: RequestContext) -> float | None:
    """Seconds, or None for any. Raises Refusal: OUT_OF_TIME."""
    if context.deadline_s is None:
        return None
    left_s = context.deadline_s - time.monotonic()
    if left_s <= 0:
        raise Refusal(Reason.OUT_OF_TIME)
    return left_s
