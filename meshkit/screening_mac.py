r"""Compliance's seal on a text: proof for cache and inference that it was screened. PURE.

The tag is HMAC-SHA-256 under a key that only compliance and the services it vouches to hold, over

    "sealgate/screening/v1\0"
    then for each of: stage, SHA-256 of the text, policy digest, tenant, call id
        its length in bytes, big-endian uint32, and the bytes (strings in UTF-8)

The text's digest is SHA-256 over `meshkit.contract.prompt_bytes` (stage SCREENED) or
`answer_bytes` (stage RELEASED). Each field is preceded by its length, so no two field lists give
the same bytes; stage and call id stand in it, so a tag cannot be used for another stage or call.
Keys rotate daily: a holder knows two versions and tags with the newer.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import TYPE_CHECKING

from meshkit.contract import Released, Scope, Screened, Stage, answer_bytes, prompt_bytes
from meshkit.mac import hmac_sha256

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meshkit.contract import Message

__all__ = [
    "KEY_BYTES_MIN",
    "MAC_BYTES",
    "MacKeys",
    "Verify",
    "digest_of_answer",
    "digest_of_prompt",
    "mac_verifier",
    "tag",
]

Verify = Callable[[Scope, Screened | Released], bool]
"""Whether compliance vouches for this text in this call."""

KEY_BYTES_MIN = 32
MAC_BYTES = 32
_DOMAIN = b"sealgate/screening/v1\0"


def tag(
    key: bytes,
    *,
    stage: Stage,
    text_digest: bytes,
    policy_digest: bytes,
    tenant: str,
    call_id: bytes,
) -> bytes:
    """Compute the 32-byte tag. Cost: about 2 us."""
    fields = (stage.encode(), text_digest, policy_digest, tenant.encode(), call_id)
    parts = [_DOMAIN]
    for field in fields:
        parts += (len(field).to_bytes(4), field)
    return hmac_sha256(key, b"".join(parts))


def digest_of_prompt(messages: Sequence[Message]) -> bytes:
    """SHA-256 of a screened prompt, as `tag` wants it: 32 bytes."""
    return hashlib.sha256(prompt_bytes(messages)).digest()


def digest_of_answer(text: str) -> bytes:
    """SHA-256 of a released answer, as `tag` wants it: 32 bytes."""
    return hashlib.sha256(answer_bytes(text)).digest()


class MacKeys:
    """The key versions a service accepts, and the one it tags with.

    Args:
        keys: version -> key; each key at least 32 bytes.
        current: the version that `tag` uses; one of `keys`.

    Raises:
        ValueError: `current` is not among `keys`, or a key is too short.
    """

    def __init__(self, keys: Mapping[int, bytes], current: int) -> None:
        if current not in keys:
            msg = f"screening key version {current} is not at hand"
            raise ValueError(msg)
        if any(len(key) < KEY_BYTES_MIN for key in keys.values()):
            msg = f"a screening key is shorter than {KEY_BYTES_MIN} bytes"
            raise ValueError(msg)
        self._keys = dict(keys)
        self._current = current

    def __repr__(self) -> str:
        return f"MacKeys(versions={sorted(self._keys)}, current={self._current})"

    def current(self) -> tuple[int, bytes]:
        """Return version and key that new tags are made with."""
        return self._current, self._keys[self._current]

    def tag(
        self,
        *,
        stage: Stage,
        text_digest: bytes,
        policy_digest: bytes,
        tenant: str,
        call_id: bytes,
    ) -> tuple[int, bytes]:
        """Tag with the current key; return its version and the 32-byte tag."""
        version, key = self.current()
        return version, tag(
            key,
            stage=stage,
            text_digest=text_digest,
            policy_digest=policy_digest,
            tenant=tenant,
            call_id=call_id,
        )

    def verify(
        self,
        version: int,
        mac: bytes,
        *,
        stage: Stage,
        text_digest: bytes,
        policy_digest: bytes,
        tenant: str,
        call_id: bytes,
    ) -> bool:
        """Whether `mac` is the tag of these fields under key `version`; constant time.

        A tag is a stranger's claim: an unknown version or a wrong length is `False`.
        """
        key = self._keys.get(version)
        if key is None:
            return False
        want = tag(
            key,
            stage=stage,
            text_digest=text_digest,
            policy_digest=policy_digest,
            tenant=tenant,
            call_id=call_id,
        )
        return hmac.compare_digest(want, mac)


def mac_verifier(keys: Callable[[], MacKeys]) -> Verify:
    """Verify a text's own tag against whatever keys are valid at the time: they rotate daily."""

    def verify(scope: Scope, text: Screened | Released) -> bool:
        if isinstance(text, Screened):
            stage, digest = Stage.SCREENED, digest_of_prompt(text.messages)
        else:
            stage, digest = Stage.RELEASED, digest_of_answer(text.text)
        return keys().verify(
            text.mac_key_version,
            text.mac,
            stage=stage,
            text_digest=digest,
            policy_digest=text.verdict.policy_digest,
            tenant=scope.tenant,
            call_id=scope.call_id,
        )

    return verify
