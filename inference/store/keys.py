"""The store's hand on OpenBao: whose signatures count, and the keys of what is sealed.

The store works in threads and OpenBao is asked from the event loop, so `VaultModelKeys` hands each
question over and waits. Never call it from the loop's own thread.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from inference.store.signing import SIGNING_KEY, ModelSignature
from meshkit.contract import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from meshkit.vault import DataKey, KeyVersion, Signature

__all__ = ["STORAGE_KEY", "AdminKeys", "ModelKeys", "NoKeys", "TransitKeys", "VaultModelKeys"]

T = TypeVar("T")

STORAGE_KEY = "model-storage"
"""In OpenBao's transit: wraps the data keys of sealed models."""


class ModelKeys(Protocol):
    """What a store asks of whoever holds the keys. Each method raises Refusal: KEYS_DOWN."""

    def signers(self) -> Mapping[int, bytes]:
        """Return whom to believe: the signing key's public halves, 32 bytes each, by version."""
        ...

    def unwrap(self, wrapped: str, *, aad: bytes) -> bytes:
        """Return the data key of a sealed model. Raises VaultRejected: it is not ours, or moved."""
        ...


class AdminKeys(Protocol):
    """The model administrator's hand on OpenBao. Each method raises Refusal: KEYS_DOWN."""

    def sign(self, message: bytes) -> ModelSignature:
        """Sign with the newest version of the signing key."""
        ...

    def data_key(self, aad: bytes) -> tuple[bytes, str]:
        """Make a data key: the plaintext to use now, the wrapped form to keep."""
        ...


class TransitKeys(Protocol):
    """The part of `meshkit.vault.Vault` that is used here."""

    async def signing_keys(self, name: str) -> dict[int, KeyVersion]:
        """See `Vault.signing_keys`."""
        ...

    async def decrypt(self, name: str, wrapped: str, *, aad: bytes) -> bytes:
        """See `Vault.decrypt`."""
        ...

    async def sign(self, name: str, message: bytes) -> Signature:
        """See `Vault.sign`."""
        ...

    async def datakey(self, name: str, *, aad: bytes) -> DataKey:
        """See `Vault.datakey`."""
        ...


class NoKeys:
    """Nobody to ask: nothing counts as signed, and what is sealed stays so."""

    def signers(self) -> Mapping[int, bytes]:
        """See `ModelKeys.signers`."""
        return {}

    def unwrap(self, wrapped: str, *, aad: bytes) -> bytes:
        """See `ModelKeys.unwrap`."""
        del wrapped, aad
        raise Refusal(Reason.KEYS_DOWN)


@dataclass(frozen=True, slots=True)
class VaultModelKeys:
    """Asks OpenBao, from any thread but the loop's.

    timeout_s: For one question; OpenBao's own client gives up before.
    """

    vault: TransitKeys
    loop: asyncio.AbstractEventLoop = field(repr=False)
    timeout_s: float = 60.0

    def signers(self) -> Mapping[int, bytes]:
        """See `ModelKeys.signers`."""
        keys = self._asked(self.vault.signing_keys(SIGNING_KEY))
        return {version: key.public for version, key in keys.items()}

    def unwrap(self, wrapped: str, *, aad: bytes) -> bytes:
        """See `ModelKeys.unwrap`."""
        return self._asked(self.vault.decrypt(STORAGE_KEY, wrapped, aad=aad))

    def sign(self, message: bytes) -> ModelSignature:
        """See `AdminKeys.sign`; only the model administrator's login may."""
        made = self._asked(self.vault.sign(SIGNING_KEY, message))
        return ModelSignature(made.version, made.value)

    def data_key(self, aad: bytes) -> tuple[bytes, str]:
        """See `AdminKeys.data_key`; only the model administrator's login may."""
        made = self._asked(self.vault.datakey(STORAGE_KEY, aad=aad))
        return made.plaintext, made.wrapped

    def _asked(self, question: Coroutine[Any, Any, T]) -> T:
        answer = asyncio.run_coroutine_threadsafe(question, self.loop)
        try:
            return answer.result(self.timeout_s)
        except TimeoutError:
            answer.cancel()
            raise Refusal(Reason.KEYS_DOWN) from None
