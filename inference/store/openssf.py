"""A publisher's signature in the format of OpenSSF model-signing, made with a key. PURE.

    bundle    {"dsseEnvelope": {"payload": base64, "payloadType": …, "signatures": [{"sig": …}]}}
    signed    "DSSEv1 ", length of the type, type, length of the payload, payload, a space between
    payload   an in-toto statement whose predicate lists each file's name and SHA-256

Only what `model_signing sign key` makes is understood: ECDSA over P-256, P-384 or P-521, whole
files, SHA-256. Signatures by certificate or by Sigstore's identities need that tool itself.

Sources: https://github.com/ossf/model-signing-spec, "v1.0"; DSSE v1.0.0, "PAE".
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from inference.store.errors import Fault, ModelFileError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from inference.store.manifest import FileDigest

__all__ = ["Published"]

_TYPE = "application/vnd.in-toto+json"
_PREDICATE = "https://model_signing/signature/v1.0"
_HASHES: dict[int, hashes.HashAlgorithm] = {
    256: hashes.SHA256(),
    384: hashes.SHA384(),
    521: hashes.SHA512(),
}
_BROKEN = (KeyError, TypeError, ValueError, RecursionError, InvalidSignature, UnsupportedAlgorithm)


@dataclass(frozen=True, slots=True)
class Published:
    """What came with a model from its publisher: a signature's file, and the key we trust."""

    bundle: bytes
    public_key_pem: bytes

    def must_cover(self, files: Iterable[FileDigest]) -> None:
        """Hold the signature against all of a model's files: these and no others.

        Raises:
            ModelFileError: PUBLISHER.
        """
        try:
            listed = _listed(self._payload())
        except _BROKEN:
            raise ModelFileError(Fault.PUBLISHER) from None
        if listed != {file.path: file.sha256 for file in files}:
            raise ModelFileError(Fault.PUBLISHER)

    def _payload(self) -> bytes:
        """Return what was signed, once the signature holds."""
        envelope = json.loads(self.bundle)["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        (signature,) = envelope["signatures"]
        key = load_pem_public_key(self.public_key_pem)
        if not isinstance(key, ec.EllipticCurvePublicKey) or envelope["payloadType"] != _TYPE:
            raise ValueError
        signed = f"DSSEv1 {len(_TYPE)} {_TYPE} {len(payload)} ".encode() + payload
        value = base64.b64decode(signature["sig"], validate=True)
        key.verify(value, signed, ec.ECDSA(_HASHES[key.curve.key_size]))
        return payload


def _listed(payload: bytes) -> dict[str, str]:
    """Return SHA-256 by name. Raises KeyError, TypeError, ValueError: it lists something else."""
    told: dict[str, Any] = json.loads(payload)
    predicate = told["predicate"]
    how = predicate["serialization"]
    resources = predicate["resources"]
    listed = {one["name"]: one["digest"] for one in resources}
    understood = (
        told["predicateType"] == _PREDICATE
        and (how["method"], how["hash_type"]) == ("files", "sha256")
        and all(one["algorithm"] == "sha256" for one in resources)
        and len(listed) == len(resources)
    )
    if not understood:
        raise ValueError
    return listed
