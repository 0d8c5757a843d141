"""Compliance as its neighbours see it: `screen` a prompt, `release` an answer.

    async with open_compliance(settings, mac_keys=keys) as compliance:
        screened = await compliance.screen(scope, messages)
        async for item in compliance.release(scope, deltas): ...

Both are a pure function of text and policy, but for the MAC. Verdicts are memoised per tenant,
policy and direction by a keyed digest of the text; an entry holds offsets and counts, no text.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from compliance.findings import TYPES
from compliance.memo import Memo
from compliance.opening import open_policies, open_scanner
from compliance.policy import Action, Policy
from compliance.policy_notes import compliance_noted
from compliance.recognizers import ALL
from compliance.scanner import OneScanner, Scanner, findings_of
from compliance.stream import Kind
from compliance.token_vault import TokenVault, lone_keys, lone_vault, token_vault
from compliance.tokens import TokenKeys
from compliance.transform import Tally, counts, masked, tally, to_tokenise, treat
from meshkit.contract import (
    BlockedText,
    Direction,
    Message,
    Reason,
    Refusal,
    Released,
    Screened,
    Stage,
    Verdict,
)
from meshkit.counters import counted
from meshkit.reading import wanted
from meshkit.screening_mac import digest_of_answer, digest_of_prompt

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Sequence

    from compliance.findings import Finding
    from compliance.scanner import Scanners
    from compliance.settings import ComplianceSettings
    from compliance.stream import Window
    from compliance.transform import Treated
    from meshkit.contract import Scope
    from meshkit.journal import Journal
    from meshkit.screening_mac import MacKeys

__all__ = ["ComplianceService", "open_compliance", "open_scanner"]

log = structlog.get_logger()

MEMO_FINDINGS_MAX = 256
"""A text with more findings is not remembered: entries stay small."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What is remembered of a text: where what was found, and what that came to."""

    findings: tuple[Finding, ...]
    verdict: Verdict
    blocked: bool


