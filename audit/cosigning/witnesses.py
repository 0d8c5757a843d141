"""Asks witnesses to cosign the log's checkpoints, and judges by policy whether enough did.

    async with witnesses_of(policy, settings, key) as witnesses:
        cosigned = await witnesses.cosign(checkpoint, prove)

All are asked at once, each under a deadline (cosigner.py). What has been got for a checkpoint
is kept while the same one is asked about again. Once the quorum holds nobody waits long for the
others; they are heard all the same, for one that is far away may be the one that knows of a fork.

A witness that cosigned more than we have, or another tree, speaks of a log that was put back or
forked, lock and all: EVIDENCE_LOST, for good. If it can show the checkpoint (ours can), that is
kept under evidence/: it bears the log's own signature. Whoever stands in the policy can so stop the
log by a lie: one that cannot be shown is a reason to strike the witness off the policy.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog

from audit.cosigning.cosigner import ContradictedError, Cosigner, FaultyError, WitnessState
from meshkit.contract import Reason, Refusal
from meshkit.counters import counted, measured
from meshkit.files import write_private
from meshkit.https import https_client
from meshkit.tlog import Policy, split_note

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import httpx2

    from audit.cosigning.cosigner import Prove
    from audit.settings import AuditSettings
    from meshkit.contract import Checkpoint
    from meshkit.tlog import LogKeys

__all__ = ["Cosigned", "WitnessState", "Witnesses", "policy_for_auditors", "witnesses_of"]

log = structlog.get_logger()

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosigned:
    """What witnesses gave for a checkpoint."""

    lines: str
    """Signature lines to put below the log's own; may be empty."""
    quorum: bool
    """Whether they satisfy the policy."""


@dataclass(slots=True)
class _Round:
    """What is known about one checkpoint's cosignatures."""

    text: str = ""
    lines: dict[str, str] = field(default_factory=dict)
    """By the witness's name in the policy."""
    begun: float = field(default_factory=time.monotonic)


