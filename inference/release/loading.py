"""Engines out of the store: the only place where one is built for a release."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from inference.engines.faults import out_of_memory
from inference.engines.load import load_engine, opened_with_base
from inference.store.errors import DISK_FULL, Fault, ModelFileError
from meshkit.contract import Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference.engines.base import Engine
    from inference.engines.torch import TorchEngine
    from inference.engines.triton.engine import TritonEngine
    from inference.settings import InferenceSettings
    from inference.store.manifest import Manifest
    from inference.store.store import ModelStore

__all__ = ["NOT_LOADED", "Loader", "StoreLoader", "why_not"]

NOT_LOADED: Final = "not_loaded"
"""For whatever has no name: a defect."""

_ANSWERING = frozenset({"chat", "adapter"})


def why_not(error: Exception) -> str:
    """Name what kept a version from being loaded, as a record does."""
    match error:
        case ModelFileError():
            return error.name
        case Refusal():
            return error.reason.name.lower()
        case OSError(errno=number) if number in DISK_FULL:
            return Fault.NO_ROOM.name.lower()
        case _ if out_of_memory(error):
            return Fault.NO_MEMORY.name.lower()
    return NOT_LOADED


class Loader(Protocol):
    """Where versions come from. All methods block."""

    def known(self) -> Sequence[tuple[str, str, bytes]]:
        """Return every version there is: name, version, digest of its manifest; oldest first."""
        ...

    def newest(self, name: str) -> str:
        """Return a name's newest version, sound or not. Raises ModelFileError: NOT_FOUND."""
        ...

    def load(self, name: str, version: str, manifest: bytes) -> Engine:
        """Build and start the engine of the version whose manifest has this digest.

        Raises:
            ModelFileError: it is not there, not the one, not vouched for, damaged.
            Refusal: KEYS_DOWN.
        """
        ...


class StoreLoader:
    """Takes versions out of a `ModelStore`."""

    def __init__(self, settings: InferenceSettings, store: ModelStore) -> None:
        self._settings = settings
        self._store = store

    def known(self) -> Sequence[tuple[str, str, bytes]]:
        """See `Loader.known`."""
        return [
            (manifest.name, manifest.version, manifest.digest)
            for manifest in self._store.manifests()
            if manifest.kind in _ANSWERING
        ]

    def newest(self, name: str) -> str:
        """See `Loader.newest`."""
        return self._store.newest(name)

    def load(self, name: str, version: str, manifest: bytes) -> Engine:
        """See `Loader.load`."""
        engine = self._built(name, version, manifest)
        engine.start()
        return engine

    def _built(self, name: str, version: str, manifest: bytes) -> TorchEngine | TritonEngine:
        settings = self._settings
        if settings.engine == "triton" and settings.triton.adapter == "sealgate":
            # Here, since its client is a dependency of those alone who have a Triton.
            from inference.engines.triton.load import load_triton  # noqa: PLC0415 -- as above

            entry = self._store.entry(name, version)
            self._store.must_be_trusted(entry)
            self._store.rules.must_allow(entry.manifest)
            _must_be(manifest, entry.manifest)
            return load_triton(settings, manifest=entry.manifest)
        with opened_with_base(self._store, name, version) as (opened, base):
            _must_be(manifest, opened.manifest)
            return load_engine(settings, opened, base=base)


def _must_be(digest: bytes, manifest: Manifest) -> None:
    if manifest.digest != digest:
        raise ModelFileError(Fault.MANIFEST)
