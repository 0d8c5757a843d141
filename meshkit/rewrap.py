"""Wraps data keys anew under the newest version of their tenant's key.

Not by OpenBao's own `transit/rewrap`: it knows no associated data (tried with 2.7.2; HashiCorp
Vault neither, hashicorp/vault#29532), and our data keys are bound to tenant, day and purpose. So
whoever may open them anyway decrypts and encrypts again, a batch in two requests; the operator, who
may not, never sees one. docs/adr/0008 weighs this.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from meshkit.vault import VaultRejected
from meshkit.wrapped_keys import kek_of, wrapping_aad

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meshkit.vault_http import Answer
    from meshkit.wrapped_keys import FolderWrappedKeys, WrappedKey

__all__ = ["BATCH_MAX", "Asking", "Rewrapped", "rewrap", "version_of"]

BATCH_MAX = 249
"""With associated data 250 are beyond OpenBao's `max_request_json_strings` of 1,000."""


class Asking(Protocol):
    """The part of `Vault` that is needed here."""

    async def ask(self, method: str, path: str, body: Mapping[str, Any]) -> Answer:
        """Send a request. Raises VaultDown."""
        ...


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """How many keys are under the newest version now, and how many could not be brought there."""

    done: int = 0
    left: int = 0

    def __add__(self, other: Rewrapped) -> Rewrapped:
        """Add both counts."""
        return Rewrapped(self.done + other.done, self.left + other.left)


def version_of(wrapped: str) -> int:
    """Return which version of the tenant's key wrapped a data key; 0 if that cannot be told."""
    parts = wrapped.split(":", 2)
    number = parts[1].removeprefix("v") if len(parts) > 2 else ""  # noqa: PLR2004 -- vault:v2:...
    return int(number) if number.isdecimal() else 0


async def rewrap(keys: Asking, store: FolderWrappedKeys, tenant: str, *, version: int) -> Rewrapped:
    """Bring all kept keys of a tenant that are under an older version to the newest one.

    Each file is replaced at once and only if it is still there, so this may be cut off anywhere,
    begun again, and run beside sealing, opening and erasing.

    Args:
        keys: Logged in as somebody who may decrypt and encrypt under the tenant's key.
        store: Where the wrapped keys are.
        tenant: Whose.
        version: The newest; what is under it already is left alone.

    Raises:
        VaultDown: what was done stays.
        OSError: the same.
    """
    old = [key for key in await store.keys(tenant) if version_of(key.wrapped) < version]
    told = Rewrapped()
    for first in range(0, len(old), BATCH_MAX):
        told += await _batch(keys, store, tenant, old[first : first + BATCH_MAX])
    return told


async def _batch(
    keys: Asking, store: FolderWrappedKeys, tenant: str, old: Sequence[WrappedKey]
) -> Rewrapped:
    aads = [b64encode(wrapping_aad(key)).decode() for key in old]
    items = [
        {"ciphertext": key.wrapped, "associated_data": aad}
        for key, aad in zip(old, aads, strict=True)
    ]
    opened = await _ask(keys, f"transit/decrypt/{kek_of(tenant)}", items)
    # What does not open (a damaged file) stays as it is, counted.
    good = [at for at, result in enumerate(opened) if result.get("plaintext")]
    if not good:
        return Rewrapped(left=len(old))
    fresh = [{"plaintext": opened[at]["plaintext"], "associated_data": aads[at]} for at in good]
    done = 0
    wrapped = await _ask(keys, f"transit/encrypt/{kek_of(tenant)}", fresh)
    for at, result in zip(good, wrapped, strict=True):
        if result.get("ciphertext"):
            await store.replace(old[at], str(result["ciphertext"]))
            done += 1
    return Rewrapped(done, len(old) - done)


async def _ask(keys: Asking, path: str, items: list[dict[str, str]]) -> list[dict[str, Any]]:
    body = {"batch_input": items, "partial_failure_response_code": 200}
    try:
        return list((await keys.ask("POST", path, body)).need("batch_results"))
    except VaultRejected as refused:
        if refused.forbidden:
            raise
        return [{}] * len(items)  # so it answers where not one of them opens
