"""HMAC (RFC 2104) of short texts, in two plain hashes. PURE.

The same bytes as `hmac.digest`, at two thirds of its price: OpenSSL looks the algorithm up anew for
every HMAC, but not for a hash. A governed call makes a dozen.
"""

from __future__ import annotations

from hashlib import sha256, sha512

__all__ = ["hmac_sha256", "hmac_sha512"]

_INNER, _OUTER = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))
_BLOCK_256, _BLOCK_512 = 64, 128


def hmac_sha256(key: bytes, text: bytes) -> bytes:
    """HMAC-SHA-256, 32 bytes. Cost: 1 us for 200 bytes."""
    if len(key) > _BLOCK_256:
        key = sha256(key).digest()
    padded = key.ljust(_BLOCK_256, b"\0")
    inner = sha256(padded.translate(_INNER) + text).digest()
    return sha256(padded.translate(_OUTER) + inner).digest()


def hmac_sha512(key: bytes, text: bytes) -> bytes:
    """HMAC-SHA-512, 64 bytes. Cost: 1.7 us for 200 bytes."""
    if len(key) > _BLOCK_512:
        key = sha512(key).digest()
    padded = key.ljust(_BLOCK_512, b"\0")
    inner = sha512(padded.translate(_INNER) + text).digest()
    return sha512(padded.translate(_OUTER) + inner).digest()
