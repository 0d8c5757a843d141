"""OpenBao as the services use it: a dozen endpoints of the Vault API, asynchronous and typed.

    async with vault(settings, login) as keys:
        wrapped = await keys.datakey("t-acme", aad=b"v1|acme|2026-11-21|payload")

Every failure is `VaultDown` (KEYS_DOWN), but for a lost compare-and-swap (`CasConflict`). All of
this works with HashiCorp Vault too, but for what is marked "OpenBao". docs/adr/0001 says why there
is a client of our own, 0002 how hvac checks it.
"""

from __future__ import annotations

import base64
import binascii
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cryptography import x509

from meshkit.vault_http import (
    Answer,
    CasConflict,
    VaultDown,
    VaultHttp,
    VaultRejected,
    VaultSettings,
    connected_http,
)
from meshkit.vault_token import (
    AppRole,
    Interception,
    Login,
    StaticToken,
    Token,
    WrappedAppRole,
    live_token,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

__all__ = [
    "AppRole",
    "CasConflict",
    "DataKey",
    "Health",
    "Interception",
    "Issued",
    "KeyVersion",
    "KvEntry",
    "Login",
    "Secret",
    "Signature",
    "StaticToken",
    "Vault",
    "VaultDown",
    "VaultRejected",
    "VaultSettings",
    "WrappedAppRole",
    "vault",
]

TRANSIT = "transit"
"""Mount of the keys that never leave OpenBao. Fixed: the policies name it."""
KV = "kv"
"""Mount of the versioned secrets."""
PKI = "pki"
"""Mount of the certificate authority."""

_KEY_BYTES = 32
_NOT_FOUND = 404
_HEALTH_STATUSES = frozenset({429, 472, 473, 474, 501, 503, 530})
"""All that /sys/health answers when it is not 200; Vault API, "Read health information"."""

KeyType = Literal["ed25519", "aes256-gcm96"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What OpenBao says of itself. It says so even while its audit disk is full (see `ready`)."""

    initialized: bool
    sealed: bool
    standby: bool
    version: str

    @property
    def active(self) -> bool:
        """Whether it takes requests."""
        return self.initialized and not self.sealed and not self.standby


@dataclass(frozen=True, slots=True)
class KvEntry:
    """A versioned secret. `version` is 1 or more, and what `cas` must name to replace it."""

    data: Mapping[str, str] = field(repr=False)
    version: int


@dataclass(frozen=True, slots=True)
class Secret:
    """A 32-byte key in KV v2, with the version before it where there is one.

    The KV version is the key's version; it travels with whatever the key made.
    """

    current: int
    values: Mapping[int, bytes] = field(repr=False)

    @property
    def newest(self) -> bytes:
        """The current version's key."""
        return self.values[self.current]


@dataclass(frozen=True, slots=True)
class Signature:
    """Ed25519 (RFC 8032, pure): 64 bytes, and the version of the key that made it."""

    version: int
    value: bytes


class KeyVersion(NamedTuple):
    """A version of a signing key: its public key (32 bytes), and when it was made (POSIX)."""

    public: bytes
    made_s: float


@dataclass(frozen=True, slots=True)
class DataKey:
    """A fresh 256-bit key: the plaintext to use now, the wrapped form to keep."""

    plaintext: bytes = field(repr=False)
    wrapped: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A certificate with its private key, all PEM."""

    chain_pem: str
    """The certificate and what stands between it and the root."""
    ca_pem: str
    """The root."""
    private_key_pem: str = field(repr=False)
    serial: str
    not_after_s: int
    """Seconds since 1970."""


class Vault:
    """An OpenBao we are logged in to. Made by `vault`."""

    def __init__(self, http: VaultHttp, token: Token) -> None:
        self._http = http
        self.token = token

    async def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        maybe: bool = False,
        wrap_ttl_s: int | None = None,
    ) -> Answer:
        """Send a request of your own: for set-up and tools; services have the methods below.

        Args:
            method: GET, POST, LIST or DELETE.
            path: What follows `/v1/`.
            body: Sent as JSON.
            maybe: Whether 404 is an answer rather than an error.
            wrap_ttl_s: Have the reply wrapped, to be unwrapped once within so many seconds.

        Raises:
            VaultDown: and its kinds, as `VaultHttp.call`.
        """
        accept = frozenset({_NOT_FOUND}) if maybe else frozenset()
        try:
            return await self._http.call(
                method,
                path,
                body,
                token=self.token.value,
                accept=accept,
                wrap_ttl_s=wrap_ttl_s,
            )
        except VaultRejected as refused:
            if refused.forbidden:
                self.token.doubt()
            raise

    # --- the server -------------------------------------------------------------------------

    async def health(self) -> Health:
        """Ask how the server is. Raises VaultDown only when there is no answer at all."""
        answer = await self._http.call("GET", "sys/health", accept=_HEALTH_STATUSES)
        return Health(
            initialized=bool(answer.body.get("initialized")),
            sealed=bool(answer.body.get("sealed", True)),
            standby=bool(answer.body.get("standby")),
            version=str(answer.body.get("version", "")),
        )

    async def sealed(self) -> bool:
        """Whether the server is sealed (`sys/seal-status`)."""
        answer = await self._http.call("GET", "sys/seal-status")
        return bool(answer.body.get("sealed", True))

    async def look_up_self(self) -> Answer:
        """Ask about our own token. Raises VaultRejected if it is no good."""
        return await self.ask("GET", "auth/token/lookup-self")

    async def ready(self) -> bool:
        """Whether a real, audited request succeeds.

        /sys/health is not audited and stays well when the audit disk is full; this does not.
        """
        try:
            await self.look_up_self()
        except VaultDown:
            return False
        return True

    # --- KV v2 ------------------------------------------------------------------------------

    async def kv_get(self, path: str, *, version: int | None = None) -> KvEntry | None:
        """Read a secret: its newest version, or the given one; None where there is none."""
        query = "" if version is None else f"?version={version}"
        answer = await self.ask("GET", f"{KV}/data/{path}{query}", maybe=True)
        if answer.status == _NOT_FOUND or answer.data.get("data") is None:
            return None
        return KvEntry(answer.data["data"], int(answer.need("metadata")["version"]))

    async def kv_put(self, path: str, data: Mapping[str, str], *, cas: int | None = None) -> int:
        """Write a secret and return its version.

        Args:
            path: Below the mount.
            data: The whole secret.
            cas: The version it must have now; 0 says that it must not exist. None overwrites.

        Raises:
            CasConflict: it has another version. After a retried 5xx this may be our own write.
        """
        body = {"data": dict(data), "options": {} if cas is None else {"cas": cas}}
        answer = await self.ask("POST", f"{KV}/data/{path}", body)
        return int(answer.need("version"))

    async def secret(self, path: str) -> Secret:
        """Read a key kept as `{"key": base64}` with the version before it.

        Raises:
            VaultDown: also where there is no such key, or it does not hold 32 bytes.
        """
        newest = await self.kv_get(path)
        if newest is None:
            raise VaultDown(_NOT_FOUND)
        values = {newest.version: _key_bytes(newest)}
        if newest.version > 1:
            older = await self.kv_get(path, version=newest.version - 1)
            values |= {} if older is None else {older.version: _key_bytes(older)}
        return Secret(newest.version, values)

    # --- transit ----------------------------------------------------------------------------

    async def create_key(self, name: str, kind: KeyType) -> None:
        """Make a key that never leaves OpenBao. One that exists already stays as it is."""
        await self.ask("POST", f"{TRANSIT}/keys/{name}", {"type": kind, "exportable": False})

    async def signing_keys(self, name: str) -> dict[int, KeyVersion]:
        """Return every version of an Ed25519 signing key."""
        keys = (await self.ask("GET", f"{TRANSIT}/keys/{name}")).need("keys")
        return {int(version): _key_version(key) for version, key in keys.items()}

    async def sign(self, name: str, message: bytes, *, key_version: int | None = None) -> Signature:
        """Sign `message` itself (pure Ed25519, never the prehashed form), by default newest key."""
        body: dict[str, Any] = {"input": _base64(message)}
        if key_version is not None:
            body["key_version"] = key_version
        answer = await self.ask("POST", f"{TRANSIT}/sign/{name}", body)
        _, version, value = str(answer.need("signature")).split(":", 2)
        return Signature(int(version.removeprefix("v")), _unbase64(value))

    async def datakey(self, name: str, *, aad: bytes) -> DataKey:
        """Make a 256-bit data key wrapped by key `name` (OpenBao: `aad` binds the wrapped form)."""
        body = {"bits": 256, "associated_data": _base64(aad)}
        made = await self.ask("POST", f"{TRANSIT}/datakey/plaintext/{name}", body)
        return DataKey(_unbase64(made.need("plaintext")), str(made.need("ciphertext")))

    async def decrypt(self, name: str, wrapped: str, *, aad: bytes) -> bytes:
        """Unwrap what `datakey` wrapped.

        Raises:
            VaultRejected: `wrapped` was not made by this key with this `aad`.
        """
        body = {"ciphertext": wrapped, "associated_data": _base64(aad)}
        opened = await self.ask("POST", f"{TRANSIT}/decrypt/{name}", body)
        return _unbase64(opened.need("plaintext"))

    # --- PKI --------------------------------------------------------------------------------

    async def issue(
        self,
        role: str,
        *,
        uri_sans: tuple[str, ...],
        dns_names: tuple[str, ...] = (),
        ip_addresses: tuple[str, ...] = (),
        ttl_s: int,
    ) -> Issued:
        """Have a certificate and its P-256 key made. Raises VaultRejected if the role forbids."""
        body = {
            "uri_sans": ",".join(uri_sans),
            "alt_names": ",".join(dns_names),
            "ip_sans": ",".join(ip_addresses),
            "exclude_cn_from_sans": True,
            "private_key_format": "pkcs8",
            "ttl": f"{ttl_s}s",
        }
        made = await self.ask("POST", f"{PKI}/issue/{role}", body)
        above = [_pem(one) for one in made.data.get("ca_chain") or [made.need("issuing_ca")]]
        between = [one for one in above if not _is_root(one)]
        return Issued(
            chain_pem="".join([_pem(made.need("certificate")), *between]),
            ca_pem="".join(one for one in above if one not in between),
            private_key_pem=_pem(made.need("private_key")),
            serial=str(made.need("serial_number")),
            not_after_s=int(made.need("expiration")),
        )

    async def roots(self) -> str:
        """Return all roots of now, PEM: two while a CA takes over. Public; needs no policy.

        Those that are over are left out, and so is an intermediate CA's root that OpenBao was
        never shown.
        """
        now = datetime.now(UTC)
        found: dict[str, None] = {}
        for issuer in (await self._http.call("LIST", f"{PKI}/issuers")).need("keys"):
            answer = await self._http.call("GET", f"{PKI}/issuer/{issuer}/json")
            chain = [_pem(one) for one in answer.need("ca_chain")]
            found |= dict.fromkeys(one for one in chain if _is_root(one, good_at=now))
        return "".join(found)

    async def ca_chain(self) -> str:
        """Return the CA's certificates, PEM, the issuer first. Public; needs no policy."""
        return _pem(str((await self._http.call("GET", f"{PKI}/cert/ca_chain")).need("certificate")))


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _unbase64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise VaultDown from None


def _pem(text: str) -> str:
    return text.strip() + "\n"


def _is_root(pem: str, *, good_at: datetime | None = None) -> bool:
    certificate = x509.load_pem_x509_certificate(pem.encode())
    over = good_at is not None and certificate.not_valid_after_utc <= good_at
    return certificate.subject == certificate.issuer and not over


def _key_version(told: Mapping[str, str]) -> KeyVersion:
    made_s = datetime.fromisoformat(told["creation_time"]).timestamp()
    return KeyVersion(_unbase64(told["public_key"]), made_s)


def _key_bytes(entry: KvEntry) -> bytes:
    raw = _unbase64(entry.data.get("key", ""))
    if len(raw) != _KEY_BYTES:
        raise VaultDown
    return raw


@asynccontextmanager
async def vault(settings: VaultSettings, login: Login) -> AsyncIterator[Vault]:
    """Log in to OpenBao and stay so while the block runs; the token is revoked at the end.

    Raises:
        Interception: the wrapped secret id was read by somebody else.
        VaultDown: the login was refused, or OpenBao is away.
        OSError: the CA file cannot be read.
    """
    async with connected_http(settings) as http, live_token(http, login) as token:
        yield Vault(http, token)
