"""One witness, asked over C2SP tlog-witness: what it answers, checked before anything is believed.

A cosigner is a URL with all the keys that the policy knows there: one request brings the lines of
all of them. Lines by other keys are passed over; one that fails, or is of another time (an old
answer played again), spoils the whole answer.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx2

from meshkit.tlog import (
    CosignerKey,
    NoteInvalid,
    check_signatures,
    format_add_checkpoint,
    format_line,
    open_checkpoint,
    origin_of,
    parse_signature_lines,
    parse_size,
    split_note,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from audit.settings import AuditSettings
    from meshkit.contract import Checkpoint
    from meshkit.tlog import LogKeys

    Prove = Callable[[int], Sequence[bytes]]
    """Makes the consistency proof from an older size to the checkpoint's; blocks on the disk."""

__all__ = ["ContradictedError", "Cosigner", "FaultyError", "WitnessState"]

_OK, _CONFLICT, _INCONSISTENT = 200, 409, 422
_ANSWER_BYTES_MAX = 65_536
_ROUNDS_MAX = 3
"""Ask, be told another size, ask again; once more if another request of ours was in between."""


class FaultyError(Exception):
    """A witness gave no good answer. `kind` is a constant."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class ContradictedError(Exception):
    """A witness cosigned what we do not have: a larger tree, or another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessState:
    """One witness, as a console may show it."""

    names: tuple[str, ...]
    """As in the policy: one for each of its keys."""
    url: str
    size: int
    """Of the last checkpoint that it cosigned for us; -1: none in this run."""
    cosigned_at_s: int
    """POSIX seconds, by the witness's clock; 0: never in this run."""
    failing: str
    """Empty, or a constant that says why it gave nothing when asked last."""


class Cosigner:
    """One witness of ours."""

    def __init__(
        self,
        url: str,
        settings: AuditSettings,
        client: httpx2.AsyncClient,
        keys: Callable[[], LogKeys],
    ) -> None:
        self._url = url.rstrip("/")
        self._settings = settings
        self._client = client
        self._keys = keys
        self._size = -1
        self._cosigned_at_s = 0
        self._closed_until = 0.0
        self.keys: dict[CosignerKey, str] = {}
        """Its keys, and their names in the policy."""
        self.failing = ""
        self.turn = asyncio.Lock()
        """Held while it is asked."""
        self.contradicts = False
        """It cosigned what we do not have."""

    @property
    def state(self) -> WitnessState:
        """The witness as it is now."""
        return WitnessState(
            names=tuple(self.keys.values()),
            url=self._url,
            size=self._size,
            cosigned_at_s=self._cosigned_at_s,
            failing=self.failing,
        )

    @property
    def host(self) -> str:
        """Its place, for log lines and file names."""
        return urlsplit(self._url).netloc.replace(":", "-").replace("[", "").replace("]", "")

    @property
    def resting(self) -> bool:
        """Whether it failed so short a time ago that it is better left alone."""
        return time.monotonic() < self._closed_until

    async def ask(self, checkpoint: Checkpoint, prove: Prove) -> dict[str, str]:
        """Have a checkpoint cosigned; return verified signature lines by name in the policy.

        Raises:
            FaultyError: no answer in time, or a bad one. It rests for a while.
            ContradictedError: it cosigned what we do not have.
        """
        try:
            async with asyncio.timeout(self._settings.witness_timeout_ms / 1_000):
                lines = await self._cosignatures(checkpoint, prove)
        except (TimeoutError, httpx2.TimeoutException):
            kind = "late"
        except httpx2.HTTPError:
            kind = "unreachable"
        except NoteInvalid:
            kind = "wrong"
        except FaultyError as faulty:
            kind = faulty.kind
        else:
            self.failing, self._closed_until = "", 0.0
            return lines
        self.failing = kind
        self._closed_until = time.monotonic() + self._settings.witness_rest_s
        raise FaultyError(kind)

    async def _cosignatures(self, checkpoint: Checkpoint, prove: Prove) -> dict[str, str]:
        old = min(max(self._size, 0), checkpoint.size)
        for _ in range(_ROUNDS_MAX):
            proof = await asyncio.to_thread(prove, old)
            status, body = await self._post(format_add_checkpoint(old, proof, checkpoint.note))
            if status == _OK:
                lines = self._verified(split_note(checkpoint.note)[0], body)
                self._size = checkpoint.size
                return lines
            if status == _INCONSISTENT and old > 0:
                raise ContradictedError
            if status != _CONFLICT:
                kind = "status"
                raise FaultyError(kind)
            old = self._size = parse_size(body)
            if old > checkpoint.size:
                raise ContradictedError
        kind = "undecided"
        raise FaultyError(kind)

    async def _post(self, body: bytes) -> tuple[int, bytes]:
        url = f"{self._url}/add-checkpoint"
        async with self._client.stream("POST", url, content=body) as reply:
            return reply.status_code, await _limited(reply)

    def _verified(self, text: str, body: bytes) -> dict[str, str]:
        """Check every line of an answer about the checkpoint `text`.

        Raises:
            NoteInvalid: malformed, or a known key's line does not hold.
            FaultyError: no line by a known key, or one of another time.
        """
        found = check_signatures(text, parse_signature_lines(body, text), self.keys)
        if not found:
            kind = "unsigned"
            raise FaultyError(kind)
        lines = {}
        for key, blob in found:
            time_s = int.from_bytes(blob[:8])
            if abs(time_s - time.time()) > self._settings.witness_skew_max_s:
                kind = "another_time"
                raise FaultyError(kind)
            lines[self.keys[key]] = format_line(key.name, key.key_id + blob)
            self._cosigned_at_s = time_s
        return lines

    async def evidence(self, checkpoint: Checkpoint) -> Checkpoint | None:
        """Ask it to show what it cosigned; None unless that convicts the log of `checkpoint`.

        Ours can show it, which is no part of the protocol. It convicts if the log's own key signed
        it, and it is of a larger tree or of another one of the same size.
        """
        digest = sha256(origin_of(checkpoint).encode()).hexdigest()
        try:
            async with (
                asyncio.timeout(self._settings.witness_timeout_ms / 1_000),
                self._client.stream("GET", f"{self._url}/checkpoint/{digest}") as reply,
            ):
                shown = open_checkpoint((await _limited(reply)).decode(), self._keys())
        except (FaultyError, TimeoutError, httpx2.HTTPError, ValueError):
            return None
        same_size = shown.size == checkpoint.size
        convicts = shown.size > checkpoint.size or (same_size and shown.root != checkpoint.root)
        return shown if convicts else None


async def _limited(reply: httpx2.Response) -> bytes:
    """Read a body, up to a limit. Raises FaultyError beyond."""
    body = bytearray()
    async for part in reply.aiter_bytes():
        body += part
        if len(body) > _ANSWER_BYTES_MAX:
            kind = "too_long"
            raise FaultyError(kind)
    return bytes(body)
