"""The channels of a client: made anew when its files are, without a call being lost.

A channel shows the certificate that it was made with for ever (grpc/grpc#41779, #15735). So a line
makes a new channel for the first call after the files were replaced. Calls and streams under way
end on the channel that they began on; it is closed once they have.

A stub takes a line for a channel, and each call picks the channel of that moment: so a call that
is made again goes over the newest, and none can be begun that is not counted.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import grpc

from sealgate._files import Files

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping

    from sealgate._connect import Connection
    from sealgate._files import Shown

__all__ = ["AsyncLine", "Line", "ThreadLine"]

ChannelT = TypeVar("ChannelT", grpc.Channel, grpc.aio.Channel)
StubT = TypeVar("StubT")


@dataclass(frozen=True, slots=True, eq=False)
class _Method:
    """What a stub asks of a channel, to be asked of each channel in turn."""

    kind: str
    path: str
    described: Mapping[str, object]

    def of(self, channel: object) -> Callable[..., Any]:
        made: Callable[..., Any] = getattr(channel, self.kind)(self.path, **self.described)
        return made


@dataclass(slots=True, eq=False)
class _Wire(Generic[ChannelT]):
    """A channel, and how many calls are on it."""

    channel: ChannelT
    shown: Shown
    calls: int = 0
    methods: dict[_Method, Callable[..., Any]] = field(default_factory=dict)


@contextmanager
def _unless_begun(ended: Callable[[], None]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        ended()
        raise


class Line(ABC, Generic[ChannelT]):
    """What both kinds share: which channel a call goes over, and when one is done with."""

    def __init__(self, connection: Connection) -> None:
        """Prepare; nothing is opened or read before the first call."""
        self._connection = connection
        self._files = Files(connection.ca, connection.cert, connection.key)
        # Reentrant: a call that is collected as garbage ends wherever its thread happens to be.
        self._lock = threading.RLock()
        self._current: _Wire[ChannelT] | None = None
        self._wires: set[_Wire[ChannelT]] = set()

    @property
    def channels(self) -> int:
        """How many are open: the newest, and those of before with calls under way."""
        return len(self._wires)

    def stub(self, make: Callable[[ChannelT], StubT]) -> StubT:
        """Make a generated stub whose calls go over this line."""
        return make(cast("ChannelT", self))

    def unary_unary(self, path: str, **described: object) -> Callable[..., object]:
        """Stand in for a channel's, for a stub; so do the other three."""
        return self._replying(_Method("unary_unary", path, described))

    def stream_unary(self, path: str, **described: object) -> Callable[..., object]:
        """One reply."""
        return self._replying(_Method("stream_unary", path, described))

    def unary_stream(self, path: str, **described: object) -> Callable[..., object]:
        """Many replies."""
        return self._streaming(_Method("unary_stream", path, described))

    def stream_stream(self, path: str, **described: object) -> Callable[..., object]:
        """Many replies."""
        return self._streaming(_Method("stream_stream", path, described))

    def _taken(self, method: _Method) -> tuple[_Wire[ChannelT], Callable[..., Any]]:
        """Count a call on the newest channel; `_ended` must follow.

        Raises:
            OSError: a file cannot be read, and none was before.
        """
        with self._lock:
            old, wire = self._current, self._newest()
            if method not in wire.methods:
                wire.methods[method] = method.of(wire.channel)
            wire.calls += 1
        if old is not None and old is not wire:
            self._close_if_done(old)
        return wire, wire.methods[method]

    def _newest(self) -> _Wire[ChannelT]:
        shown = self._files.latest()
        if self._current is None or self._current.shown is not shown:
            self._current = _Wire(self._opened(shown), shown)
            self._wires.add(self._current)
        return self._current

    def _ended(self, wire: _Wire[ChannelT], _call: object = None) -> None:
        with self._lock:
            wire.calls -= 1
        self._close_if_done(wire)

    def _close_if_done(self, wire: _Wire[ChannelT]) -> None:
        with self._lock:
            if wire is self._current or wire.calls or wire not in self._wires:
                return
            self._wires.remove(wire)
        self._close_apart(wire.channel)

    def _all(self) -> list[ChannelT]:
        """Give all channels up, to be closed; a call after that opens a new one."""
        with self._lock:
            wires, self._wires, self._current = self._wires, set(), None
        return [wire.channel for wire in wires]

    @abstractmethod
    def _replying(self, method: _Method) -> Callable[..., object]:
        """Return what a stub calls: a call of it ends with its reply."""

    def _streaming(self, method: _Method) -> Callable[..., object]:
        """Return what a stub calls: a call of it ends when its status is known."""

        def call(request: object, **options: object) -> object:
            wire, begin = self._taken(method)
            ended = partial(self._ended, wire)
            with _unless_begun(ended):
                begun = begin(request, **options)
            self._at_end(begun, ended)
            return begun

        return call

    @abstractmethod
    def _at_end(self, begun: Any, ended: Callable[..., None]) -> None:  # noqa: ANN401 -- gRPC's
        """Have `ended` called once the status of a stream is known, or now if it is."""

    @abstractmethod
    def _opened(self, shown: Shown) -> ChannelT: ...

    @abstractmethod
    def _close_apart(self, channel: ChannelT) -> None:
        """Close a channel without calls, beside whatever goes on here."""