class ComplianceService:
    """Implements `meshkit.contract.Compliance`.

    scanners: whose policy judges whom; one scanner judges all. mac_keys: asked for at each call, so
        that a rotation needs no restart. tokens: those of all sessions; None: of this object alone.
    """

    def __init__(
        self,
        scanners: Scanners | Scanner,
        mac_keys: Callable[[], MacKeys],
        *,
        memo_entries_max: int,
        text_chars_max: int,
        tokens: TokenVault | None = None,
    ) -> None:
        self._tokens = tokens or lone_vault()
        self._scanners = OneScanner(scanners) if isinstance(scanners, Scanner) else scanners
        self._mac_keys = mac_keys
        self._memo: Memo[_Known] = Memo(memo_entries_max)
        self._text_chars_max = text_chars_max

    @property
    def policy(self) -> Policy:
        """The policy of a tenant that has none of its own."""
        return self._scanners.of("").policy

    async def screen(self, scope: Scope, messages: Sequence[Message]) -> Screened:
        """Let a prompt in, masked where policy says so; a message at a time.

        Raises:
            Refusal: INVALID_FIELD `messages` (not valid Unicode, or too long);
                BLOCKED (`BlockedText`, with the verdict); COMPLIANCE_DOWN; OVERLOADED.
        """
        scanner = self._scanners.of(scope.tenant)
        policy = scanner.policy
        known = [await self._known(scanner, scope.tenant, each.content) for each in messages]
        verdict = _counted(_sum(known, policy))
        if any(entry.blocked for entry in known):
            raise BlockedText(verdict)
        out = await self._treated(scope, policy, messages, known)
        version, mac = self._mac_keys().tag(
            stage=Stage.SCREENED,
            text_digest=digest_of_prompt(out),
            policy_digest=policy.digest,
            tenant=scope.tenant,
            call_id=scope.call_id,
        )
        return Screened(messages=out, verdict=verdict, mac=mac, mac_key_version=version)

    async def _treated(
        self, scope: Scope, policy: Policy, messages: Sequence[Message], known: Sequence[_Known]
    ) -> tuple[Message, ...]:
        """Put what policy says in the place of what was found; tokens are kept before."""
        if not any(entry.findings for entry in known):
            return tuple(messages)
        found = [(message, entry.findings) for message, entry in zip(messages, known, strict=True)]
        wanted = [
            each
            for message, findings in found
            for each in to_tokenise(message.content, findings, policy, Direction.PROMPT)
        ]
        stand_ins = await self._tokens.stand_ins(scope, wanted)
        return tuple(
            Message(each.role, masked(each.content, findings, policy, Direction.PROMPT, stand_ins))
            if findings
            else each
            for each, findings in found
        )

    async def reveal(self, scope: Scope, names: Sequence[str]) -> dict[str, str]:
        """Return the values behind tokens of this tenant and session; of others, nothing.

        Raises:
            Refusal: COMPLIANCE_DOWN: they cannot be looked up.
        """
        return await self._tokens.reveal(scope, names)

    async def _known(self, scanner: Scanner, tenant: str, text: str) -> _Known:
        """Look a text up, or scan it."""
        policy = scanner.policy
        if len(text) > self._text_chars_max:
            raise Refusal(Reason.INVALID_FIELD, field="messages")
        try:
            key = self._memo.key(tenant.encode() + b"\0" + policy.digest, text)
        except UnicodeEncodeError:
            raise Refusal(Reason.INVALID_FIELD, field="messages") from None
        if (entry := self._memo.get(key)) is not None:
            return entry
        found = scanner.windows(text)
        findings = findings_of(found, await scanner.scan(found, Direction.PROMPT, tenant=tenant))
        total = tally(findings, policy, Direction.PROMPT)
        entry = _Known(
            tuple(findings),
            Verdict(counts=counts(total), policy_digest=policy.digest),
            blocked=any(action == Action.BLOCK for _, _, _, action in total),
        )
        if len(findings) <= MEMO_FINDINGS_MAX:
            self._memo.put(key, entry)
        return entry

    async def release(
        self, scope: Scope, deltas: AsyncIterable[str], *, policy_digest: bytes = b""
    ) -> AsyncGenerator[str | Released, None]:
        """Let an answer out as it comes, a segment at a time; the last item is `Released`.

        policy_digest: of the policy that screened the prompt, so that one policy judges all of a
            call; empty: the one in force now. Either is kept to the end of the stream.

        Raises:
            Refusal: COMPLIANCE_DOWN (a recognizer failed, the text is not valid Unicode or too
                long, or the policy is not known here); OVERLOADED. What was yielded before stands.
        """
        answer = _Answer(
            self._scanner(scope.tenant, policy_digest), scope, self._tokens, self._text_chars_max
        )
        answer.tell_wanted()
        source = aiter(deltas)
        try:
            async for delta in source:
                if ready := answer.take(delta):
                    async for piece in answer.treat(ready):
                        yield piece
                    if answer.blocked:
                        break
            else:
                async for piece in answer.treat(answer.close()):
                    yield piece
        finally:
            close = getattr(source, "aclose", None)
            if close is not None:
                await close()
        yield self._released(scope, answer)

    def _scanner(self, tenant: str, policy_digest: bytes) -> Scanner:
        if not policy_digest:
            return self._scanners.of(tenant)
        if (scanner := self._scanners.under(tenant, policy_digest)) is None:
            log.warning("compliance.policy_unknown", policy_digest=policy_digest.hex())
            raise Refusal(Reason.COMPLIANCE_DOWN)
        return scanner

    def _released(self, scope: Scope, answer: _Answer) -> Released:
        text = "".join(answer.pieces)
        policy = answer.policy
        version, mac = self._mac_keys().tag(
            stage=Stage.RELEASED,
            text_digest=digest_of_answer(text),
            policy_digest=policy.digest,
            tenant=scope.tenant,
            call_id=scope.call_id,
        )
        return Released(
            text=text,
            verdict=_counted(Verdict(counts=counts(answer.total), policy_digest=policy.digest)),
            mac=mac,
            mac_key_version=version,
            blocked=answer.blocked,
        )


def _sum(known: Sequence[_Known], policy: Policy) -> Verdict:
    """Add the verdicts of several messages."""
    if len(known) == 1:
        return known[0].verdict
    total = Tally()
    for entry in known:
        for count in entry.verdict.counts:
            total[count.direction, count.type, count.subtype, count.action] += count.count
    return Verdict(counts=counts(total), policy_digest=policy.digest)


