"""`meshkit.metrics.snapshot` in OpenTelemetry's terms; names and labels by its conventions."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client.process_collector import ProcessCollector

from meshkit.counters import Histogram, StepTime
from meshkit.metric_names import OTEL_LABELS, Kind
from meshkit.metrics import snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.resources import Resource

    from meshkit.metrics import Point

__all__ = ["metrics_data"]

_SCOPE = InstrumentationScope("sealgate")
_CUMULATIVE = AggregationTemporality.CUMULATIVE
_PROCESS = ProcessCollector(registry=None)
_NS_PER_S = 1_000_000_000


def metrics_data(resource: Resource, began_ns: int) -> MetricsData:
    """Return all metrics of this process as they are now.

    Args:
        resource: Which process.
        began_ns: When its counts began, nanoseconds since 1970.
    """
    times = began_ns, time.time_ns()
    by_name: dict[str, list[Point]] = {}
    for point in snapshot():
        by_name.setdefault(point.metric.name, []).append(point)
    metrics = [_metric(points, times) for points in by_name.values()]
    scope = ScopeMetrics(_SCOPE, [*metrics, *_of_the_process(times)], "")
    return MetricsData([ResourceMetrics(resource, [scope], "")])


def _metric(points: list[Point], times: tuple[int, int]) -> Metric:
    metric = points[0].metric
    data: Sum | Gauge | HistogramData
    match metric.kind:
        case Kind.COUNTER:
            data = Sum(_numbers(points, times), _CUMULATIVE, is_monotonic=True)
        case Kind.GAUGE:
            data = Gauge(_numbers(points, times))
        case Kind.HISTOGRAM | Kind.SUMMARY:
            data = HistogramData([_histogram(point, times) for point in points], _CUMULATIVE)
    return Metric(metric.otel, metric.means, metric.unit, data)


def _labels(point: Point) -> dict[str, str]:
    return {OTEL_LABELS.get(key, key): value for key, value in point.labels if value}


def _numbers(points: list[Point], times: tuple[int, int]) -> list[NumberDataPoint]:
    return [
        NumberDataPoint(_labels(point), *times, point.value)
        for point in points
        if isinstance(point.value, int | float)
    ]


def _histogram(point: Point, times: tuple[int, int]) -> HistogramDataPoint:
    value = point.value
    if isinstance(value, StepTime):  # a count and a sum: one bucket without bounds
        value = Histogram((), (value.runs,), value.total_ns / _NS_PER_S)
    assert isinstance(value, Histogram)
    return HistogramDataPoint(
        _labels(point),
        *times,
        count=sum(value.counts),
        sum=value.total,
        bucket_counts=value.counts,
        explicit_bounds=value.bounds,
        min=None,  # type: ignore[arg-type] # optional in the protocol, and nobody kept it
        max=None,  # type: ignore[arg-type] # as above
    )


def _of_the_process(times: tuple[int, int]) -> Iterator[Metric]:
    """Yield memory, CPU and open files, under the names that Prometheus' clients give them."""
    for family in _PROCESS.collect():
        points = [NumberDataPoint({}, *times, sample.value) for sample in family.samples]
        if family.type == "counter":
            yield Metric(
                family.name, family.documentation, "", Sum(points, _CUMULATIVE, is_monotonic=True)
            )
        else:
            yield Metric(family.name, family.documentation, "", Gauge(points))
