"""Turns names into random-looking ones, so that a leaf outlives the erasure of whom it is about.

    tenant                     HMAC under the log's one key: partitions and search know it
    workload, user, subject,   HMAC under a key of the tenant; the leaf names the key's id
    peer (an IP address)

    names = pseudonyms.at_hand(event) or await pseudonyms.names(event)
    names.user("acme", "ada"), names.key_id

A pseudonym is the first 16 bytes of HMAC-SHA-256. A tenant has several keys, one after another
(`pseudonym_keys`): a rotation begins a new one, and who is who under an older key can be told
for as long as that is kept. Once it is erased its pseudonyms are random numbers for ever, to us as
to anybody. `all_of` gives a name's pseudonyms under all keys that are left, for search and erasure.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, Protocol

from meshkit.identity import is_label
from meshkit.mac import hmac_sha256

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshkit.contract import Event

__all__ = [
    "PSEUDONYM_BYTES",
    "DerivedKeys",
    "EventNames",
    "Kind",
    "Names",
    "NamingKey",
    "NamingKeys",
    "Pseudonyms",
]

PSEUDONYM_BYTES = 16
KEY_BYTES = 32
_NAMES_MAX = 8_192
_TENANTS_MAX = 4_096
_LABEL = b"sealgate/pseudonym/v1\0"

Kind = Literal["workload", "user", "subject", "peer"]


@dataclass(frozen=True, slots=True)
class NamingKey:
    """A tenant's key, to be used at once and kept nowhere: who holds keys may have to erase it."""

    key_id: str
    """32 hexadecimal digits, as the leaf says it."""
    secret: bytes

    def __repr__(self) -> str:
        """Tell which, never what."""
        return f"NamingKey({self.key_id})"


class NamingKeys(Protocol):
    """Holds tenants' keys. `audit.keys.pseudonym_keys.PseudonymKeys` is the real one."""

    def at_hand(self, tenant: str) -> NamingKey | None:
        """Return the newest key without waiting; None if `newest` must be awaited."""
        ...

    async def newest(self, tenant: str) -> NamingKey:
        """Return the key of now. Raises Refusal: KEYS_DOWN."""
        ...

    async def under(self, tenant: str, key_id: str) -> NamingKey | None:
        """Return an older key; None if it is erased. Raises Refusal: KEYS_DOWN."""
        ...

    async def every(self, tenant: str) -> list[NamingKey]:
        """Return all keys that are left. Raises Refusal: KEYS_DOWN, if one cannot be asked for."""
        ...


class EventNames(Protocol):
    """What writing a leaf takes: names of one event, all under one key."""

    key_id: str
    """Empty, if the event names nobody of a tenant."""

    def tenant(self, tenant: str) -> str:
        """Return a tenant's pseudonym: 32 hexadecimal digits."""
        ...

    def workload(self, tenant: str, spiffe_id: str) -> str:
        """Return a workload's pseudonym within its tenant."""
        ...

    def user(self, tenant: str, user: str) -> str:
        """Return a user's pseudonym within the tenant."""
        ...

    def subject(self, tenant: str, subject: str) -> str:
        """Return the pseudonym, within the tenant, of whom data is about."""
        ...

    def peer(self, tenant: str, address: str) -> str:
        """Return the pseudonym, within the tenant, of an address that a call came from."""
        ...


class Names:
    """Names under the log's key (tenants) and one more (everybody else)."""

    def __init__(self, tenant: Callable[[str], str], secret: bytes, key_id: str = "") -> None:
        self.key_id = key_id
        self.tenant = tenant
        # Few names, many events: an HMAC and its hexadecimal cost 3 µs, a look-up 0.1 µs.
        self._of = lru_cache(maxsize=_NAMES_MAX)(_under(secret))

    def workload(self, tenant: str, spiffe_id: str) -> str:
        """Return a workload's pseudonym within its tenant."""
        return self._of("workload", tenant, spiffe_id)

    def user(self, tenant: str, user: str) -> str:
        """Return a user's pseudonym within the tenant."""
        return self._of("user", tenant, user)

    def subject(self, tenant: str, subject: str) -> str:
        """Return the pseudonym, within the tenant, of whom data is about."""
        return self._of("subject", tenant, subject)

    def peer(self, tenant: str, address: str) -> str:
        """Return the pseudonym, within the tenant, of an address that a call came from."""
        return self._of("peer", tenant, address)

    def of(self, kind: Kind, tenant: str, name: str) -> str:
        """Return the pseudonym of a name of this kind."""
        return self._of(kind, tenant, name)