class AsyncLine(Line[grpc.aio.Channel]):
    """For one event loop."""

    _loop: asyncio.AbstractEventLoop

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._closing: set[asyncio.Task[None]] = set()

    def _replying(self, method: _Method) -> Callable[..., Coroutine[None, None, object]]:
        async def call(request: object, **options: object) -> object:
            wire, begin = self._taken(method)
            try:
                reply: object = await begin(request, **options)
            finally:
                self._ended(wire)
            return reply

        return call

    def _at_end(self, begun: Any, ended: Callable[..., None]) -> None:  # noqa: ANN401 -- gRPC's
        begun.add_done_callback(ended)

    async def close(self) -> None:
        """Close all channels; calls under way are cancelled. Harmless when done again."""
        for channel in self._all():
            await channel.close(None)
        await asyncio.sleep(0)  # those handed to the loop before are in `_closing` then
        while self._closing:
            await asyncio.wait(self._closing)

    def _opened(self, shown: Shown) -> grpc.aio.Channel:
        self._loop = asyncio.get_running_loop()
        return grpc.aio.secure_channel(
            self._connection.target, shown.credentials(), options=self._connection.options()
        )

    def _close_apart(self, channel: grpc.aio.Channel) -> None:
        # A call that is collected as garbage ends in any thread, or after its loop has: then there
        # is nothing to close, for a channel that is collected closes itself.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._begin_closing, channel)

    def _begin_closing(self, channel: grpc.aio.Channel) -> None:
        task = self._loop.create_task(channel.close(None))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


class ThreadLine(Line[grpc.Channel]):
    """For any number of threads."""

    def _replying(self, method: _Method) -> Callable[..., object]:
        def call(request: object, **options: object) -> object:
            wire, begin = self._taken(method)
            try:
                reply: object = begin(request, **options)
            finally:
                self._ended(wire)
            return reply

        return call

    def _at_end(self, begun: Any, ended: Callable[..., None]) -> None:  # noqa: ANN401 -- gRPC's
        if not begun.add_callback(ended):
            ended()

    def close(self) -> None:
        """Close all channels; calls under way are cancelled. Harmless when done again."""
        for channel in self._all():
            channel.close()

    def _opened(self, shown: Shown) -> grpc.Channel:
        return grpc.secure_channel(
            self._connection.target, shown.credentials(), options=self._connection.options()
        )

    def _close_apart(self, channel: grpc.Channel) -> None:
        # The thread that tells of a stream's end is the channel's own, and would wait for itself.
        # If no thread is to be had, no call fails for it: a channel closes itself when collected.
        with suppress(RuntimeError):
            threading.Thread(target=channel.close, name="sealgate-close").start()
