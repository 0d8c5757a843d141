"""Users behind a workload: JWTs, believed only as far as the list below goes.

    1. at most `token_bytes_max`; header `alg` on the allow-list, `kid` names a key of the set
    2. the key's own algorithm is used, never the header's choice: RS256 (2,048 bits or more), ES256
       (P-256), EdDSA (Ed25519). `none` and shared secrets do not exist here
    3. signature; `iss`, `aud`, `exp`, and `nbf` where present, with `leeway_s`
    4. the tenant claim is the tenant of the certificate that carries the token
    5. where `cnf` is present, its `x5t#S256` is that certificate (RFC 8705, 3.1); other bindings
       are refused, since they cannot be checked
    6. `sub` is 1 to 256 visible ASCII characters; `roles` a list of strings

A verified token is remembered by its hash, with tenant and certificate, until `exp`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import ssl
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hmac import compare_digest
from typing import TYPE_CHECKING, Any

import httpx2
import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from meshkit.background import running
from meshkit.contract import Reason, Refusal
from meshkit.counters import counted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from gateway.settings import UserSettings

__all__ = ["JwksInvalid", "User", "Users", "parse_jwks", "users"]

log = structlog.get_logger()

ALGORITHMS = frozenset({"RS256", "ES256", "EdDSA"})
_KINDS = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}
_RSA_BITS_MIN = 2_048
_KEYS_MAX = 64
_ROLES_MAX = 32
_SUBJECT = re.compile(r"[\x21-\x7e]{1,256}")
_FETCH_MS = 5_000


class JwksInvalid(ValueError):  # noqa: N818 -- an answer about somebody's file
    """A key set cannot be used. Says why in constants."""


@dataclass(frozen=True, slots=True)
class User:
    """A believed token. `roles` are claimed, not yet allowed; `ends_s` is `exp`."""

    subject: str
    roles: frozenset[str]
    ends_s: float


def parse_jwks(raw: bytes) -> dict[str, jwt.PyJWK]:
    """Read a JWK set: signature keys with a `kid` and an algorithm of the list, by `kid`.

    Keys of other kinds are skipped, as RFC 7517, section 5 has it.

    Raises:
        JwksInvalid: not a set, too many keys, a `kid` twice, or no usable key at all.
    """
    try:
        listed = json.loads(raw)["keys"]
    except (ValueError, KeyError, TypeError):
        msg = "not a JWK set"
        raise JwksInvalid(msg) from None
    if not isinstance(listed, list) or len(listed) > _KEYS_MAX:
        msg = f"not a list of at most {_KEYS_MAX} keys"
        raise JwksInvalid(msg)
    keys: dict[str, jwt.PyJWK] = {}
    for each in listed:
        key = _usable(each)
        if key is None:
            continue
        if each["kid"] in keys:
            msg = "a kid stands twice"
            raise JwksInvalid(msg)
        keys[each["kid"]] = key
    if not keys:
        msg = "no usable key"
        raise JwksInvalid(msg)
    return keys


def _usable(each: object) -> jwt.PyJWK | None:
    if not isinstance(each, dict) or not isinstance(each.get("kid"), str):
        return None
    algorithm = _KINDS.get((str(each.get("kty")), each.get("crv")))
    if algorithm is None or each.get("alg", algorithm) != algorithm:
        return None
    if each.get("use", "sig") != "sig" or "d" in each:
        return None
    try:
        key = jwt.PyJWK(each, algorithm)
    except jwt.PyJWTError:
        return None
    if isinstance(key.key, RSAPublicKey) and key.key.key_size < _RSA_BITS_MIN:
        return None
    return key


@dataclass(slots=True)
class Users:
    """Verifies tokens by the newest good key set."""

    settings: UserSettings
    keys: Mapping[str, jwt.PyJWK]
    clock: Callable[[], float] = time.time
    _memo: dict[bytes, User] = field(default_factory=dict)

    async def verify(self, token: str, *, tenant: str, thumbprint: bytes) -> User:
        """Believe a token, or refuse.

        Args:
            token: As it stood behind `Bearer `.
            tenant: Of the certificate that carries it.
            thumbprint: SHA-256 of that certificate: 32 bytes.

        Raises:
            Refusal: UNAUTHENTICATED, for whatever is wrong with it.

        Cost: 2 us for one that is remembered, 60 to 150 us for a new one.
        """
        if len(token) > self.settings.token_bytes_max or not token.isascii():
            raise Refusal(Reason.UNAUTHENTICATED)
        name = hashlib.sha256(b"\0".join((token.encode(), tenant.encode(), thumbprint))).digest()
        known = self._memo.get(name)
        if known is None or known.ends_s <= self.clock():
            known = self._verified(token, tenant, thumbprint)
            self._remember(name, known)
        return known

    def replace_keys(self, keys: Mapping[str, jwt.PyJWK]) -> None:
        """Take another key set; what the old one vouched for is forgotten."""
        self.keys = keys
        self._memo.clear()

    def _remember(self, name: bytes, user: User) -> None:
        if len(self._memo) >= self.settings.memo_max:
            self._memo.clear()
        self._memo[name] = user

    def _verified(self, token: str, tenant: str, thumbprint: bytes) -> User:
        try:
            claims = self._claims(token)
        except (jwt.PyJWTError, UnicodeError):
            counted("users.tokens_refused")
            raise Refusal(Reason.UNAUTHENTICATED) from None
        subject, roles = claims.get("sub"), claims.get(self.settings.roles_claim, [])
        if (
            claims.get(self.settings.tenant_claim) != tenant
            or not _bound(claims.get("cnf"), thumbprint)
            or not isinstance(subject, str)
            or not _SUBJECT.fullmatch(subject)
            or not isinstance(roles, list)
            or len(roles) > _ROLES_MAX
            or not all(isinstance(role, str) for role in roles)
        ):
            counted("users.tokens_refused")
            raise Refusal(Reason.UNAUTHENTICATED)
        return User(subject, frozenset(roles), float(claims["exp"]))

    def _claims(self, token: str) -> dict[str, Any]:
        """Steps 1 to 3."""
        header = jwt.get_unverified_header(token)
        key = self.keys.get(header.get("kid", ""))
        if key is None or header.get("alg") not in ALGORITHMS:
            raise jwt.InvalidTokenError
        return jwt.decode(
            token,
            key,
            algorithms=[key.algorithm_name],
            issuer=self.settings.issuer,
            audience=self.settings.audience,
            leeway=self.settings.leeway_s,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )


def _bound(cnf: object, thumbprint: bytes) -> bool:
    """Step 5."""
    if cnf is None:
        return True
    if not isinstance(cnf, dict) or not isinstance(cnf.get("x5t#S256"), str):
        return False
    mine = base64.urlsafe_b64encode(thumbprint).rstrip(b"=").decode()
    return cnf["x5t#S256"].isascii() and compare_digest(cnf["x5t#S256"], mine)


# --- where the keys come from ---------------------------------------------------------------


@asynccontextmanager
async def users(settings: UserSettings) -> AsyncIterator[Users | None]:
    """Own the key set, kept fresh for as long as the block runs; None if there are no users.

    Raises:
        JwksInvalid, OSError, httpx2.HTTPError: there is no good set to start with.
    """
    if not settings.issuer:
        yield None
        return
    verifier = Users(settings, parse_jwks(await _fetched(settings)))
    async with running(_kept_fresh(verifier), "jwks"):
        yield verifier


async def _kept_fresh(verifier: Users) -> None:
    """Look for another key set now and then; a bad one keeps the old, and is counted."""
    newest = b""
    while True:
        await asyncio.sleep(verifier.settings.jwks_every_s)
        try:
            raw = await _fetched(verifier.settings)
            if raw != newest:
                verifier.replace_keys(parse_jwks(raw))
                newest = raw
        except (JwksInvalid, OSError, httpx2.HTTPError) as error:
            counted("users.jwks_refused")
            log.warning("users.jwks_kept", kind=type(error).__name__)


async def _fetched(settings: UserSettings) -> bytes:
    if settings.jwks_file is not None:
        raw = await asyncio.to_thread(_read, settings.jwks_file, settings.jwks_bytes_max)
    else:
        raw = await _downloaded(settings)
    if len(raw) > settings.jwks_bytes_max:
        msg = f"longer than {settings.jwks_bytes_max} bytes"
        raise JwksInvalid(msg)
    return raw


def _read(path: Path, bytes_max: int) -> bytes:
    with path.open("rb") as file:
        return file.read(bytes_max + 1)


async def _downloaded(settings: UserSettings) -> bytes:
    """Get the set over https, without redirects, no more of it than allowed."""
    ca = str(settings.jwks_ca_file) if settings.jwks_ca_file else None
    context = ssl.create_default_context(cafile=ca)
    raw = bytearray()
    async with (
        httpx2.AsyncClient(verify=context, timeout=_FETCH_MS / 1_000, trust_env=False) as client,
        client.stream("GET", settings.jwks_url) as reply,
    ):
        reply.raise_for_status()
        async for chunk in reply.aiter_bytes():
            raw += chunk
            if len(raw) > settings.jwks_bytes_max:
                break
    return bytes(raw)
