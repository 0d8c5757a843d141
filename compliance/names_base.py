"""What the name models share: their protocol, pinned files, sessions of ONNX Runtime."""

from __future__ import annotations

import ctypes
import hashlib
from typing import TYPE_CHECKING, NamedTuple, Protocol

import onnxruntime

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from compliance.findings import Finding

__all__ = ["Ask", "FindsNow", "NameModel", "WeightsError", "give_back", "pinned", "session"]


class WeightsError(Exception):
    """A model's file is missing or is not the pinned one."""


class Ask(NamedTuple):
    """A window that may hold names, read once.

    runs: whether finding them takes a model: milliseconds. Else rules know all, in microseconds.
    find: names in `window[core:]`, in the window's offsets; cut at `core` if begun before.
    """

    runs: bool
    find: Callable[[], list[Finding]]


class NameModel(Protocol):
    """Finds names in a window; a function of the window alone. Thread-safe."""

    def ask(self, window: str, core: int) -> Ask | None:
        """Read a window; None: `window[core:]` holds no name of this model's script. Some 15 us."""
        ...


class FindsNow:
    """A `NameModel` that may be asked for names here and now, however long it takes."""

    def find(self: NameModel, window: str, core: int) -> list[Finding]:
        """Names in `window[core:]`: see `Ask`."""
        ask = self.ask(window, core)
        return [] if ask is None else ask.find()


def pinned(folder: Path, digests: dict[str, str]) -> dict[str, bytes]:
    """Read the named files of `folder`.

    Raises:
        WeightsError: one is missing, or its SHA-256 is not the one in `digests`.
    """
    read: dict[str, bytes] = {}
    for name, digest in digests.items():
        try:
            read[name] = (folder / name).read_bytes()
        except OSError as error:
            msg = f"{folder / name} cannot be read; fetch it with deploy/fetch_models.py"
            raise WeightsError(msg) from error
        if hashlib.sha256(read[name]).hexdigest() != digest:
            msg = f"{folder / name} is not the file that was pinned"
            raise WeightsError(msg)
    return read


def session(model: bytes, threads: int) -> onnxruntime.InferenceSession:
    """Open a model on the CPU; its threads sleep between runs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    opened = onnxruntime.InferenceSession(
        model, options, providers=["CPUExecutionProvider"], enable_fallback=False
    )
    # ONNX Runtime keeps the file's bytes for as long as the session, to open it on another device
    # should this one fail: as much memory as the weights, and there is no other device.
    opened._model_bytes = None  # noqa: SLF001 -- no public name for it
    return opened


def give_back() -> None:
    """Return to the system what was freed: reading a model leaves tens of megabytes. 1 ms.

    Only glibc knows how (malloc_trim(3)); with another C library nothing is done.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
