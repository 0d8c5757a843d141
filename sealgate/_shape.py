"""What both clients do with a call, apart from sending it: shared, so that neither is a copy.

Builds requests, folds frames into a result, checks receipts, and says whether a failed try may be
made again. No I/O.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from grpc import StatusCode

from meshkit.contract import (
    FinishReason,
    Message,
    Parameters,
    Receipt,
    Refusal,
    Role,
    Usage,
    Verdict,
)
from meshkit.wire import (
    counts_from_wire,
    finish_from_wire,
    messages_to_wire,
    parameters_to_wire,
    receipt_from_wire,
    usage_from_wire,
)
from sealgate.errors import (
    BrokenStreamError,
    InternalError,
    InvalidRequestError,
    SealgateError,
    error_of_rpc,
)
from sealgate.receipts import check
from sealgate.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meshkit.status import RpcFailure

__all__ = ["ChatOptions", "ChatResult", "Fold", "Prepared", "Prompt", "Tries", "prepared"]

Prompt = "str | Sequence[Message | Mapping[str, str]]"
"""A user's words, or a conversation: `Message`s or `{"role": ..., "content": ...}`."""

_TIERS = {
    pb.CACHE_TIER_MISS: "miss",
    pb.CACHE_TIER_L1: "l1",
    pb.CACHE_TIER_L2: "l2",
    pb.CACHE_TIER_L3: "l3",
    pb.CACHE_TIER_OFF: "off",
    pb.CACHE_TIER_DOWN: "down",
}


class ChatOptions(TypedDict, total=False):
    """Optional keyword arguments of `chat` and `stream`; ranges are in gateway.proto.

    Sampling: max_tokens (256), temperature (0: greedy), top_p (1), seed, stop. Then session (a
    conversation's id), subject (opaque id of whom the data is about; never a name), no_cache,
    purpose (of use), traceparent (W3C), timeout_s (the client's).
    """

    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    stop: Sequence[str]
    session: str
    subject: str
    no_cache: bool
    purpose: str
    traceparent: str
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatResult:
    """A whole answer and how it came about."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    screening: Verdict
    """What compliance found in prompt and answer, in numbers, and under which policy."""
    cache_tier: str
    """`miss`, `l1`, `l2`, `l3`, `off` or `down`; empty if the gateway did not say."""
    receipt: Receipt | None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A call, ready to be sent, once or more."""

    request: pb.ChatRequest
    messages: tuple[Message, ...]
    metadata: tuple[tuple[str, str], ...]
    timeout_s: float


def prepared(
    prompt: str | Sequence[Message | Mapping[str, str]],
    model: str,
    options: ChatOptions,
    *,
    token: str,
    timeout_s: float,
) -> Prepared:
    """Build a request.

    Raises:
        InvalidRequestError: `role` or `content` is none; the gateway checks all else.
        TypeError: an option does not exist.
    """
    if unknown := options.keys() - ChatOptions.__annotations__.keys():
        msg = f"unknown options: {', '.join(sorted(unknown))}"
        raise TypeError(msg)
    messages = _conversation(prompt)
    request = pb.ChatRequest(
        model=model,
        messages=messages_to_wire(messages),
        parameters=parameters_to_wire(_parameters(options)),
        session=options.get("session", ""),
        subject=options.get("subject", ""),
        no_cache=options.get("no_cache", False),
    )
    metadata = {
        "authorization": f"Bearer {token}" if token else "",
        "sealgate-purpose": options.get("purpose", ""),
        "traceparent": options.get("traceparent", ""),
    }
    sent = tuple((key, value) for key, value in metadata.items() if value)
    return Prepared(request, messages, sent, options.get("timeout_s", timeout_s))


def _conversation(prompt: str | Sequence[Message | Mapping[str, str]]) -> tuple[Message, ...]:
    if isinstance(prompt, str):
        return (_sound(Message(Role.USER, prompt)),)
    return tuple(_sound(each if isinstance(each, Message) else _turn(each)) for each in prompt)


def _turn(given: Mapping[str, str]) -> Message:
    try:
        return Message(Role(given["role"]), given["content"])
    except (KeyError, ValueError):
        msg = "a turn is not role and content"
        raise InvalidRequestError(msg, field="messages") from None