class Pseudonyms:
    """The log's key (32 bytes), and the tenants' keys."""

    def __init__(self, log_key: bytes, keys: NamingKeys) -> None:
        self._keys = keys
        self.tenant = lru_cache(maxsize=_NAMES_MAX)(_tenants_under(log_key))
        """Returns a tenant's pseudonym: 32 hexadecimal digits, the same for ever."""
        self._nobody = Names(self.tenant, log_key)
        self._newest: dict[str, Names] = {}

    def at_hand(self, event: Event) -> Names | None:
        """Return the names for a new event; None if `names` must be awaited."""
        if not _names_somebody(event):
            return self._nobody
        key = self._keys.at_hand(event.tenant)
        if key is None:
            self._newest.pop(event.tenant, None)
            return None
        return self._with(event.tenant, key)

    async def names(self, event: Event) -> Names:
        """Return the names for a new event. Raises Refusal: KEYS_DOWN."""
        if not _names_somebody(event):
            return self._nobody
        return self._with(event.tenant, await self._keys.newest(event.tenant))

    async def names_of_leaf(self, tenant: str, leaf: bytes) -> EventNames:
        """Return the names under the key that a leaf of ours says, to tell a repeated event by it.

        If that key is erased, whoever asks is believed to be who stands there: nobody can tell, and
        all the rest of the event must still be the same.

        Raises:
            Refusal: KEYS_DOWN.
        """
        event = json.loads(leaf)["event"]
        key_id = event.get("pseudonym_key", "")
        if not key_id:
            return self._nobody
        key = await self._keys.under(tenant, key_id)
        if key is None:
            return _Echo(self.tenant, event)
        return Names(self.tenant, key.secret, key.key_id)

    async def all_of(self, kind: Kind, tenant: str, name: str) -> list[str]:
        """Return a name's pseudonyms under every key that is left, for search and erasure.

        Raises:
            Refusal: KEYS_DOWN, rather than an answer that lacks some.
            ValueError: the tenant is no lower-case DNS label.
        """
        keys = await self._keys.every(tenant)
        return [_under(key.secret)(kind, tenant, name) for key in keys]

    def _with(self, tenant: str, key: NamingKey) -> Names:
        names = self._newest.get(tenant)
        if names is None or names.key_id != key.key_id:
            names = self._newest[tenant] = Names(self.tenant, key.secret, key.key_id)
            while len(self._newest) > _TENANTS_MAX:
                del self._newest[next(iter(self._newest))]
        return names

    def forget_what_keys_forgot(self) -> None:
        """Drop names whose key is not held any more; for whoever holds the keys, now and then."""
        for tenant in list(self._newest):
            if self._keys.at_hand(tenant) is None:
                del self._newest[tenant]


class DerivedKeys:
    """One key for each tenant, derived from a secret: for figures, and logs without an OpenBao.

    Nothing here can be rotated or erased.
    """

    def __init__(self, secret: bytes) -> None:
        # Remembered, as keys of OpenBao are: an event asks for its tenant's.
        self._derived = lru_cache(maxsize=_TENANTS_MAX)(_derived_from(secret))

    def at_hand(self, tenant: str) -> NamingKey:
        """Derive it."""
        return self._derived(tenant)

    async def newest(self, tenant: str) -> NamingKey:
        """Derive it."""
        return self.at_hand(tenant)

    async def under(self, tenant: str, key_id: str) -> NamingKey | None:
        """Derive it, if it bears this id."""
        key = self.at_hand(tenant)
        return key if key.key_id == key_id else None

    async def every(self, tenant: str) -> list[NamingKey]:
        """Derive it."""
        return [self.at_hand(tenant)]


class _Echo:
    """Says of everybody what a leaf says: its key is erased."""

    def __init__(self, tenant: Callable[[str], str], event: dict[str, str]) -> None:
        self.tenant = tenant
        self._event = event
        self.key_id = event["pseudonym_key"]

    def workload(self, _tenant: str, _spiffe_id: str) -> str:
        return self._event.get("actor", "")

    def user(self, _tenant: str, _user: str) -> str:
        return self._event.get("user", "")

    def subject(self, _tenant: str, _subject: str) -> str:
        return self._event.get("subject", "")

    def peer(self, _tenant: str, _address: str) -> str:
        return self._event.get("peer", "")


def _names_somebody(event: Event) -> bool:
    # A tenant that is no label is refused with its field's name when the leaf is written.
    return is_label(event.tenant) and bool(event.actor or event.subject)


def _derived_from(secret: bytes) -> Callable[[str], NamingKey]:
    def derived(tenant: str) -> NamingKey:
        key = hmac_sha256(secret, tenant.encode())
        return NamingKey(hmac_sha256(key, b"id")[:16].hex(), key)

    return derived


def _under(secret: bytes) -> Callable[[str, str, str], str]:
    return lambda kind, tenant, name: _pseudonym(secret, kind, tenant, name)


def _tenants_under(log_key: bytes) -> Callable[[str], str]:
    if len(log_key) != KEY_BYTES:
        msg = "pseudonym key is not 32 bytes"
        raise ValueError(msg)
    return lambda tenant: _pseudonym(log_key, "tenant", tenant)


def _pseudonym(secret: bytes, kind: str, *names: str) -> str:
    parts = [_LABEL]
    for name in (kind, *names):
        raw = name.encode()
        parts += (len(raw).to_bytes(4), raw)
    return hmac_sha256(secret, b"".join(parts))[:PSEUDONYM_BYTES].hex()
