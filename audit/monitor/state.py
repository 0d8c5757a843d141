"""What a monitor remembers between its looks at a log: one JSON file, replaced whole. PURE.

The last checkpoint that it believed, the right edge of the tree as far as it read the entries, and
the calls that were begun and not ended there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from meshkit.tlog import HASH_BYTES, Edge

__all__ = ["MonitorState", "Open", "StateInvalidError"]

_VERSION = 1


class StateInvalidError(ValueError):
    """A state file is malformed, or of another version."""


@dataclass(frozen=True, slots=True)
class Open:
    """An INTENT without OUTCOME so far: its index, and when the log received it (POSIX seconds)."""

    index: int
    received_s: float


@dataclass(slots=True, kw_only=True)
class MonitorState:
    """Of one log. Empty before the first look."""

    note: str = ""
    """The newest checkpoint believed, with its signatures."""
    size: int = 0
    root: bytes = b""
    first_seen_s: float = 0.0
    """When this monitor saw that size first; POSIX seconds."""
    edge: Edge = field(default_factory=Edge)
    """Of the tree of all entries that were read; its size may be less, never more."""
    open: dict[str, Open] = field(default_factory=dict)
    """By call id, in hex."""

    def dumps(self) -> bytes:
        """Write the state."""
        told = {
            "version": _VERSION,
            "note": self.note,
            "size": self.size,
            "root": self.root.hex(),
            "first_seen_s": self.first_seen_s,
            "edge": [self.edge.size, ["".join(h.hex() for h in row) for row in self.edge.rows]],
            "open": {call: [one.index, one.received_s] for call, one in self.open.items()},
        }
        return json.dumps(told).encode() + b"\n"

    @classmethod
    def loads(cls, data: bytes) -> MonitorState:
        """Read the state.

        Raises:
            StateInvalidError: malformed.
        """
        try:
            told = json.loads(data)
            if told["version"] != _VERSION:
                raise StateInvalidError
            return cls(
                note=str(told["note"]),
                size=int(told["size"]),
                root=bytes.fromhex(told["root"]),
                first_seen_s=float(told["first_seen_s"]),
                edge=_edge(told["edge"]),
                open={call: Open(int(i), float(s)) for call, (i, s) in told["open"].items()},
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise StateInvalidError from None


def _edge(told: Any) -> Edge:  # noqa: ANN401 -- JSON
    size, rows = told
    hashes = [bytes.fromhex(row) for row in rows]
    return Edge(
        int(size),
        tuple(
            tuple(row[at : at + HASH_BYTES] for at in range(0, len(row), HASH_BYTES))
            for row in hashes
        ),
    )
