"""One answer as it comes from Triton, under every bound there is.

A stream is one gRPC call: closed by us, it is cancelled there, and the model stops. Triton's words
go nowhere: what fails, fails as one of `Failure`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import grpc

from inference.engines.triton.adapters.base import ShapeError
from inference.engines.triton.connection import outputs_of
from inference.triton_repository.tensors import refusal_of
from meshkit.contract import Ended

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from inference.engines.triton.adapters.base import Reading
    from meshkit.contract import Generated

__all__ = ["Bounds", "Failure", "StreamError", "answered"]


class Failure(StrEnum):
    """How asking Triton can fail."""

    AWAY = "away"
    """No connection, or it broke: Triton went away."""
    LATE = "late"
    """The whole answer took longer than it may."""
    SILENT = "silent"
    """No response for longer than it may."""
    BUSY = "busy"
    """Triton's queue for the model is full, or the wait in it was too long."""
    ERROR = "error"
    """Triton, or the model, answered with an error."""
    SHAPE = "shape"
    """What it answered cannot be this model's."""


class StreamError(Exception):
    """An answer failed."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.value)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class Bounds:
    """answer_s: for all of it; silence_s: to the first response, and between two."""

    answer_s: float
    silence_s: float


_CODES = {
    grpc.StatusCode.UNAVAILABLE: Failure.AWAY,
    grpc.StatusCode.CANCELLED: Failure.AWAY,
    grpc.StatusCode.DEADLINE_EXCEEDED: Failure.LATE,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Failure.BUSY,
}
_TOO_LARGE = "larger than max"
"""C-core's words for a message that we do not take, under the same code as Triton's full queue."""
_QUEUE_FULL = ("exceeds maximum queue size", "request timeout expired")
"""Triton's words, in small letters, for one too many in its queue, and for who waited too long."""


async def answered(
    client: Any,  # noqa: ANN401 -- tritonclient has no types
    model: str,
    inputs: list[Any],
    *,
    reading: Reading,
    bounds: Bounds,
) -> AsyncGenerator[Generated | Ended, None]:
    """Ask, and read until `Ended`. Closing the iterator cancels the call.

    Raises:
        StreamError: see `Failure`.
        Refusal: our own model's.
    """
    stream = client.stream_infer(_once(model, inputs), stream_timeout=bounds.answer_s)
    try:
        while (response := await _next(stream, bounds.silence_s)) is not None:
            for item in reading.read(response):
                yield item
                if isinstance(item, Ended):
                    return
        for item in reading.over():
            yield item
    except ShapeError:
        raise StreamError(Failure.SHAPE) from None
    finally:
        stream.cancel()


async def _once(model: str, inputs: list[Any]) -> AsyncIterator[dict[str, Any]]:
    """Ask one question and no more: Triton ends the call when it is answered."""
    yield {"model_name": model, "inputs": inputs}


async def _next(stream: Any, silence_s: float) -> dict[str, list[Any]] | None:  # noqa: ANN401 -- as above
    """Return the outputs of the next response; None: there is none."""
    try:
        async with asyncio.timeout(silence_s):
            result, error = await anext(stream)
    except StopAsyncIteration:
        return None
    except TimeoutError:
        raise StreamError(Failure.SILENT) from None
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # Nobody has left: the channel was closed under the call, and gRPC tells that so.
        raise StreamError(Failure.AWAY) from None
    except grpc.aio.AioRpcError as failed:
        too_large = _TOO_LARGE in str(failed.details())
        failure = _CODES.get(failed.code(), Failure.ERROR)
        raise StreamError(Failure.SHAPE if too_large else failure) from None
    if error is not None:
        raise _told(str(error.message()))
    try:
        return outputs_of(result)
    except ValueError:
        raise StreamError(Failure.SHAPE) from None


def _told(message: str) -> Exception:
    refusal = refusal_of(message)
    if refusal is not None:
        return refusal
    full = any(words in message.lower() for words in _QUEUE_FULL)
    return StreamError(Failure.BUSY if full else Failure.ERROR)
