"""Who signs checkpoints: a key in OpenBao transit, or one in memory for tests.

The key signs two kinds of text, which cannot be taken for one another (meshkit.tlog.receipts):
checkpoints, and the endorsement of the receipt key at each start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meshkit.tlog import VerifierKey
from meshkit.vault import VaultDown

if TYPE_CHECKING:
    from meshkit.vault import Vault

__all__ = ["CheckpointSigner", "MemorySigner", "VaultSigner"]


class CheckpointSigner(Protocol):
    """An Ed25519 key named as the log's origin."""

    @property
    def vkey(self) -> str:
        """The C2SP verifier key; its name is the log's origin."""
        ...

    async def sign(self, message: bytes) -> bytes:
        """Sign (Ed25519, RFC 8032); 64 bytes.

        Raises:
            Refusal: KEYS_DOWN.
        """
        ...


class MemorySigner:
    """A key in memory: for tests. Whoever has this process has the log's key."""

    def __init__(self, origin: str, key: Ed25519PrivateKey | None = None) -> None:
        self._key = key or Ed25519PrivateKey.generate()
        self._vkey = str(VerifierKey(origin, self._key.public_key().public_bytes_raw()))

    @property
    def vkey(self) -> str:
        """See `CheckpointSigner.vkey`."""
        return self._vkey

    async def sign(self, message: bytes) -> bytes:
        """See `CheckpointSigner.sign`."""
        return self._key.sign(message)


class VaultSigner:
    """One pinned version of a transit key (type ed25519, not derived): 1.6 ms a signature."""

    def __init__(self, vault: Vault, key: str, version: int, vkey: str) -> None:
        self._vault = vault
        self._key = key
        self._version = version
        self._vkey = vkey

    @classmethod
    async def load(cls, vault: Vault, key: str, origin: str) -> VaultSigner:
        """Pin the newest version of transit key `key` for the log `origin`.

        A rotated key has another key id: auditors must have been given the new vkey before.

        Raises:
            Refusal: KEYS_DOWN.
        """
        versions = await vault.public_keys(key)
        newest = max(versions)
        return cls(vault, key, newest, str(VerifierKey(origin, versions[newest])))

    @property
    def vkey(self) -> str:
        """See `CheckpointSigner.vkey`."""
        return self._vkey

    async def sign(self, message: bytes) -> bytes:
        """See `CheckpointSigner.sign`."""
        signature = await self._vault.sign(self._key, message, key_version=self._version)
        if signature.version != self._version:
            raise VaultDown
        return signature.value
