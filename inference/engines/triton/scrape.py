"""Triton's own metrics among ours: read from its Prometheus page, on loopback.

Counters of its page become counters here (what it grew by since the last look), gauges become
gauges; those of another Triton, or before a restart, do not make ours jump. Only the few below.
"""

from __future__ import annotations

import http.client
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from inference.engines.triton.prometheus import summed
from meshkit.counters import counted, measured

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inference.engines.triton.settings import TritonSettings

__all__ = ["COUNTERS", "GAUGES", "Scraper"]

COUNTERS: Final = {
    "nv_inference_request_success": "triton.seen.success",
    "nv_inference_request_failure": "triton.seen.failure",
    "nv_inference_queue_duration_us": "triton.seen.queue_us",
    "nv_inference_compute_infer_duration_us": "triton.seen.compute_us",
    "sealgate_generated_tokens": "triton.seen.tokens",
}
GAUGES: Final = {
    "nv_inference_pending_request_count": "triton.now.pending",
    "nv_gpu_utilization": "triton.now.gpu_utilization",
    "nv_gpu_memory_used_bytes": "triton.now.gpu_memory_bytes",
}
_PAGE_BYTES_MAX: Final = 4 << 20
_MS_PER_S: Final = 1_000


class Scraper:
    """Reads the page of one Triton. `scrape` from one thread at a time."""

    def __init__(self, settings: TritonSettings) -> None:
        self._place = settings.metrics_url
        self._within_s = settings.control_ms / _MS_PER_S
        self._before: dict[str, float] = {}
        self._gauges: dict[str, float] = {}

    @contextmanager
    def gauges(self) -> Iterator[None]:
        """Show what the last look found, for as long as the block runs."""
        with ExitStack() as shown:
            for source, name in GAUGES.items() if self._place else ():
                shown.enter_context(measured(name, lambda it=source: self._gauges[it]))  # type: ignore[misc] # one lambda a source
            yield

    def scrape(self) -> None:
        """Read the page once; one that cannot be read is counted."""
        if not self._place:
            return
        try:
            page = self._page()
        except (OSError, http.client.HTTPException, ValueError):
            counted("triton.event.metrics_unread")
            return
        found = summed(page, (*COUNTERS, *GAUGES))
        self._gauges = {name: value for name, value in found.items() if name in GAUGES}
        now = {source: found.get(source, 0.0) for source in COUNTERS}
        # What it had counted before the first look was asked by others, or before our start.
        before, self._before = self._before or now, now
        for source, name in COUNTERS.items():
            grown = now[source] - before[source]
            # Less than before: Triton was started again, and began at nothing.
            counted(name, int(grown if grown >= 0 else now[source]))

    def _page(self) -> str:
        host, _, port = self._place.rpartition(":")
        line = http.client.HTTPConnection(host, int(port), timeout=self._within_s)
        try:
            line.request("GET", "/metrics")
            answer = line.getresponse()
            raw = answer.read(_PAGE_BYTES_MAX + 1)
        finally:
            line.close()
        if answer.status != http.client.OK or len(raw) > _PAGE_BYTES_MAX:
            msg = "no page of metrics"
            raise ValueError(msg)
        return raw.decode()
