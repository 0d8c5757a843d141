"""Answers as sealed bytes, and back. What lies in any tier was sealed here first.

The key an answer is kept under is bound into the seal, so a value moved to another key, be it in
the memory of Redis or by a slip of ours, does not open.
"""

from __future__ import annotations

import json
import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from meshkit.contract import CachedAnswer, Direction, FindingCount, FinishReason, Usage, Verdict

if TYPE_CHECKING:
    from meshkit.contract import Ended, Released

__all__ = ["PURPOSE", "Sealer", "decoded", "encoded", "open_value", "seal_value"]

PURPOSE = "cache"
_AAD = b"sealgate/cache/value/v1\0"
_HEAD = struct.Struct(">BIII")
_REASONS = tuple(FinishReason)
_VERDICTS_MAX = 1_024


class Sealer(Protocol):
    """Authenticated encryption under keys of the tenant; `meshkit.envelope.Keyring` is one.

    The try_ pair answers at once if the key is at hand, and None if it must be fetched.
    """

    def try_seal(self, *, tenant: str, purpose: str, plaintext: bytes, aad: bytes) -> bytes | None:
        """Seal now, or None."""
        ...

    def try_open(self, *, tenant: str, purpose: str, sealed: bytes, aad: bytes) -> bytes | None:
        """Open now, or None. Raises Refusal if the value is not what was sealed."""
        ...

    async def seal(self, *, tenant: str, purpose: str, plaintext: bytes, aad: bytes) -> bytes:
        """Seal. Raises Refusal or OSError if there is no key."""
        ...

    async def open(self, *, tenant: str, purpose: str, sealed: bytes, aad: bytes) -> bytes:
        """Open. Raises as `seal` does, and Refusal if the value is not what was sealed."""
        ...


async def seal_value(sealer: Sealer, tenant: str, key: bytes, plaintext: bytes) -> bytes:
    """Seal a value for its key. Raises as `Sealer.seal` does."""
    aad = _AAD + key
    sealed = sealer.try_seal(tenant=tenant, purpose=PURPOSE, plaintext=plaintext, aad=aad)
    if sealed is not None:
        return sealed
    return await sealer.seal(tenant=tenant, purpose=PURPOSE, plaintext=plaintext, aad=aad)


async def open_value(sealer: Sealer, tenant: str, key: bytes, sealed: bytes) -> bytes:
    """Open the value of a key. Raises as `Sealer.open` does."""
    aad = _AAD + key
    opened = sealer.try_open(tenant=tenant, purpose=PURPOSE, sealed=sealed, aad=aad)
    if opened is not None:
        return opened
    return await sealer.open(tenant=tenant, purpose=PURPOSE, sealed=sealed, aad=aad)


def encoded(answer: Released, ended: Ended) -> bytes:
    """Write an answer down. Only ever read by `decoded` of the same release.

    finish reason, prompt and completion tokens, length of the verdict (u8, u32, u32, u32, all
    big-endian), the verdict as JSON, the text; both in UTF-8.
    """
    verdict = _verdict_bytes(answer.verdict)
    usage = ended.usage
    reason = _REASONS.index(ended.finish_reason)
    head = _HEAD.pack(reason, usage.prompt_tokens, usage.completion_tokens, len(verdict))
    return b"".join((head, verdict, answer.text.encode()))


def decoded(plaintext: bytes, *, tier: str) -> CachedAnswer:
    """Read what `encoded` wrote. Raises ValueError if it did not."""
    try:
        reason, prompt, completion, length = _HEAD.unpack_from(plaintext)
        text_at = _HEAD.size + length
        return CachedAnswer(
            text=plaintext[text_at:].decode(),
            finish_reason=_REASONS[reason],
            usage=Usage(prompt_tokens=prompt, completion_tokens=completion),
            verdict=_verdict(plaintext[_HEAD.size : text_at]),
            tier=tier,
        )
    except (struct.error, IndexError, KeyError, TypeError) as error:
        msg = "not a cached answer"
        raise ValueError(msg) from error


def _verdict_bytes(verdict: Verdict) -> bytes:
    counts = [[c.direction, c.type, c.subtype, c.action, c.count] for c in verdict.counts]
    return json.dumps([verdict.policy_digest.hex(), counts], separators=(",", ":")).encode()


@lru_cache(maxsize=_VERDICTS_MAX)
def _verdict(raw: bytes) -> Verdict:
    """Few verdicts differ, and they hold no text: reading each once saves half of `decoded`."""
    policy, counts = json.loads(raw)
    return Verdict(
        counts=tuple(
            FindingCount(
                direction=Direction(direction),
                type=type_,
                subtype=subtype,
                action=action,
                count=count,
            )
            for direction, type_, subtype, action, count in counts
        ),
        policy_digest=bytes.fromhex(policy),
    )