class _Answer:
    """One answer on its way out."""

    def __init__(self, scanner: Scanner, scope: Scope, tokens: TokenVault, chars_max: int) -> None:
        self._scanner = scanner
        self.policy = scanner.policy
        self._scope = scope
        self._tokens = tokens
        self._segmenter = scanner.segmenter()
        self._wanted = wanted()
        self._chars_left = chars_max
        self.pieces: list[str] = []
        self.total = Tally()
        self.blocked = False

    def take(self, delta: str) -> list[Window]:
        """Take a delta; return the segments that are now complete."""
        self._chars_left -= len(delta)
        if self._chars_left < 0:
            raise Refusal(Reason.COMPLIANCE_DOWN)
        ready = self._segmenter.feed(delta)
        self.tell_wanted()
        return ready

    def tell_wanted(self) -> None:
        """Say how much more is worth handing over, where somebody is there to hear it."""
        if self._wanted is not None:
            self._wanted.characters = self._segmenter.wants

    def close(self) -> list[Window]:
        """Return the rest: the answer is complete."""
        return self._segmenter.close()

    async def treat(self, ready: Sequence[Window]) -> AsyncIterator[str]:
        """Scan segments and yield what may leave of them; stop at a blocked one."""
        for window in ready:
            if window.kind is Kind.REST:
                continue
            tenant = self._scope.tenant
            (findings,) = await self._scanner.scan([window], Direction.ANSWER, tenant=tenant)
            policy = self.policy
            self.total += tally(findings, policy, Direction.ANSWER)
            core = window.core
            inner = [replace(f, start=f.start - core, end=f.end - core) for f in findings]
            treated = await self._treated(window.text[core:], inner)
            if treated.blocked:
                self.blocked = True
                return
            if treated.text:
                if not _encodes(treated.text):
                    raise Refusal(Reason.COMPLIANCE_DOWN)
                self.pieces.append(treated.text)
                yield treated.text

    async def _treated(self, text: str, findings: Sequence[Finding]) -> Treated:
        """Apply policy to a segment; its tokens are kept before it leaves."""
        policy, stand_ins = self.policy, None
        if findings:
            wanted = to_tokenise(text, findings, policy, Direction.ANSWER)
            stand_ins = await self._tokens.stand_ins(self._scope, wanted)
        return treat(text, findings, policy, Direction.ANSWER, stand_ins)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _counted(verdict: Verdict) -> Verdict:
    """Count for metrics; types of policies' own as one, for there may be thousands."""
    for each in verdict.counts:
        type_ = each.type if each.type in TYPES else "CUSTOM"
        counted(f"compliance.findings.{each.direction}.{each.action}.{type_}", each.count)
    return verdict


@asynccontextmanager
async def open_compliance(
    settings: ComplianceSettings,
    *,
    mac_keys: Callable[[], MacKeys] | MacKeys,
    token_secret: bytes | None = None,
    journal: Journal | None = None,
) -> AsyncIterator[ComplianceService]:
    """Own a compliance service for as long as the block runs.

    mac_keys: the keys to tag with, or a function that returns those of now. token_secret: 32 random
    bytes that all replicas share; None: this one's tokens are its own. journal: where policies are
    archived and their changes told. Raises as `open_policies` and `token_vault` do.
    """
    keys = mac_keys if callable(mac_keys) else (lambda: mac_keys)
    token_keys = lone_keys() if token_secret is None else TokenKeys(token_secret)
    async with (
        AsyncExitStack() as owned,
        open_policies(settings) as policies,
        policies.watching(settings.policy_every_s),
        token_vault(settings, token_keys) as tokens,
    ):
        if journal is not None:
            owned.enter_context(compliance_noted(journal, policies))
        log.info(
            "compliance.ready",
            policies=len(policies.book.policies),
            policies_digest=policies.book.digest.hex(),
            recognizers=len(ALL),
            names=settings.names,
        )
        yield ComplianceService(
            policies,
            keys,
            memo_entries_max=settings.memo_entries_max,
            text_chars_max=settings.text_chars_max,
            tokens=tokens,
        )
