"""Names in Latin script with the model's forward pass asked of NVIDIA Triton, over gRPC and TLS.

    INT64 input_ids [1, n], attention_mask [1, n]   -->   FP32 logits [1, n, labels]

Rules, tokens, thresholds and spans stay here (`LatinNames`); only numbers travel. They can be
turned back into words, so Triton stands where text may: see docs/compliance.md.

Each piece of a window is one request of one row, as on the CPU, so that a finding is a function of
the window alone. Whatever keeps Triton from answering in time and in shape, the model here answers
instead: nothing is refused or missed for it. Counted: `names.triton_fallback.<why>`:

    busy    as many asks as allowed are under way          held_off   it failed so often that it is
    late    no answer within the deadline                             asked once in a while only
    away    no connection                                  refused    it answered with an error
    shape   what it answered cannot be this model's logits
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import grpc
import numpy as np
import structlog

from compliance.names_latin import LatinNames
from meshkit.counters import counted
from meshkit.redis_link import Breaker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

__all__ = ["TritonLatinNames", "TritonLine", "TritonPlace"]

log = structlog.get_logger()

_MS_PER_S: Final = 1_000
_CHANNEL: Final = (
    # Else a new client would take over the old one's connection, and its waiting to connect again.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
)
_WHY: Final = {"StatusCode.DEADLINE_EXCEEDED": "late", "StatusCode.UNAVAILABLE": "away"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonPlace:
    """Where the model is served and how long it is waited for.

    address: `host:port`. ca: PEM; None: no TLS. certificate, key: PEM, ours; or both None.
    failures_max: in a row; then one ask in `hold_off_ms` is tried, and the rest are not made.
    """

    address: str
    model: str
    ca: Path | None
    certificate: Path | None
    key: Path | None
    ask_ms: int
    asks_max: int
    failures_max: int
    hold_off_ms: int


class TritonLatinNames(LatinNames):
    """`LatinNames` whose forward pass is Triton's, or its own where Triton fails. Thread-safe."""

    def __init__(self, folder: Path, place: TritonPlace, *, threads: int = 1) -> None:
        super().__init__(folder, threads=threads)
        self._session = _Asking(TritonLine(place), self._session)


class _Asking:
    """What `LatinNames` runs: Triton first, then the session of the model here."""

    def __init__(self, line: TritonLine, here: Any) -> None:  # noqa: ANN401 -- onnxruntime has no types
        self._line = line
        self._here = here
        self._labels = int(here.get_outputs()[0].shape[-1])

    def run(
        self, outputs: Sequence[str], feed: Mapping[str, npt.NDArray[np.int64]]
    ) -> list[npt.NDArray[np.float32]]:
        """Logits of one row of tokens: `[float32 [1, n, labels]]`."""
        ids = feed["input_ids"]
        answer = self._line.ask(ids, np.ones_like(ids), self._labels)
        if answer is not None:
            return [answer]
        run: list[npt.NDArray[np.float32]] = self._here.run(list(outputs), dict(feed))
        return run


class TritonLine:
    """Asks one served model; bounded in time and in number. Thread-safe.

    Connects at the first ask, and anew, with certificates read anew, after an ask that failed.

    Raises:
        ImportError: tritonclient is not installed.
    """

    def __init__(self, place: TritonPlace) -> None:
        try:
            self._grpc = import_module("tritonclient.grpc")
            self._failure = import_module("tritonclient.utils").InferenceServerException
        except ImportError as error:
            msg = "a name model on Triton needs tritonclient: install sealgate[compliance-triton]"
            raise ImportError(msg) from error
        self._place = place
        self._free = threading.BoundedSemaphore(place.asks_max)
        self._lock = threading.Lock()
        self._breaker = Breaker(place.failures_max, place.hold_off_ms / _MS_PER_S)
        self._client: Any = None

    def ask(
        self, ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64], labels: int
    ) -> npt.NDArray[np.float32] | None:
        """Logits, float32 [1, n, labels], for token ids [1, n]; None, counted, if there are none.

        Returns within `ask_ms` of being called.
        """
        if not self._free.acquire(blocking=False):
            # The model here takes milliseconds: it is done before a place would be free.
            counted("names.triton_fallback.busy")
            return None
        try:
            return self._admitted(ids, mask, labels)
        finally:
            self._free.release()

    def _admitted(
        self, ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64], labels: int
    ) -> npt.NDArray[np.float32] | None:
        with self._lock:
            if not self._breaker.admits():
                counted("names.triton_fallback.held_off")
                return None
        why, answer = self._tried(ids, mask, labels)
        if answer is None:
            self._failed(why)
            return None
        with self._lock:
            if self._breaker.succeeded():
                log.info("names.triton_back")
        return answer

    def _tried(
        self, ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64], labels: int
    ) -> tuple[str, npt.NDArray[np.float32] | None]:
        try:
            return "shape", self._sent(ids, mask, labels)
        except self._failure as error:
            return _WHY.get(str(error.status()), "refused"), None
        except (OSError, ValueError):
            # A certificate that cannot be read; bytes that do not fit the shape they claim.
            return "refused", None

    def _failed(self, why: str) -> None:
        counted(f"names.triton_fallback.{why}")
        with self._lock:
            # Not closed: another thread may wait on it. It closes itself when the last lets go.
            self._client = None
            if self._breaker.failed():
                log.warning("names.triton_away", kind=why)

    def _sent(
        self, ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64], labels: int
    ) -> npt.NDArray[np.float32] | None:
        inputs = []
        for name, values in (("input_ids", ids), ("attention_mask", mask)):
            inputs.append(self._grpc.InferInput(name, values.shape, "INT64"))
            inputs[-1].set_data_from_numpy(values)
        answer = self._connected().infer(
            self._place.model,
            inputs,
            outputs=[self._grpc.InferRequestedOutput("logits")],
            client_timeout=self._place.ask_ms / _MS_PER_S,
        )
        told = answer.get_output("logits")
        if told is None or told.datatype != "FP32" or [*told.shape] != [*ids.shape, labels]:
            return None
        logits: npt.NDArray[np.float32] = answer.as_numpy("logits")
        # Not a number is no probability either: it would be below every threshold, silently.
        return logits if np.isfinite(logits).all() else None

    def _connected(self) -> Any:  # noqa: ANN401 -- tritonclient has no types
        with self._lock:
            if self._client is None:
                self._client = self._grpc.InferenceServerClient(
                    self._place.address, creds=_credentials(self._place), channel_args=_CHANNEL
                )
            return self._client


def _credentials(place: TritonPlace) -> grpc.ChannelCredentials | None:
    """Read the files of `place`; None: no TLS."""
    if place.ca is None:
        return None
    return grpc.ssl_channel_credentials(
        root_certificates=place.ca.read_bytes(),
        private_key=None if place.key is None else place.key.read_bytes(),
        certificate_chain=None if place.certificate is None else place.certificate.read_bytes(),
    )