class Witnesses:
    """The witnesses of one policy. Made by `witnesses_of`."""

    def __init__(
        self,
        policy: Policy,
        settings: AuditSettings,
        client: httpx2.AsyncClient,
        keys: Callable[[], LogKeys],
    ) -> None:
        self._policy = policy
        self._settings = settings
        cosigners: dict[str, Cosigner] = {}
        for witness in policy.witnesses:
            if witness.url:
                one = cosigners.setdefault(
                    witness.url, Cosigner(witness.url, settings, client, keys)
                )
                one.keys[witness.key] = witness.name
        self._cosigners = list(cosigners.values())
        self._round = _Round()
        self._late: set[asyncio.Task[None]] = set()
        """Requests that nobody waits for any more."""
        self.quorum = policy.holds(())
        """Whether the checkpoint asked about last satisfies the policy."""
        self.on_change: Callable[[bool], Awaitable[None]] | None = None
        """Told when `quorum` changes; must not raise."""

    @property
    def states(self) -> list[WitnessState]:
        """Each witness as it is now, in the order of the policy."""
        return [one.state for one in self._cosigners]

    @property
    def failing(self) -> int:
        """How many gave nothing when asked last."""
        return sum(bool(one.failing) for one in self._cosigners)

    @property
    def stale(self) -> bool:
        """Whether cosignatures are missing, or older than they shall become."""
        return not self.quorum or (
            time.monotonic() - self._round.begun > self._settings.witness_refresh_s
        )

    async def cosign(
        self,
        checkpoint: Checkpoint,
        prove: Prove,
        *,
        afresh: bool = False,
        patient: bool = False,
    ) -> Cosigned:
        """Ask all witnesses about a checkpoint that the log signed and the lock holds.

        Args:
            checkpoint: With or without cosignatures.
            prove: Called in a thread, for sizes from 0 to the checkpoint's.
            afresh: Have it cosigned again, with a new time.
            patient: Wait for each witness, as long as it may take, though the quorum holds.

        Raises:
            Refusal: EVIDENCE_LOST, if one has cosigned more than this, or another tree; or had for
                an earlier checkpoint, which it said too late.
        """
        if any(one.contradicts for one in self._cosigners):
            raise Refusal(Reason.EVIDENCE_LOST)
        text = split_note(checkpoint.note)[0]
        if self._round.text != text or afresh:
            self._round = _Round(text)
        asked = {
            asyncio.create_task(self._ask(one, checkpoint, prove, self._round))
            for one in self._wanted(self._round)
        }
        try:
            await self._heard(asked, self._round, patient=patient)
        except ContradictedError:
            raise Refusal(Reason.EVIDENCE_LOST) from None
        return await self._told(self._round)

    async def _told(self, current: _Round) -> Cosigned:
        quorum = self._policy.holds(current.lines)
        if quorum is not self.quorum:
            self.quorum = quorum
            log.warning("audit.witness_quorum", status=int(quorum), count=len(current.lines))
            if self.on_change is not None:
                await self.on_change(quorum)
        return Cosigned(lines="".join(current.lines.values()), quorum=quorum)

    def _wanted(self, current: _Round) -> list[Cosigner]:
        """Leave out those that failed just now, unless checkpoints wait for one of them."""
        missing = [
            one
            for one in self._cosigners
            if any(name not in current.lines for name in one.keys.values())
        ]
        rested = [one for one in missing if not one.resting]
        free = [one for one in rested if not one.turn.locked()]
        for some in (free, rested):
            names = [name for one in some for name in one.keys.values()]
            if self._policy.holds([*names, *current.lines]):
                return some
        return missing if self._settings.witness_required else rested

    async def _heard(
        self, pending: set[asyncio.Task[None]], current: _Round, *, patient: bool
    ) -> None:
        """Wait for answers: for all, or until a short while after the quorum holds."""
        grace = self._settings.witness_grace_ms / 1_000
        try:
            while pending:
                enough = not patient and self._policy.holds(current.lines)
                done, pending = await asyncio.wait(
                    pending,
                    timeout=grace if enough else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for failure in [task.exception() for task in done]:
                    if failure is not None:
                        raise failure
                if not done:
                    break
        finally:
            for task in pending:
                self._late.add(task)
                task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Let go of a late request. What it raised is in its cosigner, or is raised again."""
        self._late.discard(task)
        if not task.cancelled():
            task.exception()

    async def close(self) -> None:
        """Give up requests under way."""
        for task in self._late:
            task.cancel()
        await asyncio.gather(*self._late, return_exceptions=True)

    async def _ask(
        self, one: Cosigner, checkpoint: Checkpoint, prove: Prove, current: _Round
    ) -> None:
        """Ask one; its lines go into the round. Raises ContradictedError."""
        before = one.failing
        try:
            async with one.turn:
                current.lines.update(await one.ask(checkpoint, prove))
        except FaultyError as faulty:
            counted(f"audit.witness.{faulty.kind}")
            if faulty.kind != before:
                log.warning("audit.witness_failed", kind=faulty.kind, name=one.host)
        except ContradictedError:
            one.contradicts = True
            await self._keep_evidence(one, checkpoint)
            raise

    async def _keep_evidence(self, one: Cosigner, checkpoint: Checkpoint) -> None:
        """Keep what the witness can show, and the checkpoint that it speaks against."""
        counted("audit.witness.contradicts")
        shown = await one.evidence(checkpoint)
        told = "claimed" if shown is None else "proven"
        log.critical("audit.witness_contradicts", kind=told, name=one.host, new=checkpoint.size)
        if shown is not None:
            folder = self._settings.data_dir / "evidence"
            folder.mkdir(mode=0o750, exist_ok=True)
            stem = f"{int(time.time())}-{one.host}"
            write_private(folder / f"{stem}.ours", checkpoint.note.encode())
            write_private(folder / f"{stem}.theirs", shown.note.encode())


def policy_for_auditors(policy: Policy | None, log: LogKeys) -> Policy:
    """Return what an auditor should trust: our log, and the configured witnesses and quorum.

    Other keys of the same origin stay: whoever wrote them there believes them.
    """
    if policy is None:
        return Policy.of_log(*log.keys)
    others = [each for each in policy.logs if each not in log.keys and each.name == log.name]
    return Policy(
        logs=(*log.keys, *others),
        witnesses=policy.witnesses,
        groups=policy.groups,
        quorum=policy.quorum,
    )


def _checked(policy: Policy, name: str) -> None:
    if policy.logs and all(each.name != name for each in policy.logs):
        msg = "AUDIT_WITNESS_POLICY is about another log"
        raise ValueError(msg)
    for witness in policy.witnesses:
        parts = urlsplit(witness.url)
        if witness.url and parts.scheme != "https" and parts.hostname not in _LOOPBACK:
            msg = "a witness is asked over https, or on this host"
            raise ValueError(msg)
    if not policy.holds([witness.name for witness in policy.witnesses if witness.url]):
        msg = "the quorum of AUDIT_WITNESS_POLICY needs a witness that has no URL"
        raise ValueError(msg)


@asynccontextmanager
async def witnesses_of(
    policy: Policy | None, settings: AuditSettings, keys: Callable[[], LogKeys]
) -> AsyncIterator[Witnesses | None]:
    """Own the connections to a policy's witnesses; None if it has none.

    `keys` says by which keys this log's checkpoints are known, at any time.

    Raises:
        ValueError: the policy is about another log, has a witness in the clear on another host, or
            a quorum that cannot be reached.
        OSError: the CA cannot be read.
    """
    if policy is None or not policy.witnesses:
        yield None
        return
    _checked(policy, keys().name)
    async with https_client(
        settings.witness_ca,
        timeout_s=settings.witness_timeout_ms / 1_000,
        tls_min=ssl.TLSVersion.TLSv1_3,
    ) as client:
        found = Witnesses(policy, settings, client, keys)
        with (
            measured("audit.witness_quorum", lambda: found.quorum),
            measured("audit.witnesses_failing", lambda: found.failing),
        ):
            try:
                yield found
            finally:
                await found.close()
