"""The torch engine: one thread, fixed slots, every running request in one forward pass a step.

    event loop                                engine thread
    generate -> admit -> inbox ------------>  take inbox (joins, cancels)
                                              scheduler.plan -> runner: prefill, decode all rows
    mailbox <-- call_soon_threadsafe -------  tokens into text         (one hop a step for everyone)

A request that fails (NaN logits, a token that the tokenizer does not know) fails alone, and one
whose deadline comes is OUT_OF_TIME: if it waits, it never touches the model. If a step itself
fails, all requests in the engine end with INFERENCE_DOWN and the thread goes on with empty slots,
`restarts_max` times in a row; then the engine is down, and says so. Out of memory is OVERLOADED for
all, however often, and what was kept of earlier prompts is let go. A step that does not end makes
the engine unhealthy, and its callers are told, until it ends after all.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import threading
import time
from collections import defaultdict, deque
from functools import partial
from typing import TYPE_CHECKING

import structlog
import torch

from inference.engines.base import ANONYMOUS
from inference.engines.faults import Watch, log_fault, out_of_memory
from inference.engines.request import Answer, Item, Mailbox, Request
from inference.engines.runner import BAD_LOGITS
from inference.prefix import keys_of
from inference.scheduler import Scheduler, Terms
from meshkit.contract import Ended, Generated, Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from inference.engines.base import RequestContext
    from inference.engines.runner import Runner
    from inference.settings import InferenceSettings
    from inference.tokenizer import Tokenizing
    from meshkit.contract import Message, ModelInfo, Parameters

__all__ = ["TorchEngine"]

log = structlog.get_logger()

_LONG_PROMPT_CHARACTERS = 8_192
"""Above it, tokenising takes milliseconds that the event loop should not spend."""


class TorchEngine:
    """Implements `inference.engines.base.Engine`. Build it, `start` it, `close` it.

    Args:
        runner: only the engine's thread calls it.
        tokenizer: the model's.
        info: the model's; `context_tokens` is the room of a slot.
        default_system: what the chat template says where the caller brings no system message.
        settings: slots, queue, threads.
    """

    def __init__(
        self,
        runner: Runner,
        tokenizer: Tokenizing,
        *,
        info: ModelInfo,
        default_system: str,
        settings: InferenceSettings,
    ) -> None:
        self._runner = runner
        self._tokenizer = tokenizer
        self._info = info
        self._default_system = default_system
        self._settings = settings
        self._ids = itertools.count()
        self._wake = threading.Condition()
        # Under `_wake`: what the event loop has for the engine's thread.
        self._joining: list[Request] = []
        self._leaving: list[int] = []
        self._closing = False
        self._open: set[int] = set()
        # The engine thread's own.
        self._requests: dict[int, Request] = {}
        self._scheduler = self._empty_scheduler()
        self._outgoing: list[tuple[Request, tuple[Item, ...]]] = []
        self._generated = self._finished = 0
        self._token_s = math.inf
        self._watch = Watch(settings.step_timeout_ms / 1_000)
        self._thread = threading.Thread(target=self._run, name="torch-engine", daemon=True)

    @property
    def info(self) -> ModelInfo:
        """The model."""
        return self._info

    @property
    def healthy(self) -> bool:
        """Whether the engine's thread is at work, and its step not hanging."""
        return self._thread.is_alive() and not self._closing and not self._watch.hangs

    @property
    def generated_tokens(self) -> int:
        """Tokens sampled since the start."""
        return self._generated

    def start(self) -> None:
        """Start the thread; once."""
        self._thread.start()

    async def close(self) -> None:
        """End every request with INFERENCE_DOWN; wait for the thread, a bounded time."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join, self._settings.stop_timeout_ms / 1_000)

    async def generate(
        self,
        messages: Sequence[Message],
        parameters: Parameters,
        *,
        context: RequestContext = ANONYMOUS,
    ) -> AsyncGenerator[Generated | Ended, None]:
        """See `Engine.generate`."""
        request = await self._admit(messages, parameters, context)
        request.told_in_time()
        request.told_if(lambda: self._watch.hangs, self._watch.longest_s)
        try:
            while True:
                for item in await request.mailbox.take():
                    if isinstance(item, Refusal):
                        raise item
                    yield item
                    if isinstance(item, Ended):
                        return
        finally:
            request.over()
            with self._wake:
                self._open.discard(request.id)
                self._leaving.append(request.id)
                self._wake.notify()

    # --- in the event loop ------------------------------------------------------------------

    async def _admit(
        self, messages: Sequence[Message], parameters: Parameters, context: RequestContext
    ) -> Request:
        if context.deadline_s is not None and context.deadline_s <= time.monotonic():
            raise Refusal(Reason.OUT_OF_TIME)
        answer = await self._answer_to(messages, parameters, context)
        request = Request(next(self._ids), answer, context, Mailbox(), asyncio.get_running_loop())
        with self._wake:
            if not self.healthy:
                raise Refusal(Reason.INFERENCE_DOWN)
            if len(self._open) >= self._slots + self._settings.waiting_max:
                raise Refusal(Reason.OVERLOADED, retry_after_ms=self._settings.overloaded_retry_ms)
            self._open.add(request.id)
            self._joining.append(request)
            self._wake.notify()
        return request

    async def _answer_to(
        self, messages: Sequence[Message], parameters: Parameters, context: RequestContext
    ) -> Answer:
        begin = partial(self._begin, messages, parameters, context)
        if sum(len(message.content) for message in messages) > _LONG_PROMPT_CHARACTERS:
            return await asyncio.to_thread(begin)
        return begin()

    def _begin(
        self, messages: Sequence[Message], parameters: Parameters, context: RequestContext
    ) -> Answer:
        if not _in_range(parameters):
            raise Refusal(Reason.INVALID_FIELD, field="parameters")
        prompt = self._tokenizer.encode_chat(messages, default_system=self._default_system)
        room = self._info.context_tokens - len(prompt)
        if room < 1 or not prompt:
            raise Refusal(Reason.INVALID_FIELD, field="messages")
        known = self._runner.vocabulary
        if known is not None and not (min(prompt) >= 0 and max(prompt) < known):
            # The tokenizer is another model's; the look-up would fail for all in the step.
            log.error("inference.unknown_token", model=self._info.name)
            raise Refusal(Reason.INFERENCE_DOWN)
        stops = self._runner.stops(prompt, self._tokenizer.ends)
        return Answer(
            prompt,
            parameters,
            self._tokenizer,
            room=room,
            pieces=self._settings.pieces,
            stops=stops,
            keys=keys_of(context.salt, prompt, stops),
            wanted=context.wanted,
        )

    # --- in the engine's thread -------------------------------------------------------------

    def _run(self) -> None:
        torch.set_num_threads(self._settings.threads)
        faults = finished = 0
        try:
            while faults <= self._settings.restarts_max:
                why = self._served()
                if self._finished > finished:  # it worked in between
                    faults, finished = 0, self._finished
                faults += why is Reason.INFERENCE_DOWN
                with self._wake:
                    if self._closing:
                        break
                    self._end_all(why)
        finally:
            with self._wake:
                self._closing = True
                self._end_all(Reason.INFERENCE_DOWN)

    def _served(self) -> Reason:
        """Serve until the engine closes, or until something fails: return what to tell callers."""
        try:
            with torch.inference_mode():
                self._serve()
        except BaseException as fault:  # noqa: BLE001 -- whatever it is, callers must hear of it
            if not out_of_memory(fault):
                log_fault(fault)
                return Reason.INFERENCE_DOWN
            # No fault: the next requests may be smaller, and what these held is free again.
            log.error("inference.out_of_memory", model=self._info.name)  # noqa: TRY400 -- no text
            self._runner.release()
            return Reason.OVERLOADED
        return Reason.INFERENCE_DOWN

    def _serve(self) -> None:
        """Queue steps, and read each once `Runner.ahead` others are queued behind it."""
        unread: deque[Callable[[], list[tuple[int, int]]]] = deque()
        self._runner.shrink(0)
        while self._take_inbox():
            with self._watch.step():
                self._step(unread)
            self._post()

    def _step(self, unread: deque[Callable[[], list[tuple[int, int]]]]) -> None:
        began_s = time.monotonic()
        self._refuse_late(began_s)
        step = self._scheduler.plan(self._reusable)
        if step:
            answers = {job: request.answer for job, request in self._requests.items()}
            unread.append(self._runner.run(step, answers))
        while len(unread) > (self._runner.ahead if step else 0):
            self._settle(unread.popleft()())
        # A runner that is ahead has only queued it: what a prompt takes, nobody saw.
        prompt_tokens = sum(prefill.stop - prefill.start for prefill in step.prefills)
        if prompt_tokens and not self._runner.ahead:
            took_s = time.monotonic() - began_s
            self._token_s = min(self._token_s, took_s / prompt_tokens)

    def _reusable(self, job: int) -> int:
        return self._runner.reusable(self._requests[job].answer)

    def _refuse_late(self, now_s: float) -> None:
        """Tell those who wait and cannot be served in time any more; they never touch the model."""
        for job in self._scheduler.late(now_s):
            if (request := self._requests.pop(job, None)) is not None:
                self._outgoing.append((request, (Refusal(Reason.OUT_OF_TIME),)))

    def _take_inbox(self) -> bool:
        """Let requests in and out; wait if there is none. False: the engine closes."""
        with self._wake:
            while not (self._joining or self._leaving or self._requests or self._closing):
                self._wake.wait()
            joining, self._joining = self._joining, []
            leaving, self._leaving = self._leaving, []
            closing = self._closing
        # Known before anything can fail: whoever is, will be told.
        self._requests.update((request.id, request) for request in joining)
        # First those who leave: a place that a caller gave up is free for the next at once.
        for job in leaving:
            self._drop(job)
        for request in joining:
            if request.id in self._requests:
                self._join(request)
        return not closing

    def _join(self, request: Request) -> None:
        prompt_tokens = len(request.answer.prompt)
        if not self._scheduler.submit(request.id, prompt_tokens, self._terms(request)):
            # `_admit` counts the same places, so this would be a fault of ours.
            log.error("inference.queue_miscounted")
            _hand_over(request.loop, [(request.mailbox, (Refusal(Reason.OVERLOADED),))])
            self._drop(request.id)

    def _terms(self, request: Request) -> Terms:
        """Begin in time for a first token, even if its prompt ran as fast as any ever has."""
        answer, context = request.answer, request.context
        latest_s = math.inf
        if context.deadline_s is not None:
            new_tokens = len(answer.prompt) - self._runner.reusable(answer)
            needed_s = new_tokens * self._token_s if self._token_s < math.inf else 0.0
            latest_s = context.deadline_s - needed_s
        return Terms(
            answer_tokens=answer.most,
            stops=answer.stops,
            priority=context.priority,
            arrived_s=time.monotonic(),
            latest_s=latest_s,
        )

    def _settle(self, tokens: Sequence[tuple[int, int]]) -> None:
        """Take the tokens of a step; those of requests that ended meanwhile are nobody's."""
        now_s = time.monotonic()
        for job, token in tokens:
            request = self._requests.get(job)
            if request is None:
                continue
            items = self._added(request.answer, token, now_s)
            if not items:
                continue
            self._outgoing.append((request, items))
            self._finished += isinstance(items[-1], Ended)
            if not isinstance(items[-1], Generated):
                self._drop(job)

    def _added(self, answer: Answer, token: int, now_s: float) -> tuple[Item, ...]:
        if token == BAD_LOGITS:
            log.error("inference.bad_logits", model=self._info.name)
            return (Refusal(Reason.INFERENCE_DOWN),)
        self._generated += 1
        try:
            return answer.add(token, now_s)
        except IndexError:
            log.error("inference.unknown_token", model=self._info.name)  # noqa: TRY400 -- no text
            return (Refusal(Reason.INFERENCE_DOWN),)

    def _post(self) -> None:
        """Hand the step's results over."""
        outgoing, self._outgoing = self._outgoing, []
        by_loop = defaultdict(list)
        for request, items in outgoing:
            by_loop[request.loop].append((request.mailbox, items))
        for loop, deliveries in by_loop.items():
            _hand_over(loop, deliveries)

    def _drop(self, job: int) -> None:
        if self._requests.pop(job, None) is not None:
            for move in self._scheduler.remove(job):
                self._runner.move(move)
            self._runner.shrink(self._scheduler.running)

    def _end_all(self, why: Reason) -> None:
        """Under `_wake`: nobody who is in the engine, or on the way, will be answered."""
        later_ms = self._settings.overloaded_retry_ms if why is Reason.OVERLOADED else 0
        self._post()  # who was done before the fault is none of those below
        for request in (*self._requests.values(), *self._joining):
            refusal = Refusal(why, retry_after_ms=later_ms)
            _hand_over(request.loop, [(request.mailbox, (refusal,))])
        self._requests, self._joining = {}, []
        self._scheduler = self._empty_scheduler()

    @property
    def _slots(self) -> int:
        slots = self._settings.slots
        return slots if self._runner.slots_max is None else min(slots, self._runner.slots_max)

    def _empty_scheduler(self) -> Scheduler:
        return Scheduler(
            slots=self._slots,
            waiting_max=self._settings.waiting_max,
            chunk_tokens=self._runner.chunk_tokens,
            prompts=self._runner.prompts,
            tokens_max=self._runner.tokens_max,
            ageing_s=self._settings.priority_ageing_ms / 1_000,
        )


def _in_range(asked: Parameters) -> bool:
    """Whether it can be sampled so: what cannot would fail for all in the step."""
    return asked.max_tokens >= 1 and 0 <= asked.temperature < math.inf and 0 < asked.top_p <= 1


def _hand_over(
    loop: asyncio.AbstractEventLoop, deliveries: Sequence[tuple[Mailbox, tuple[Item, ...]]]
) -> None:
    def deliver() -> None:
        for mailbox, items in deliveries:
            mailbox.deliver(items)

    try:
        loop.call_soon_threadsafe(deliver)
    except RuntimeError:
        # The loop is closed: its callers are gone.
        log.info("inference.caller_gone")
