"""Metrics out of the process: what `meshkit.counters` holds, read when Prometheus asks.

    async with metrics_endpoint("127.0.0.1", 9464, service="gateway") as port:
        ...                                   # http://127.0.0.1:9464/metrics

`snapshot()` turns names into metrics by the list in `meshkit.metric_names`; what is not on it, or
bears a label it may not, is left out and counted as `metrics.unlisted`. The endpoint answers from a
thread of its own, so that it tells of an event loop that hangs. It speaks HTTP without TLS and
tells names of models and services: loopback unless told otherwise, and then for a trusted network.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import time
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from socketserver import TCPServer, ThreadingMixIn
from threading import BoundedSemaphore, Thread, Timer
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from meshkit import counters
from meshkit.background import running
from meshkit.counters import Histogram, StepTime, counted, measured, observed
from meshkit.metric_names import METRICS, Kind, Metric, found

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from prometheus_client.metrics_core import Metric as Family

__all__ = [
    "METRICS_PORTS",
    "MeshCollector",
    "Point",
    "loop_watched",
    "metrics_endpoint",
    "snapshot",
]

log = structlog.get_logger()

METRICS_PORTS: Final = {
    "appliance": 9464,
    "gateway": 9464,
    "compliance": 9465,
    "cache": 9466,
    "inference": 9467,
    "audit": 9468,
}
"""Where each service's endpoint is unless told otherwise."""

_CLIENT_S = 10.0
"""A client that has not asked, and taken the answer, within so long is let go."""
_CLIENTS_MAX = 16
"""Clients at once; more are turned away, for each has a thread and a file of the service's."""
_LOOP_TICK_S = 0.5
_TAKEN_PAUSE_S = 1.0
_END_LOOK_S = 5.0
"""A service waits so long for its server of metrics on a system where nothing wakes that."""
_NS_PER_S = 1_000_000_000
_PATH = "/metrics"
_Asked: TypeAlias = "socket.socket | tuple[bytes, socket.socket]"
"""As typeshed has it: a stream's is always a socket."""


_NOUGHT: Final = {m.source: 0 for m in METRICS if m.kind is Kind.COUNTER and not m.labels}
"""Counters that are seen before they count: else nobody could tell their first one from none."""


class Point(NamedTuple):
    """One series: a metric, its labels, and what it is now."""

    metric: Metric
    labels: tuple[tuple[str, str], ...]
    value: float | Histogram | StepTime


def snapshot() -> list[Point]:
    """Read all there is, in the order of the list. From any thread; about 2 us a series."""
    points: list[Point] = []
    for kind, values in (
        (Kind.COUNTER, _NOUGHT | counters.counters()),
        (Kind.GAUGE, counters.gauges()),
        (Kind.HISTOGRAM, counters.histograms()),
        # A root span is named for its method, which a histogram tells of already.
        (Kind.SUMMARY, {f"step:{k}": v for k, v in counters.step_times().items() if k[:1] != "/"}),
    ):
        for name, value in values.items():
            if (known := found(name, kind)) is None:
                counted("metrics.unlisted")
            else:
                points.append(Point(*known, value))
    return points


class MeshCollector(Collector):
    """Shows `snapshot()` to prometheus_client."""

    def describe(self) -> Iterable[Family]:
        """Return nothing: names are not known before they are counted."""
        return ()

    def collect(self) -> Iterator[Family]:
        """Yield a family for each metric that has been fed."""
        families: dict[str, Family] = {}
        for point in snapshot():
            family = families.get(point.metric.name)
            if family is None:
                family = families[point.metric.name] = _family(point.metric)
            _add(family, point)
        yield from families.values()


def _family(metric: Metric) -> Family:
    match metric.kind:
        case Kind.COUNTER:
            return CounterMetricFamily(metric.name, metric.means, labels=())
        case Kind.GAUGE:
            return GaugeMetricFamily(metric.name, metric.means, labels=())
        case Kind.HISTOGRAM:
            return HistogramMetricFamily(metric.name, metric.means, labels=())
        case Kind.SUMMARY:
            return SummaryMetricFamily(metric.name, metric.means, labels=())


def _add(family: Family, point: Point) -> None:
    """Add a point's samples. Their labels are given by name: rows of a metric order them freely."""
    labels, value = dict(point.labels), point.value
    match value:
        case Histogram(bounds, counts, total):
            below = 0
            for bound, count in zip((*map(_shown, bounds), "+Inf"), counts, strict=True):
                below += count
                family.add_sample(f"{family.name}_bucket", {**labels, "le": bound}, below)
            family.add_sample(f"{family.name}_count", labels, below)
            family.add_sample(f"{family.name}_sum", labels, total)
        case StepTime(runs, total_ns):
            family.add_sample(f"{family.name}_count", labels, runs)
            family.add_sample(f"{family.name}_sum", labels, total_ns / _NS_PER_S)
        case _:
            family.add_sample(point.metric.exposed, labels, value)