def _sound(message: Message) -> Message:
    """Refuse half a surrogate pair here: protobuf would quote the text around it."""
    try:
        message.content.encode()
    except UnicodeEncodeError:
        msg = "text is not Unicode"
        raise InvalidRequestError(msg, field="content") from None
    return message


def _parameters(options: ChatOptions) -> Parameters:
    defaults = Parameters()
    return Parameters(
        max_tokens=options.get("max_tokens", defaults.max_tokens),
        temperature=options.get("temperature", defaults.temperature),
        top_p=options.get("top_p", defaults.top_p),
        seed=options.get("seed"),
        stop=tuple(options.get("stop", ())),
    )


class Fold:
    """Puts an answer together, from one reply or from frames, and checks its receipt."""

    def __init__(self, call: Prepared, vkey: str | None) -> None:
        self._call = call
        self._vkey = vkey
        self._pieces: list[str] = []
        self._result: ChatResult | None = None

    @property
    def begun(self) -> bool:
        """Whether anything was delivered, so that it is too late for another try."""
        return bool(self._pieces) or self._result is not None

    @property
    def text(self) -> str:
        """What was delivered so far."""
        return "".join(self._pieces)

    @property
    def result(self) -> ChatResult:
        """The end of the stream.

        Raises:
            BrokenStreamError: it has not come, or never will.
        """
        if self._result is None:
            raise BrokenStreamError
        return self._result

    def whole(self, reply: pb.ChatResponse) -> ChatResult:
        """Take a unary answer. Raises ReceiptError."""
        self._pieces.append(reply.text)
        return self._end(reply)

    def take(self, frame: pb.ChatStreamResponse) -> str | None:
        """Take a frame; return its text, or None for the final one. Raises ReceiptError."""
        if frame.WhichOneof("frame") == "delta":
            self._pieces.append(frame.delta)
            return frame.delta
        self._end(frame.final)
        return None

    def _end(self, end: pb.ChatResponse | pb.ChatStreamResponse.Final) -> ChatResult:
        try:
            result = ChatResult(
                text=self.text,
                finish_reason=finish_from_wire(end.finish_reason),
                usage=usage_from_wire(end.usage),
                screening=Verdict(
                    counts=counts_from_wire(end.screening.counts),
                    policy_digest=end.screening.policy_digest,
                ),
                cache_tier=_TIERS.get(end.cache_tier, ""),
                receipt=receipt_from_wire(end.receipt) if end.HasField("receipt") else None,
            )
        except Refusal:  # an enum value of a later version
            msg = "the gateway speaks a later version of the contract"
            raise InternalError(msg) from None
        if self._vkey is not None:
            check(result.receipt, self._vkey, messages=self._call.messages, answer=result.text)
        self._result = result
        return result


_AGAIN = frozenset({StatusCode.UNAVAILABLE, StatusCode.RESOURCE_EXHAUSTED})
_FIRST_WAIT_MS = 100


class Tries:
    """How often, and after what pause, a call that failed before any output is made again.

    Only UNAVAILABLE and RESOURCE_EXHAUSTED are; the pause is what the gateway said, or doubles from
    100 ms, give or take half of it. A pause longer than `wait_ms_max` is an error at once.
    """

    def __init__(self, retries: int, wait_ms_max: int) -> None:
        self._left = retries
        self._wait_ms_max = wait_ms_max
        self._next_ms = _FIRST_WAIT_MS

    def after(self, failure: RpcFailure, *, begun: bool) -> float:
        """Return the seconds to wait before the next try.

        Raises:
            SealgateError: there is none; this is what went wrong.
        """
        error: SealgateError = error_of_rpc(failure)
        wait_ms = error.retry_after_ms
        if wait_ms is None:
            wait_ms = self._next_ms
            self._next_ms *= 2
        if begun or not self._left or failure.code() not in _AGAIN or wait_ms > self._wait_ms_max:
            raise error
        self._left -= 1
        return wait_ms * random.uniform(1, 1.5) / 1_000  # noqa: S311 -- spreads callers, no secret
