r"""The name an answer is kept under: a keyed hash of all that the answer depends on. PURE.

HMAC-SHA-256 under a secret of the cache, so that nobody who sees keys can try prompts, over

    "sealgate/cache/v2\0"
    then for each of: tenant, principal, subject, policy digest, model digest, max_tokens,
        temperature and top_p (big-endian uint64 and doubles), seed (decimal digits, empty if there
        is none), number of stop sequences (uint64), each stop sequence, `prompt_bytes` of the
        screened prompt:
        its length in bytes, big-endian uint32, and the bytes (strings in UTF-8)

Every field is preceded by its length and `prompt_bytes` is injective, so two questions share a key
only if they are equal in all of these, but for a collision of HMAC-SHA-256.
"""

from __future__ import annotations

import hashlib
import struct
from functools import lru_cache
from typing import TYPE_CHECKING

from meshkit.contract import prompt_bytes

if TYPE_CHECKING:
    from meshkit.contract import Question

__all__ = ["KEY_BYTES", "cache_key", "tag_of", "tags_of"]

KEY_BYTES = 32
_BLOCK_BYTES = 64
_DOMAIN = b"sealgate/cache/v2\0"
_NUMBERS = struct.Struct(">QddQ")


def cache_key(secret: bytes, question: Question) -> bytes:
    """Compute the key of a question: 32 bytes. Cost: about 5 us.

    Args:
        secret: 32 to 64 random bytes; caches that share entries share it.
        question: its call id, trace and session play no part.
    """
    scope, asked, parameters = question.scope, question.screened, question.parameters
    fields = (
        scope.tenant.encode(),
        scope.principal.encode(),
        scope.subject.encode(),
        asked.verdict.policy_digest,
        question.model_digest,
        _NUMBERS.pack(
            parameters.max_tokens, parameters.temperature, parameters.top_p, len(parameters.stop)
        ),
        b"" if parameters.seed is None else str(parameters.seed).encode(),
        *(stop.encode() for stop in parameters.stop),
        prompt_bytes(asked.messages),
    )
    parts = [_DOMAIN]
    for field in fields:
        parts += (len(field).to_bytes(4), field)
    inner, outer = _states(secret)
    asked_inner, asked_outer = inner.copy(), outer.copy()
    asked_inner.update(b"".join(parts))
    asked_outer.update(asked_inner.digest())
    return asked_outer.digest()


def tag_of(*, session: str = "", model_digest: bytes = b"", subject: str = "") -> str:
    """Return what entries that bear the one given are known by; no text if none is given.

    Raises:
        ValueError: more than one is given.
    """
    tags = _tags(session, model_digest, subject)
    if len(tags) > 1:
        msg = "purge by one of session, model and subject"
        raise ValueError(msg)
    return tags[0] if tags else ""


def tags_of(question: Question) -> tuple[str, ...]:
    """Return what an answer to this question can be purged by."""
    scope = question.scope
    return _tags(scope.session, question.model_digest, scope.subject)


def _tags(session: str, model_digest: bytes, subject: str) -> tuple[str, ...]:
    pairs = (("session", session), ("model", model_digest.hex()), ("subject", subject))
    return tuple(f"{kind}:{name}" for kind, name in pairs if name)


@lru_cache(maxsize=8)
def _states(secret: bytes) -> tuple[hashlib._Hash, hashlib._Hash]:
    """HMAC's two hashes after the padded key: half of what a short HMAC costs.

    Source: RFC 2104, section 4.
    """
    padded = secret.ljust(_BLOCK_BYTES, b"\0")
    inner, outer = (bytes(byte ^ pad for byte in padded) for pad in (0x36, 0x5C))
    return hashlib.sha256(inner), hashlib.sha256(outer)
