r"""Receipts: a caller's proof that its prompt and answer are what the log recorded. PURE.

    commitment  = HMAC-SHA-256(salt, prompt_bytes(messages))   or of answer_bytes(answer)
    endorsement = Ed25519 by the log's checkpoint key, as a signed note, over the text

        sealgate/receipt-key/v1\n<origin>\n<base64 of the receipt key>\n

    signature   = Ed25519 by the receipt key over receipt_bytes(receipt)

The receipt key lives in the memory of one run of the audit service and is logged as an event. The
endorsement's bytes are key id (4) || signature (64), as in a signature line of a note: once for
each key with which the log signs its checkpoints, so twice while that one is rotated. No
checkpoint can be taken for an endorsement: a checkpoint's second line is a decimal number, and its
first is the log's origin.

`receipt_bytes` is `"sealgate/receipt/v1\0"`, then origin (UTF-8), index (8 bytes, big-endian),
leaf hash, call id, trace id, prompt commitment, answer commitment, key: each as a big-endian
uint32 length and its bytes. Salts are not signed: a commitment binds its text under one salt alone.
"""

from __future__ import annotations

from base64 import b64encode
from hmac import compare_digest
from typing import TYPE_CHECKING

from meshkit.contract import answer_bytes, prompt_bytes
from meshkit.mac import hmac_sha256
from meshkit.tlog.log_keys import LogKeys
from meshkit.tlog.merkle import HASH_BYTES
from meshkit.tlog.note import KEY_ID_BYTES, NoteInvalid, VerifierKey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshkit.contract import Message, Receipt

__all__ = [
    "CALL_ID_BYTES",
    "ENDORSEMENTS_MAX",
    "SALT_BYTES",
    "ReceiptInvalid",
    "check_receipt",
    "commit",
    "endorsement_text",
    "receipt_bytes",
]

SALT_BYTES = 32
CALL_ID_BYTES = 16
TRACE_ID_BYTES = 16
ENDORSEMENTS_MAX = 4
_DOMAIN = b"sealgate/receipt/v1\0"
_MATERIAL = 32
_ENDORSEMENT_BYTES = KEY_ID_BYTES + 64
_SIGNATURE_BYTES = 64
_ENDORSEMENT_LENGTHS = {_ENDORSEMENT_BYTES * count for count in range(1, ENDORSEMENTS_MAX + 1)}


class ReceiptInvalid(ValueError):  # noqa: N818 -- an answer about a stranger's claim
    """A receipt does not hold. `step` is the number in `check_receipt`; never any text."""

    def __init__(self, step: int, reason: str) -> None:
        super().__init__(f"step {step}: {reason}")
        self.step = step
        self.reason = reason


def commit(salt: bytes, text_bytes: bytes) -> bytes:
    """Commit to a text under a random salt (32 bytes): HMAC-SHA-256, 32 bytes.

    `text_bytes` is `prompt_bytes` or `answer_bytes` of `meshkit.contract`.
    """
    return hmac_sha256(salt, text_bytes)


def endorsement_text(origin: str, key: bytes) -> str:
    """Return the note text by which the checkpoint key endorses a receipt key (32 bytes)."""
    return f"sealgate/receipt-key/v1\n{origin}\n{b64encode(key).decode()}\n"


def receipt_bytes(receipt: Receipt) -> bytes:
    """Return what the receipt key signs; injective."""
    parts = [_DOMAIN]
    for raw in (
        receipt.origin.encode(),
        receipt.index.to_bytes(8),
        receipt.leaf_hash,
        receipt.call_id,
        receipt.trace_id,
        receipt.prompt_commitment,
        receipt.answer_commitment,
        receipt.key,
    ):
        parts += (len(raw).to_bytes(4), raw)
    return b"".join(parts)


def _well_formed(receipt: Receipt) -> bool:
    """Whether every field has one of the lengths it may have."""
    optional = (
        (receipt.prompt_salt, receipt.prompt_commitment),
        (receipt.answer_salt, receipt.answer_commitment),
    )
    return (
        0 <= receipt.index < 2**63
        and len(receipt.leaf_hash) == HASH_BYTES
        and len(receipt.call_id) == CALL_ID_BYTES
        and len(receipt.trace_id) == TRACE_ID_BYTES
        and len(receipt.key) == _MATERIAL
        and len(receipt.key_endorsement) in _ENDORSEMENT_LENGTHS
        and len(receipt.signature) == _SIGNATURE_BYTES
        # The commitment is there without its salt once the salt was erased; never the reverse.
        and all((len(s), len(c)) in {(0, 0), (0, 32), (32, 32)} for s, c in optional)
    )


def check_receipt(
    receipt: Receipt,
    vkey: str,
    *,
    messages: Sequence[Message] | None = None,
    answer: str | None = None,
) -> None:
    """Verify a receipt offline, and that it is about this prompt and this answer where given.

    1. The verifier key is well formed and is the key of the log that the receipt names. If there
       are several, a line each, they all are.
    2. The receipt's fields have the lengths they must have.
    3. One of them endorses the receipt key, and no endorsement by one of them fails.
    4. The receipt key signed the receipt.
    5. `messages` open the prompt commitment.
    6. `answer` opens the answer commitment.

    Args:
        receipt: As it came with the answer.
        vkey: The log's verifier key, or several, from a place the caller trusts; not from the
            answer.
        messages: What the caller sent, or None to leave step 5 out.
        answer: What the caller got, all deltas joined, or None to leave step 6 out.

    Raises:
        ReceiptInvalid: with the number of the first step that fails.
    """
    try:
        log = LogKeys.parse(vkey)
    except NoteInvalid as invalid:
        raise ReceiptInvalid(1, str(invalid)) from None
    if log.name != receipt.origin:  # 1
        raise ReceiptInvalid(1, "receipt is another log's")
    if not _well_formed(receipt):  # 2
        raise ReceiptInvalid(2, "receipt is malformed")
    if not _endorsed(receipt, log):  # 3
        raise ReceiptInvalid(3, "log does not endorse the receipt key")
    if not VerifierKey(receipt.origin, receipt.key).verifies(  # 4
        receipt.signature, receipt_bytes(receipt)
    ):
        raise ReceiptInvalid(4, "receipt is not signed by its key")
    if messages is not None and not _opens(  # 5
        receipt.prompt_salt, receipt.prompt_commitment, prompt_bytes(messages)
    ):
        raise ReceiptInvalid(5, "receipt is about another prompt")
    if answer is not None and not _opens(  # 6
        receipt.answer_salt, receipt.answer_commitment, answer_bytes(answer)
    ):
        raise ReceiptInvalid(6, "receipt is about another answer")


def _endorsed(receipt: Receipt, log: LogKeys) -> bool:
    text = endorsement_text(receipt.origin, receipt.key).encode()
    raw = receipt.key_endorsement
    told = [raw[at : at + _ENDORSEMENT_BYTES] for at in range(0, len(raw), _ENDORSEMENT_BYTES)]
    known = [(log.of(each[:KEY_ID_BYTES]), each[KEY_ID_BYTES:]) for each in told]
    held = [key.verifies(signature, text) for key, signature in known if key is not None]
    return bool(held) and all(held)


def _opens(salt: bytes, commitment: bytes, text: bytes) -> bool:
    return len(salt) == SALT_BYTES and compare_digest(commit(salt, text), commitment)
