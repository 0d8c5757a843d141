"""Receipts in a caller's hands: check one, keep one in a file. docs/receipts.md tells the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshkit.contract import Receipt
from meshkit.tlog import ReceiptInvalid, check_receipt
from sealgate.errors import ReceiptError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meshkit.contract import Message

__all__ = ["check", "receipt_from_json", "receipt_to_json"]

_TEXT, _NUMBER = "origin", "index"
_BYTES = (
    "leaf_hash",
    "call_id",
    "trace_id",
    "prompt_salt",
    "prompt_commitment",
    "answer_salt",
    "answer_commitment",
    "key",
    "key_endorsement",
    "signature",
)


def check(
    receipt: Receipt | None,
    vkey: str,
    *,
    messages: Sequence[Message] | None = None,
    answer: str | None = None,
) -> None:
    """Check a receipt, as `meshkit.tlog.check_receipt` does.

    Raises:
        ReceiptError: with the number of the first step that fails; 0 if there is no receipt.
    """
    if receipt is None:
        raise ReceiptError(0)
    try:
        check_receipt(receipt, vkey, messages=messages, answer=answer)
    except ReceiptInvalid as invalid:
        raise ReceiptError(invalid.step, receipt=receipt) from None


def receipt_to_json(receipt: Receipt) -> dict[str, str | int]:
    """Return a receipt as a JSON object: fields by the proto's names, bytes in lower-case hex."""
    found: dict[str, str | int] = {_TEXT: receipt.origin, _NUMBER: receipt.index}
    return found | {name: getattr(receipt, name).hex() for name in _BYTES}


def receipt_from_json(given: Mapping[str, object]) -> Receipt:
    """Read what `receipt_to_json` wrote. Nothing is checked but the shape.

    Raises:
        ValueError: a field is missing, not hex, or of another type.
    """
    origin, index = given.get(_TEXT), given.get(_NUMBER)
    raw = {name: given.get(name) for name in _BYTES}
    if not isinstance(origin, str) or not isinstance(index, int) or isinstance(index, bool):
        msg = "receipt has no origin or no index"
        raise ValueError(msg)  # noqa: TRY004 -- a file's content, not a caller's type
    if not all(isinstance(value, str) for value in raw.values()):
        msg = "receipt lacks a field"
        raise ValueError(msg)
    try:
        found = {name: bytes.fromhex(str(value)) for name, value in raw.items()}
    except ValueError:
        msg = "receipt holds a field that is not hex"
        raise ValueError(msg) from None
    return Receipt(origin=origin, index=index, **found)