def _shown(bound: float) -> str:
    return repr(float(bound))


# --- the endpoint -------------------------------------------------------------------------------


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, place: tuple[str, int]) -> None:
        self._room = BoundedSemaphore(_CLIENTS_MAX)
        super().__init__(place, _Handler)

    def process_request(self, request: _Asked, client_address: object) -> None:
        """Answer in a thread, if there is room for one more."""
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no more threads
            self._room.release()
            raise

    def process_request_thread(self, request: _Asked, client_address: object) -> None:
        """Answer, and cut off who takes too long: a byte now and then does not prolong it."""
        late = Timer(_CLIENT_S, _cut, (request,))
        late.daemon = True
        late.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            late.cancel()
            self._room.release()

    def shutdown(self) -> None:
        """End `serve_forever`, at once: who waits for a socket is woken when that is shut down."""
        with contextlib.suppress(OSError):  # not of this system's sockets that listen
            self.socket.shutdown(socket.SHUT_RDWR)
        super().shutdown()

    def server_bind(self) -> None:
        """Bind, without asking a name server for our own name, as the library would."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", self.server_address[1]
        self.setup_environ()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that went away is none of our trouble."""


def _cut(connection: _Asked) -> None:
    with contextlib.suppress(OSError):  # it has gone by itself
        cast("socket.socket", connection).shutdown(socket.SHUT_RDWR)


class _Handler(WSGIRequestHandler):
    def log_message(self, *_arguments: object) -> None:
        """Say nothing: what a client sends is its text."""


def registry() -> CollectorRegistry:
    """Make what is shown: our metrics, and those of the process (memory, CPU, open files)."""
    made = CollectorRegistry()
    made.register(MeshCollector())
    ProcessCollector(registry=made)
    return made


def _only_metrics(inner: WSGIApplication) -> WSGIApplication:
    def answer(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != _PATH:
            start("404 Not Found", [("Content-Type", "text/plain")])
            return [b"see /metrics\n"]
        return inner(environ, start)

    return answer


@asynccontextmanager
async def metrics_endpoint(host: str, port: int, *, service: str) -> AsyncIterator[int]:
    """Answer Prometheus for as long as the block runs; yield the port.

    A port that somebody has is waited for, a second at a time: a service does not refuse to serve
    because its predecessor, which drains, still answers there.

    Args:
        host: An IPv4 address.
        port: 0 asks the kernel for a free one.
        service: For `sealgate_info`.

    Raises:
        OSError: the address cannot be bound at all; says which.
    """
    with measured(f"info.{service}.{_version()}", lambda: 1.0):
        server = _bound(host, port)
        if server is None:
            log.warning("metrics.port_taken", service=service, port=port)
            async with running(_once_free(host, port, service), "metrics"):
                yield port
        else:
            async with _answering(server, service):
                yield server.server_port


def _bound(host: str, port: int) -> _Server | None:
    """Bind; None if somebody else has."""
    try:
        return _Server((host, port))
    except OSError as failure:
        if failure.errno == errno.EADDRINUSE:
            return None
        msg = f"metrics cannot listen on {host}:{port}"
        raise OSError(failure.errno, msg) from None


async def _once_free(host: str, port: int, service: str) -> None:
    while (server := _bound(host, port)) is None:  # noqa: ASYNC110 -- another process frees it
        await asyncio.sleep(_TAKEN_PAUSE_S)
    async with _answering(server, service):
        await asyncio.Event().wait()


@asynccontextmanager
async def _answering(server: _Server, service: str) -> AsyncIterator[None]:
    server.set_app(_only_metrics(make_wsgi_app(registry())))
    Thread(target=server.serve_forever, args=(_END_LOOK_S,), name="metrics", daemon=True).start()
    log.info("metrics.serving", service=service, port=server.server_port)
    try:
        yield
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()


def _version() -> str:
    with contextlib.suppress(PackageNotFoundError):
        return version("sealgate")
    return "unknown"


# --- the event loop -----------------------------------------------------------------------------


@asynccontextmanager
async def loop_watched() -> AsyncIterator[None]:
    """Measure by how much this event loop is late, for as long as the block runs."""
    due_s = time.monotonic() + _LOOP_TICK_S

    async def tick() -> None:
        nonlocal due_s
        while True:
            await asyncio.sleep(max(due_s - time.monotonic(), 0))
            observed("process.loop_lag", max(time.monotonic() - due_s, 0.0))
            due_s = time.monotonic() + _LOOP_TICK_S

    def silent_s() -> float:
        return max(time.monotonic() - due_s, 0.0)

    with measured("process.loop_silent_s", silent_s):
        async with running(tick(), "loop-lag"):
            yield
