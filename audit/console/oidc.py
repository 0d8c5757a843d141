"""Signing in at an OpenID provider: authorization code flow with PKCE. Nothing is believed unread.

    1. `begin`: discovery (its `issuer` must be ours to the letter, its addresses https), then a
       state, a nonce and a PKCE verifier, kept here under a handle that only this browser has
    2. the browser goes to the provider, and comes back with `state` and `code`
    3. `finish`: the handle is good once; `state` equals; `iss`, where present, is the provider (RFC
       9207); the code is exchanged with the verifier, by us, over TLS
    4. the ID token: `meshkit.jwks` (allow-list, signature, `iss`, `aud`, `exp`), `nonce` equals,
       `azp` is us where present or where there are several audiences, `iat` is there, `sub` is
       1 to 256 visible ASCII characters

Keys are read again, once, for a `kid` that is not known. No token is kept; none is ever logged.

Source: OpenID Connect Core 1.0, 3.1; RFC 7636; RFC 9700.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import secrets
import time
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import httpx2
import jwt

from meshkit.contract import Reason, Refusal
from meshkit.https import https_client
from meshkit.jwks import JwksInvalid, downloaded, parse_jwks, verified_claims

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from audit.console.settings import OidcSettings

__all__ = ["Oidc", "Person", "ProviderDownError"]

_HANDLE_BYTES = 32
_TIMEOUT_S = 10
"""Of the exchange as a whole, and between two pieces of its answer."""
_ROLES_MAX = 32
_SUBJECT = re.compile(r"[\x21-\x7e]{1,256}")
_ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")


class ProviderDownError(Exception):
    """The provider cannot be asked. Says nothing, since what came from it may hold anything."""


@dataclass(frozen=True, slots=True)
class Person:
    """Whom the provider vouches for; roles and tenant are claimed, not yet allowed."""

    subject: str
    tenant: object
    roles: frozenset[str]
    ends_s: float


@dataclass(frozen=True, slots=True)
class _Leaving:
    """Somebody who left for the provider."""

    state: str
    nonce: str
    verifier: str
    back_to: str
    until_s: float


@dataclass(frozen=True, slots=True)
class _Provider:
    """What discovery said, and the keys."""

    endpoints: Mapping[str, str]
    keys: Mapping[str, jwt.PyJWK]
    until_s: float


class Oidc:
    """One provider. `redirect_url` is where it sends browsers back to."""

    def __init__(
        self,
        settings: OidcSettings,
        redirect_url: Callable[[], str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._redirect_url = redirect_url
        self._clock = clock
        self._leaving: dict[str, _Leaving] = {}
        self._provider: _Provider | None = None

    async def begin(self, back_to: str) -> tuple[str, str]:
        """Step 1. Return a handle for the browser's cookie, and where to send it.

        Args:
            back_to: A path of ours, shown once signed in.

        Raises:
            ProviderDownError: it cannot be asked, or what it says cannot be used.
        """
        provider = await self._known()
        leaving = _Leaving(
            state=secrets.token_urlsafe(_HANDLE_BYTES),
            nonce=secrets.token_urlsafe(_HANDLE_BYTES),
            verifier=secrets.token_urlsafe(_HANDLE_BYTES),
            back_to=back_to,
            until_s=self._clock() + self._settings.login_life_s,
        )
        while len(self._leaving) >= self._settings.logins_max:
            self._leaving.pop(next(iter(self._leaving)))
        handle = secrets.token_urlsafe(_HANDLE_BYTES)
        self._leaving[handle] = leaving
        return handle, self._address(provider.endpoints["authorization_endpoint"], leaving)

    def _address(self, endpoint: str, leaving: _Leaving) -> str:
        challenge = base64.urlsafe_b64encode(sha256(leaving.verifier.encode()).digest())
        asked = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": self._redirect_url(),
            "scope": self._settings.scopes,
            "state": leaving.state,
            "nonce": leaving.nonce,
            "code_challenge": challenge.rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(asked)}"

    async def finish(self, handle: str, answer: Mapping[str, str]) -> tuple[Person, str]:
        """Steps 3 and 4. Return who it is, and the path to show.

        Args:
            handle: Of the browser's cookie.
            answer: The query that the browser came back with.

        Raises:
            Refusal: UNAUTHENTICATED, for whatever is wrong.
            ProviderDownError: it cannot be asked.
        """
        leaving = self._leaving.pop(handle, None)
        if (
            leaving is None
            or leaving.until_s < self._clock()
            or not compare_digest(leaving.state.encode(), answer.get("state", "").encode())
            or answer.get("iss", self._settings.issuer) != self._settings.issuer
            or not answer.get("code")
        ):
            raise Refusal(Reason.UNAUTHENTICATED)
        token = await self._exchanged(answer["code"], leaving.verifier)
        return self._person(await self._claims(token), leaving.nonce), leaving.back_to

    # --- the provider -----------------------------------------------------------------------

    async def _known(self, *, anew: bool = False) -> _Provider:
        if anew or self._provider is None or self._provider.until_s < self._clock():
            try:
                self._provider = await self._discovered()
            except (OSError, ValueError, KeyError, TypeError, httpx2.HTTPError):
                # JwksInvalid is a ValueError. What the provider said may hold anything.
                raise ProviderDownError from None
        return self._provider

    async def _discovered(self) -> _Provider:
        issuer = self._settings.issuer
        told = json.loads(
            await self._document(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        )
        endpoints = {name: str(told[name]) for name in _ENDPOINTS}
        if told["issuer"] != issuer:
            msg = "discovery names another issuer"
            raise ValueError(msg)
        if not all(address.startswith("https://") for address in endpoints.values()):
            msg = "discovery names an address without TLS"
            raise ValueError(msg)
        keys = parse_jwks(await self._document(endpoints["jwks_uri"]))
        return _Provider(endpoints, keys, self._clock() + self._settings.metadata_life_s)

    async def _document(self, url: str) -> bytes:
        raw = await downloaded(url, self._settings.ca_file, self._settings.reply_bytes_max)
        if len(raw) > self._settings.reply_bytes_max:
            msg = "the provider says too much"
            raise JwksInvalid(msg)
        return raw

    async def _exchanged(self, code: str, verifier: str) -> str:
        """Give the code for an ID token, as the client that we are."""
        settings = self._settings
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_url(),
            "client_id": settings.client_id,
            "code_verifier": verifier,
        }
        provider = await self._known()
        raw = bytearray()
        try:
            async with (
                asyncio.timeout(_TIMEOUT_S),
                https_client(settings.ca_file, timeout_s=_TIMEOUT_S) as client,
                client.stream(
                    "POST",
                    provider.endpoints["token_endpoint"],
                    data=form,
                    headers=self._credentials(),
                ) as reply,
            ):
                async for chunk in reply.aiter_bytes():
                    raw += chunk
                    if len(raw) > settings.reply_bytes_max:
                        break
        except (OSError, httpx2.HTTPError):
            raise ProviderDownError from None
        return self._id_token(bytes(raw), good=reply.is_success)

    def _credentials(self) -> dict[str, str]:
        """Say who we are, by `client_secret_basic`: RFC 6749, 2.3.1."""
        file = self._settings.client_secret_file
        if file is None:
            return {}
        pair = f"{quote(self._settings.client_id)}:{quote(file.read_text().strip())}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}

    def _id_token(self, raw: bytes, *, good: bool) -> str:
        try:
            token = json.loads(raw)["id_token"]
        except (ValueError, KeyError, TypeError):
            raise Refusal(Reason.UNAUTHENTICATED) from None
        if not (good and isinstance(token, str) and token.isascii()):
            raise Refusal(Reason.UNAUTHENTICATED)
        return token

    # --- the ID token -----------------------------------------------------------------------

    async def _claims(self, token: str) -> dict[str, Any]:
        provider = await self._known()
        try:
            if jwt.get_unverified_header(token).get("kid") not in provider.keys:
                provider = await self._known(anew=True)
            return verified_claims(
                token,
                provider.keys,
                issuer=self._settings.issuer,
                audience=self._settings.client_id,
                leeway_s=self._settings.leeway_s,
            )
        except (jwt.PyJWTError, UnicodeError):
            raise Refusal(Reason.UNAUTHENTICATED) from None

    def _person(self, claims: dict[str, Any], nonce: str) -> Person:
        """Step 4, behind the signature."""
        subject, audience = claims["sub"], claims["aud"]
        several = isinstance(audience, list) and len(audience) > 1
        party = claims.get("azp", "" if several else self._settings.client_id)
        roles = claims.get(self._settings.roles_claim, [])
        if (
            not compare_digest(
                nonce.encode(), str(claims.get("nonce", "")).encode(errors="replace")
            )
            or party != self._settings.client_id
            or not isinstance(claims.get("iat"), int | float)
            or not isinstance(subject, str)
            or not _SUBJECT.fullmatch(subject)
            or not isinstance(roles, list)
            or len(roles) > _ROLES_MAX
            or not all(isinstance(role, str) for role in roles)
        ):
            raise Refusal(Reason.UNAUTHENTICATED)
        return Person(
            subject, claims.get(self._settings.tenant_claim), frozenset(roles), claims["exp"]
        )
