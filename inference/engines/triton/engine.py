"""The engine whose model Triton runs: streams, health, reconnection.

    caller ── generate ── place free? ── Triton there? ── one gRPC stream ── items
                                             ▲
    watch, every look_ms and after a failure ┘   live? ready? model there? else load, open anew

`open_model` says what is served; after Triton was away it is asked again, and a model with another
digest is not used: requests are refused, and the event says why. Each failure is INFERENCE_DOWN,
OVERLOADED or OUT_OF_TIME for its caller alone, counted as `triton.failed.<failure>`.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog
import tritonclient.grpc.aio as triton

from inference.engines.base import ANONYMOUS
from inference.engines.triton.adapters.base import Adapter, Question, Served, ShapeError
from inference.engines.triton.connection import channel_options, credentials, inputs_of
from inference.engines.triton.control import Control, ControlError, State
from inference.engines.triton.scrape import Scraper
from inference.engines.triton.stream import Bounds, Failure, StreamError, answered
from meshkit.contract import Generated, ModelInfo, Reason, Refusal
from meshkit.counters import counted, measured

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from inference.engines.base import RequestContext
    from inference.engines.triton.settings import TritonSettings
    from meshkit.contract import Ended, Message, Parameters

__all__ = ["Opened", "TritonEngine"]

log = structlog.get_logger()

_MS_PER_S: Final = 1_000
_AGAIN_S: Final = 0.05
"""Between two looks while a request waits for Triton to be back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A served model that was looked at: what it is, and how it is spoken to."""

    info: ModelInfo
    adapter: Adapter
    served: Served


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
        self._open_model = open_model
        self._opened = opened
        self._retry_ms = overloaded_retry_ms
        self._control = Control(settings)
        self._scraper = Scraper(settings)
        self._client: Any = None
        self._under_way = 0
        self._generated = 0
        self._state = State.READY
        self._doubted = False
        self._suspect = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    @property
    def info(self) -> ModelInfo:
        """The model."""
        return self._opened.info

    @property
    def healthy(self) -> bool:
        """Whether Triton and the model were ready when last looked at."""
        return self._state is State.READY and self._watching is not None

    @property
    def generated_tokens(self) -> int:
        """Tokens that came out of Triton since the start."""
        return self._generated

    def start(self) -> None:
        """Begin to watch Triton; once, in the event loop that will ask."""
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def close(self) -> None:
        """Close the connections; answers under way end with INFERENCE_DOWN."""
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        client, self._client = self._client, None
        if client is not None:
            await client.close()
        await asyncio.to_thread(self._control.close)

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
        question, limit_s = self._question(messages, parameters, context)
        self._under_way += 1
        try:
            async with aclosing(self._stream(question, limit_s)) as items:
                async for item in items:
                    if isinstance(item, Generated):
                        self._generated += item.tokens
                    yield item
        except StreamError as error:
            raise self._refusal(error.failure, on_time=limit_s is None) from None
        finally:
            self._under_way -= 1

    def _question(
        self, messages: Sequence[Message], parameters: Parameters, context: RequestContext
    ) -> tuple[Question, float | None]:
        """Return what is asked, and the seconds that its caller leaves for it."""
        limit_s = None if context.deadline_s is None else context.deadline_s - time.monotonic()
        if limit_s is not None and limit_s <= 0:
            raise Refusal(Reason.OUT_OF_TIME)
        adapter = self._opened.adapter
        question = Question(
            messages=messages,
            parameters=parameters,
            most=adapter.most(messages, parameters, self._opened.info.context_tokens),
            salt=context.salt,
            priority=context.priority,
            time_left_ms=None if limit_s is None else int(limit_s * _MS_PER_S) + 1,
        )
        return question, limit_s

    def _stream(
        self, question: Question, limit_s: float | None
    ) -> AsyncGenerator[Generated | Ended, None]:
        opened = self._opened
        try:
            values = opened.adapter.ask(question, opened.served)
            client = self._connected()
        except ShapeError:
            raise StreamError(Failure.SHAPE) from None
        except OSError:  # our certificate, which is being replaced
            raise StreamError(Failure.AWAY) from None
        most_s = self._settings.answer_ms_max / _MS_PER_S
        return answered(
            client,
            self._model,
            inputs_of(values),
            reading=opened.adapter.reading(question),
            bounds=Bounds(
                most_s if limit_s is None else min(limit_s, most_s),
                self._settings.silence_ms_max / _MS_PER_S,
            ),
        )

    def _connected(self) -> Any:  # noqa: ANN401 -- tritonclient has no types
        if self._client is None:
            self._client = triton.InferenceServerClient(
                self._settings.url,
                creds=credentials(self._settings),
                channel_args=channel_options(self._settings),
            )
        return self._client

    def _refusal(self, failure: Failure, *, on_time: bool) -> Refusal:
        counted(f"triton.failed.{failure.value}")
        if failure is Failure.BUSY:
            return Refusal(Reason.OVERLOADED, retry_after_ms=self._retry_ms)
        if failure is Failure.LATE and not on_time:
            return Refusal(Reason.OUT_OF_TIME)
        log.warning("triton.failed", model=self._opened.info.name, kind=failure.value)
        # Not closed: others may still read from it. It closes when the last lets go.
        self._client = None
        self._doubted = True
        self._suspect.set()
        return Refusal(Reason.INFERENCE_DOWN)

    # --- supervision ------------------------------------------------------------------------

    async def _returned(self) -> None:
        """Wait a moment for a Triton that was away. Raises Refusal: INFERENCE_DOWN."""
        if self._watching is None:
            raise Refusal(Reason.INFERENCE_DOWN)
        ends_s = time.monotonic() + self._settings.return_wait_ms / _MS_PER_S
        while not self.healthy:
            if time.monotonic() >= ends_s:
                raise Refusal(Reason.INFERENCE_DOWN)
            self._suspect.set()
            await asyncio.sleep(_AGAIN_S)

    async def _watch(self) -> None:
        with (
            measured("triton.up", lambda: float(self.healthy)),
            measured("triton.under_way", lambda: float(self._under_way)),
            self._scraper.gauges(),
        ):
            while True:
                await self._look()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._settings.look_ms / _MS_PER_S):
                        await self._suspect.wait()
                self._suspect.clear()

    async def _look(self) -> None:
        state = await asyncio.to_thread(self._control.look, self._model)
        doubted, self._doubted = self._doubted, False
        if state in (State.NO_MODEL, State.STARTING) and self._settings.load:
            state = await self._loaded(state)
        elif state is State.READY and (doubted or self._state is not State.READY):
            state = await self._opened_anew()
            if state is State.BROKEN and self._settings.load:
                state = await self._reloaded()
        self._now(state)
        if state is State.READY:
            await asyncio.to_thread(self._scraper.scrape)

    async def _reloaded(self) -> State:
        """Have a model loaded afresh that Triton calls ready and that does not answer.

        So it is with a model of the Python backend whose process died: if it streams, Triton never
        starts another (seen with 2.51).
        """
        self._now(State.BROKEN)
        with suppress(ControlError):
            await asyncio.to_thread(self._control.unload, self._model)
        return await self._loaded(State.BROKEN)

    async def _loaded(self, state: State) -> State:
        self._now(state)
        try:
            await asyncio.to_thread(self._control.load, self._model)
        except ControlError:
            counted("triton.event.load_failed")
            return state
        counted("triton.event.loaded")
        return await self._opened_anew()

    async def _opened_anew(self) -> State:
        """Look at what is served now; another model than before is none."""
        try:
            opened = await asyncio.to_thread(self._open_model, self._control)
        except ControlError:
            return State.BROKEN
        except ShapeError:
            opened = None
        if opened is None or opened.info.digest != self._opened.info.digest:
            log.error("triton.not_ours", model=self._opened.info.name)
            return State.NOT_OURS
        self._opened = opened
        return State.READY

    def _now(self, state: State) -> None:
        if state is self._state:
            return
        counted(f"triton.event.{state.value}")
        tell = log.info if state is State.READY else log.warning
        tell("triton.state", model=self._opened.info.name, kind=state.value)
        if state is State.AWAY:
            self._client = None
        self._state = state
