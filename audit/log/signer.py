"""Who signs checkpoints: a key in OpenBao transit, or one in memory for tests.

The key signs two kinds of text, which cannot be taken for one another (meshkit.tlog.receipts):
checkpoints, and the endorsement of the receipt key.

A rotated key is another verifier key of the same log. For an overlap both sign, so that whoever
holds either goes on believing; then the newer alone. What is in force follows from OpenBao alone,
by when it made each version: it is the same after a restart.
"""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from meshkit.contract import Reason, Refusal
from meshkit.tlog import ENDORSEMENTS_MAX, LogKeys, VerifierKey
from meshkit.vault import VaultDown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from meshkit.vault import KeyVersion, Vault

__all__ = ["CheckpointSigner", "MemorySigner", "Signed", "VaultSigner", "in_force", "signed_by"]

_DAY_S = 86_400
OVERLAP_DAYS = 30.0
_KNOWN_MAX = 32

Signed = tuple[VerifierKey, bytes]
"""A key and its signature, 64 bytes."""


class CheckpointSigner(Protocol):
    """Ed25519 keys named as the log's origin."""

    @property
    def vkey(self) -> str:
        """The C2SP verifier keys in force, newest first, a line each; their name is the origin."""
        ...

    @property
    def known(self) -> LogKeys:
        """All that what this log signed before may bear, newest first."""
        ...

    async def look(self) -> None:
        """Look whether keys were rotated, or an overlap is over: `vkey` and `known` follow.

        Raises:
            Refusal: KEYS_DOWN; they stay as they are.
        """
        ...

    async def sign(self, message: bytes) -> list[Signed]:
        """Sign (Ed25519, RFC 8032) by each key in force, newest first.

        Raises:
            Refusal: KEYS_DOWN.
        """
        ...


async def signed_by(signer: CheckpointSigner, message: bytes) -> list[Signed]:
    """Sign, and check the signatures before anyone else sees them; at least one.

    Raises:
        Refusal: KEYS_DOWN, also if one does not verify.
    """
    signed = await signer.sign(message)
    if not signed or not all(key.verifies(signature, message) for key, signature in signed):
        raise Refusal(Reason.KEYS_DOWN)
    return signed


def in_force(made_s: Mapping[int, float], overlap_s: float, now_s: float) -> list[int]:
    """Return the versions that sign at `now_s`, newest first: at most `ENDORSEMENTS_MAX`.

    Args:
        made_s: When each was made, seconds since 1970.
        overlap_s: For how long after its successor was made a version signs, too.
        now_s: Seconds since 1970.
    """
    versions = sorted(made_s, reverse=True)
    overlapping = [
        older for newer, older in pairwise(versions) if now_s < made_s[newer] + overlap_s
    ]
    return [*versions[:1], *overlapping][:ENDORSEMENTS_MAX]


class MemorySigner:
    """Keys in memory: for tests. Whoever has this process has the log's keys."""

    def __init__(self, origin: str, key: Ed25519PrivateKey | None = None) -> None:
        self._origin = origin
        self._keys = [key or Ed25519PrivateKey.generate()]
        self._signing = 1

    def _of(self, keys: list[Ed25519PrivateKey]) -> LogKeys:
        publics = [key.public_key().public_bytes_raw() for key in keys]
        return LogKeys(tuple(VerifierKey(self._origin, public) for public in publics))

    def rotate(self) -> None:
        """Begin a new key; those before it go on signing."""
        self._keys.insert(0, Ed25519PrivateKey.generate())
        self._signing += 1

    def retire(self) -> None:
        """Let the newest key sign alone."""
        self._signing = 1

    @property
    def vkey(self) -> str:
        """See `CheckpointSigner.vkey`."""
        return str(self._of(self._keys[: self._signing]))

    @property
    def known(self) -> LogKeys:
        """See `CheckpointSigner.known`."""
        return self._of(self._keys)

    async def look(self) -> None:
        """See `CheckpointSigner.look`: what is here is always what is in force."""

    async def sign(self, message: bytes) -> list[Signed]:
        """See `CheckpointSigner.sign`."""
        keys = self._keys[: self._signing]
        return [
            (named, key.sign(message)) for named, key in zip(self._of(keys).keys, keys, strict=True)
        ]


class VaultSigner:
    """Versions of a transit key (type ed25519, not derived): 1.6 ms a signature."""

    def __init__(
        self, vault: Vault, key: str, origin: str, *, overlap_s: float, clock: Callable[[], float]
    ) -> None:
        """Know nothing yet; `load` makes one that does."""
        self._vault = vault
        self._key = key
        self._origin = origin
        self._overlap_s = overlap_s
        self._clock = clock
        self._versions: dict[int, VerifierKey] = {}
        self._signing: list[int] = []

    @classmethod
    async def load(
        cls,
        vault: Vault,
        key: str,
        origin: str,
        *,
        overlap_days: float = OVERLAP_DAYS,
        clock: Callable[[], float] = time.time,
    ) -> VaultSigner:
        """Sign for the log `origin` with the versions of transit key `key` that are in force.

        Raises:
            Refusal: KEYS_DOWN.
        """
        signer = cls(vault, key, origin, overlap_s=overlap_days * _DAY_S, clock=clock)
        await signer.look()
        return signer

    @property
    def vkey(self) -> str:
        """See `CheckpointSigner.vkey`."""
        return str(LogKeys(tuple(self._versions[version] for version in self._signing)))

    @property
    def known(self) -> LogKeys:
        """See `CheckpointSigner.known`."""
        newest = sorted(self._versions, reverse=True)[:_KNOWN_MAX]
        return LogKeys(tuple(self._versions[version] for version in newest))

    async def look(self) -> None:
        """See `CheckpointSigner.look`."""
        found: dict[int, KeyVersion] = await self._vault.signing_keys(self._key)
        made_s = {version: one.made_s for version, one in found.items()}
        self._versions = {v: VerifierKey(self._origin, one.public) for v, one in found.items()}
        self._signing = in_force(made_s, self._overlap_s, self._clock())

    async def sign(self, message: bytes) -> list[Signed]:
        """See `CheckpointSigner.sign`."""
        named = {version: self._versions[version] for version in self._signing}
        return list(await asyncio.gather(*(self._one(message, v, key) for v, key in named.items())))

    async def _one(self, message: bytes, version: int, key: VerifierKey) -> Signed:
        signature = await self._vault.sign(self._key, message, key_version=version)
        if signature.version != version:
            raise VaultDown
        return key, signature.value
