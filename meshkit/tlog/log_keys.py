"""All the keys that one log's checkpoints may bear: several while its key is rotated. PURE.

A file of them has one verifier key (C2SP vkey) a line, newest first. Whoever knows any of them
accepts what bears a signature by it; whoever knows several needs one, and none may fail. A log that
is given a new key signs with both for a while, so that each finds its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshkit.tlog.note import NoteInvalid, VerifierKey

if TYPE_CHECKING:
    from typing import Self

__all__ = ["LogKeys"]

KEYS_MAX = 64


@dataclass(frozen=True, slots=True)
class LogKeys:
    """One or more keys of one log, the newest first."""

    keys: tuple[VerifierKey, ...]

    def __post_init__(self) -> None:
        """Raise NoteInvalid unless they are one log's, and told apart by their ids."""
        if not 1 <= len(self.keys) <= KEYS_MAX:
            reason = "verifier keys are missing, or too many"
            raise NoteInvalid(reason)
        if len({key.name for key in self.keys}) > 1:
            reason = "verifier keys are of several logs"
            raise NoteInvalid(reason)
        if len({key.key_id for key in self.keys}) < len(self.keys):
            reason = "verifier key is there twice"
            raise NoteInvalid(reason)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read one verifier key a line; empty lines are passed over.

        Raises:
            NoteInvalid: a line is no Ed25519 verifier key, or they are not one log's.
        """
        lines = [line for line in text.split("\n") if line.strip()]
        if len(lines) > KEYS_MAX:
            reason = "verifier keys are missing, or too many"
            raise NoteInvalid(reason)
        # Nothing at all is told as what it is: a malformed key.
        return cls(tuple(VerifierKey.parse(line) for line in lines or [text]))

    @property
    def name(self) -> str:
        """The log's origin."""
        return self.keys[0].name

    def of(self, key_id: bytes) -> VerifierKey | None:
        """Return the one with this id (4 bytes); None if there is none."""
        return next((key for key in self.keys if key.key_id == key_id), None)

    def __str__(self) -> str:
        return "\n".join(str(key) for key in self.keys)
