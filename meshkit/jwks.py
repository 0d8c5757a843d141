"""JSON Web Tokens by a set of public keys: which are believed, and where the keys come from.

    1. header `alg` is on the allow-list, and `kid` names a key of the set
    2. the key's own algorithm is used, never the header's choice: RS256 (2,048 bits or more), ES256
       (P-256), EdDSA (Ed25519). `none` and shared secrets do not exist here
    3. signature; `iss`, `aud`, `exp`, and `nbf` where present, with a leeway

The gateway believes users by it, and the audit console people who sign in.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from meshkit.https import https_client

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["ALGORITHMS", "JwksInvalid", "downloaded", "parse_jwks", "verified_claims"]

ALGORITHMS = frozenset({"RS256", "ES256", "EdDSA"})
_KINDS = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}
_RSA_BITS_MIN = 2_048
_KEYS_MAX = 64
_FETCH_MS = 5_000
WHOLE_MS = 10_000
"""Of an answer as a whole; the other limit is between two pieces of it."""


class JwksInvalid(ValueError):  # noqa: N818 -- an answer about somebody's file
    """A key set cannot be used. Says why in constants."""


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


def verified_claims(
    token: str,
    keys: Mapping[str, jwt.PyJWK],
    *,
    issuer: str,
    audience: str,
    leeway_s: float,
) -> dict[str, Any]:
    """Return a token's claims once steps 1 to 3 hold; `exp`, `iss`, `aud` and `sub` are there.

    Raises:
        jwt.PyJWTError, UnicodeError: it is not believed.
    """
    header = jwt.get_unverified_header(token)
    key = keys.get(header.get("kid", ""))
    if key is None or header.get("alg") not in ALGORITHMS:
        raise jwt.InvalidTokenError
    try:
        claims = jwt.decode(
            token,
            key,
            algorithms=[key.algorithm_name],
            issuer=issuer,
            audience=audience,
            leeway=leeway_s,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )
    except OverflowError:  # JSON's Infinity for a time
        raise jwt.InvalidTokenError from None
    # PyJWT takes a number in quotes for one, and callers reckon with it.
    if isinstance(claims["exp"], bool) or not isinstance(claims["exp"], int | float):
        raise jwt.InvalidTokenError
    return claims


async def downloaded(url: str, ca_file: Path | None, bytes_max: int) -> bytes:
    """Get a document over https, without redirects; at most a chunk more than allowed.

    However slowly it comes, it takes no longer than `WHOLE_MS`.

    Raises:
        OSError, httpx2.HTTPError: it cannot be had.
    """
    raw = bytearray()
    async with (
        asyncio.timeout(WHOLE_MS / 1_000),
        https_client(ca_file, timeout_s=_FETCH_MS / 1_000) as client,
        client.stream("GET", url) as reply,
    ):
        reply.raise_for_status()
        async for chunk in reply.aiter_bytes():
            raw += chunk
            if len(raw) > bytes_max:
                break
    return bytes(raw)
