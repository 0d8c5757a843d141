"""Engines out of the store: the only place where one is built for a release."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from inference.engines.load import load_engine, opened_with_base
from inference.store.errors import Fault, ModelFileError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference.engines.base import Engine
    from inference.settings import InferenceSettings
    from inference.store.store import ModelStore

__all__ = ["Loader", "StoreLoader"]

_ANSWERING = frozenset({"chat", "adapter"})


class Loader(Protocol):
    """Where versions come from. Both methods block."""

    def known(self) -> Sequence[tuple[str, str, bytes]]:
        """Return every version there is: name, version, digest of its manifest; oldest first."""
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

    def load(self, name: str, version: str, manifest: bytes) -> Engine:
        """See `Loader.load`."""
        with opened_with_base(self._store, name, version) as (opened, base):
            if opened.manifest.digest != manifest:
                raise ModelFileError(Fault.MANIFEST)
            if self._settings.engine == "triton":
                # Here, since its client is a dependency of those alone who have a Triton.
                from inference.engines.triton.load import load_triton  # noqa: PLC0415 -- as above

                served = load_triton(self._settings, opened)
                served.start()
                return served
            engine = load_engine(self._settings, opened, base=base)
        engine.start()
        return engine
