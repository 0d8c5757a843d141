r"""Whose word a model is: an Ed25519 signature over its manifest. PURE.

    signed    = "sealgate/model-signature/v1\n" ‖ canonical form of the manifest
    signature = Ed25519 (RFC 8032, pure), by a version of OpenBao's transit key `model-signing`

The manifest pins every file by size and SHA-256, so the signature covers all of them. The words
before it keep a signature made for anything else under that key from passing for a model's.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from inference.store.errors import Fault, ModelFileError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inference.store.manifest import Manifest

__all__ = ["SCHEMA", "SIGNING_KEY", "ModelSignature", "must_be_signed", "to_be_signed"]

SIGNING_KEY = "model-signing"
"""In OpenBao's transit."""
SCHEMA = "sealgate/model-signature/v1"


@dataclass(frozen=True, slots=True)
class ModelSignature:
    """A signature, and the version of the key that made it."""

    version: int
    value: bytes = field(repr=False)

    def text(self) -> bytes:
        """Return what is kept beside the manifest, as JSON."""
        told = {
            "schema": SCHEMA,
            "key": SIGNING_KEY,
            "version": self.version,
            "signature": base64.b64encode(self.value).decode(),
        }
        return json.dumps(told, sort_keys=True).encode() + b"\n"

    @classmethod
    def parse(cls, text: bytes) -> ModelSignature:
        """Read it again. Raises ModelFileError: SIGNATURE."""
        try:
            told = json.loads(text)
            made_by = (told["schema"], told["key"], type(told["version"]))
            value = base64.b64decode(told["signature"], validate=True)
        except (KeyError, TypeError, ValueError, RecursionError):
            raise ModelFileError(Fault.SIGNATURE) from None
        if made_by != (SCHEMA, SIGNING_KEY, int):
            raise ModelFileError(Fault.SIGNATURE)
        return cls(told["version"], value)


def to_be_signed(manifest: Manifest) -> bytes:
    """Return the bytes that a signature is over."""
    return f"{SCHEMA}\n".encode() + manifest.canonical()


def must_be_signed(
    manifest: Manifest, signature: ModelSignature | None, keys: Mapping[int, bytes]
) -> None:
    """Hold a signature against the manifest.

    Args:
        manifest: The model's.
        signature: What lies beside it.
        keys: Public halves of the signing key, 32 bytes each, by version: whom we believe.

    Raises:
        ModelFileError: UNSIGNED, or SIGNATURE: another key's, or the manifest is not what was
            signed.
    """
    if signature is None:
        raise ModelFileError(Fault.UNSIGNED)
    key = keys.get(signature.version)
    if key is None:
        raise ModelFileError(Fault.SIGNATURE)
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature.value, to_be_signed(manifest))
    except (InvalidSignature, ValueError):
        raise ModelFileError(Fault.SIGNATURE) from None
