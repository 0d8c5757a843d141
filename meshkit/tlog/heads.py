r"""The text of a checkpoint: what a log signs, and witnesses cosign. PURE.

    <origin>\n<size, decimal>\n<base64 of the root>\n[extension lines, ignored]

Source: https://c2sp.org/tlog-checkpoint v1.0.0.
"""

from __future__ import annotations

import re
from base64 import b64encode

from meshkit.tlog.merkle import HASH_BYTES
from meshkit.tlog.note import NoteInvalid, decode_base64

__all__ = ["SIZE_MAX", "checkpoint_text", "read_checkpoint_text", "read_decimal"]

SIZE_MAX = 2**63 - 1
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


def read_decimal(text: str) -> int:
    """Read a number spelt the one allowed way: no sign, no leading zero, below 2**63.

    Raises:
        NoteInvalid: anything else.
    """
    if not _DECIMAL.fullmatch(text) or int(text) > SIZE_MAX:
        reason = "number is malformed"
        raise NoteInvalid(reason)
    return int(text)


def checkpoint_text(origin: str, size: int, root: bytes) -> str:
    """Return the text that is signed: three lines."""
    return f"{origin}\n{size}\n{b64encode(root).decode()}\n"


def read_checkpoint_text(text: str) -> tuple[str, int, bytes]:
    """Read a checkpoint's text into origin, size and root (32 bytes).

    Raises:
        NoteInvalid: it is no checkpoint's.
    """
    lines = text.split("\n")
    # Three lines and what follows the last newline.
    if len(lines) < 4 or lines[-1] or not lines[0] or "" in lines[1:-1]:  # noqa: PLR2004 -- above
        reason = "checkpoint is malformed"
        raise NoteInvalid(reason)
    root = decode_base64(lines[2])
    if len(root) != HASH_BYTES:
        reason = "checkpoint root is not 32 bytes"
        raise NoteInvalid(reason)
    return lines[0], read_decimal(lines[1]), root
