"""Makes receipts: an Ed25519 key of this run alone, endorsed by the log's checkpoint keys."""

from __future__ import annotations

from base64 import b64encode
from functools import partial
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.log.signer import signed_by
from meshkit.contract import Receipt
from meshkit.tlog import endorsement_text, receipt_bytes

if TYPE_CHECKING:
    from audit.log.signer import CheckpointSigner
    from meshkit.contract import Commitment, Event

__all__ = ["ReceiptMaker"]

_NONE = b""


class ReceiptMaker:
    """Signs receipts; about 50 µs each, most of it Ed25519."""

    def __init__(self, origin: str, key: Ed25519PrivateKey, endorsement: bytes) -> None:
        self._origin = origin
        self._key = key
        self._public = key.public_key().public_bytes_raw()
        self._endorsement = endorsement

    @classmethod
    async def start(cls, signer: CheckpointSigner) -> ReceiptMaker:
        """Make a key and have it endorsed.

        Raises:
            Refusal: KEYS_DOWN.
        """
        maker = cls(signer.known.name, Ed25519PrivateKey.generate(), _NONE)
        await maker.endorse(signer)
        return maker

    async def endorse(self, signer: CheckpointSigner) -> None:
        """Have the key endorsed by what is in force now: receipts say so from then on.

        Raises:
            Refusal: KEYS_DOWN; what was endorsed before stays.
        """
        text = endorsement_text(self._origin, self._public).encode()
        signed = await signed_by(signer, text)
        self._endorsement = b"".join(log.key_id + signature for log, signature in signed)

    @property
    def detail(self) -> tuple[tuple[str, str], ...]:
        """What the NOTE says that logs the key."""
        return (
            ("endorsement", b64encode(self._endorsement).decode()),
            ("key", b64encode(self._public).decode()),
        )

    def make(
        self, event: Event, index: int, leaf_hash: bytes, prompt: Commitment | None
    ) -> Receipt:
        """Sign for an OUTCOME; `prompt` is the INTENT's `prompt_received`, if there was one.

        A call refused at the door has no INTENT: what its OUTCOME commits to counts.
        """
        prompt = prompt or event.prompt_received
        answer = event.answer_delivered
        said = partial(
            Receipt,
            origin=self._origin,
            index=index,
            leaf_hash=leaf_hash,
            call_id=event.call_id,
            trace_id=event.trace.trace_id,
            prompt_salt=_NONE if prompt is None else prompt.salt,
            prompt_commitment=_NONE if prompt is None else prompt.value,
            answer_salt=_NONE if answer is None else answer.salt,
            answer_commitment=_NONE if answer is None else answer.value,
            key=self._public,
            key_endorsement=self._endorsement,
        )
        return said(signature=self._key.sign(receipt_bytes(said())))
