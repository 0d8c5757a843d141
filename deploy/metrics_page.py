#!/usr/bin/env python3
"""Print docs/metrics.md: every metric and every label, out of the lists that the services use.

python deploy/metrics_page.py > docs/metrics.md
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from meshkit.metric_names import LABELS, METRICS, OTEL_LABELS, Kind

if TYPE_CHECKING:
    from meshkit.metric_names import Metric

HEAD = """# Metrics

Every metric there is, as Prometheus reads it; [operations.md](operations.md) says where and what
alerts look at. A histogram has `_bucket`, `_sum` and `_count`, a summary the last two. Over OTLP
the names have dots and no unit (`{example}` is `{otel}`).
Each process also tells `process_resident_memory_bytes`, `process_cpu_seconds_total`,
`process_open_fds` and the like.

This page is made by `python deploy/metrics_page.py > docs/metrics.md`, and a test compares.

| metric | kind, unit | labels | means | then |
|---|---|---|---|---|
"""
LABELS_HEAD = """
## Labels

There are no others: none is a tenant, a user, a call or anything else of which there may be any
number, and no text of a person can become one (`meshkit/metric_names.py`). A process holds at most
2,048 names of each kind.

| label | bounded by | in OTLP |
|---|---|---|
"""


def main() -> None:
    """Print the page."""
    first = next(metric for metric in METRICS if metric.kind is Kind.HISTOGRAM)
    sys.stdout.write(HEAD.format(example=first.exposed, otel=first.otel))
    by_name: dict[str, Metric] = {}
    for metric in METRICS:
        by_name.setdefault(metric.name, metric)
    for metric in by_name.values():
        labels = ", ".join(f"`{label}`" for label in sorted(metric.labels))
        what = f"{metric.kind.value}, {metric.unit.strip('{}')}"
        cells = (f"`{metric.exposed}`", what, labels, metric.means, metric.then)
        sys.stdout.write(f"| {' | '.join(cells)} |\n")
    sys.stdout.write(LABELS_HEAD)
    for label, bound in LABELS.items():
        sys.stdout.write(f"| `{label}` | {bound} | `{OTEL_LABELS.get(label, label)}` |\n")


if __name__ == "__main__":
    main()
