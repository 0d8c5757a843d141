"""Scans whole texts and streams with patterns and names; the names run off the event loop."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from compliance.memo import Memo
from compliance.stream import Kind, Segmenter, Window, windows
from compliance.tokens import spared, token_spans
from compliance.transform import block_finding, decide, stands_in
from meshkit.contract import Reason, Refusal
from meshkit.work_threads import WorkThreads

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from compliance.findings import Finding
    from compliance.names_base import Ask, NameModel
    from compliance.policy import Policy
    from meshkit.contract import Direction

__all__ = ["Finder", "NameRunner", "OneScanner", "Scanner", "Scanners", "findings_of"]

WINDOWS_A_TURN = 32
"""Windows scanned before other tasks get their turn: about 3 ms."""


class Finder(Protocol):
    """What an `Engine` is to a scanner: a function of the window, and not of anything else."""

    def find(self, window: str, core: int) -> list[Finding]:
        """See `compliance.engine.Engine.find`."""
        ...

    def find_all(self, found: Sequence[tuple[str, int]]) -> list[list[Finding]]:
        """See `compliance.engine.Engine.find_all`."""
        ...


class NameRunner:
    """Runs a name model in its own threads, with a bound on how much may wait.

    workers: threads, so model runs at a time. queue_max: jobs running or waiting.
    memo_entries_max: windows whose findings are remembered, by tenant and keyed digest; no text.
    """

    def __init__(
        self, model: NameModel, *, workers: int, queue_max: int, memo_entries_max: int = 0
    ) -> None:
        self._model = model
        self._memo: Memo[tuple[Finding, ...]] = Memo(memo_entries_max)
        self._queue_max = queue_max
        self._waiting = 0
        self._threads = WorkThreads("names", workers)

    def close(self) -> None:
        """Stop the threads, once the jobs that wait are done."""
        self._threads.close()

    def ask(self, window: Window) -> Ask | None:
        """Read a window; None: it holds no name. Its `find` runs here and now."""
        return self._model.ask(window.text, window.core) if window.kind is Kind.TEXT else None

    async def find_all(self, found: Sequence[Window], tenant: str) -> dict[int, Sequence[Finding]]:
        """Findings of those windows that may hold names, by their place in `found`.

        Where rules know all, they are asked here; else what is remembered, or what the model finds,
        off the event loop.

        Raises:
            Refusal: OVERLOADED, if too many wait; COMPLIANCE_DOWN, if rules or model fail.
        """
        try:
            return await self._find_all(found, tenant)
        except Refusal:
            raise
        except Exception:  # noqa: BLE001 -- any failure of a model must refuse the text
            raise Refusal(Reason.COMPLIANCE_DOWN) from None

    async def _find_all(self, found: Sequence[Window], tenant: str) -> dict[int, Sequence[Finding]]:
        asks = {i: ask for i, each in enumerate(found) if (ask := self.ask(each)) is not None}
        known: dict[int, Sequence[Finding]] = {}
        keys: dict[int, bytes] = {}
        for i, ask in asks.items():
            if not ask.runs:
                known[i] = ask.find()
            elif (findings := self._memo.get(key := self._key(found[i], tenant))) is not None:
                known[i] = findings
            else:
                keys[i] = key
        if keys:
            fresh = await self._ask([asks[i] for i in keys])
            for (i, key), findings in zip(keys.items(), fresh, strict=True):
                known[i] = findings
                self._memo.put(key, findings)
        return known

    def _key(self, window: Window, tenant: str) -> bytes:
        # A lone surrogate cannot leave anyway (the service refuses it): any stand-in will do.
        text = window.text.encode("utf-8", "replace").decode()
        return self._memo.key(f"{window.core}/{tenant}".encode(), text)

    async def _ask(self, jobs: list[Ask]) -> list[tuple[Finding, ...]]:
        if self._waiting >= self._queue_max:
            raise Refusal(Reason.OVERLOADED, retry_after_ms=100)
        self._waiting += 1
        try:
            return await self._threads.do(partial(_find_each, jobs))
        finally:
            self._waiting -= 1


def _find_each(jobs: list[Ask]) -> list[tuple[Finding, ...]]:
    return [tuple(ask.find()) for ask in jobs]


@dataclass(frozen=True, slots=True)
class Scanner:
    """Engine, names and policy together; findings come decided, in their window's offsets."""

    engine: Finder
    policy: Policy
    names: NameRunner | None = None
    _spares: bool = field(init=False)
    """Under this policy tokens and hashes may stand in a text: they are no findings."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_spares", stands_in(self.policy))

    def segmenter(self) -> Segmenter:
        """A segmenter for one stream."""
        return Segmenter(self.crossing)

    def windows(self, text: str) -> list[Window]:
        """The windows of a whole text."""
        return windows(text, self.crossing)

    def crossing(self, text: str) -> Iterator[tuple[int, int]]:
        """Spans that patterns match in `text`, and tokens: no forced cut may go through one."""
        if self._spares:
            yield from token_spans(text)
        yield from ((finding.start, finding.end) for finding in self.engine.find(text, 0))

    async def scan(
        self, found: Sequence[Window], direction: Direction, *, tenant: str = ""
    ) -> list[list[Finding]]:
        """Findings of each window that reach the policy's thresholds, disjoint, in order.

        tenant: whose text it is; what one tenant's text taught is not used for another's.

        Raises:
            Refusal: COMPLIANCE_DOWN or OVERLOADED.
        """
        raw: list[list[Finding]] = []
        for first in range(0, len(found), WINDOWS_A_TURN):
            if first:
                await asyncio.sleep(0)
            raw += self._patterns(found[first : first + WINDOWS_A_TURN])
        if self.names is not None:
            for first in range(0, len(found), WINDOWS_A_TURN):
                if first:
                    await asyncio.sleep(0)
                batch = found[first : first + WINDOWS_A_TURN]
                for i, more in (await self.names.find_all(batch, tenant)).items():
                    raw[first + i] += more
        if self._spares:
            raw = [
                spared(each, window.text) if each else each
                for each, window in zip(raw, found, strict=True)
            ]
        return [decide(each, self.policy, direction) if each else [] for each in raw]

    def _patterns(self, found: Sequence[Window]) -> list[list[Finding]]:
        # The text of a REST is empty, and so are its findings.
        raw = self.engine.find_all([(window.text, window.core) for window in found])
        for window, findings in zip(found, raw, strict=True):
            if window.kind is not Kind.REST and (block := block_finding(window)) is not None:
                findings.append(block)
        return raw


class Scanners(Protocol):
    """Which scanner judges whose text. A call asks once, and keeps what it got to its end."""

    def of(self, tenant: str) -> Scanner:
        """The scanner for a tenant's calls that begin now."""
        ...

    def under(self, tenant: str, policy_digest: bytes) -> Scanner | None:
        """The scanner of a policy that is in force for the tenant, or was until lately."""
        ...


@dataclass(frozen=True, slots=True)
class OneScanner:
    """The same scanner for every tenant."""

    scanner: Scanner

    def of(self, tenant: str) -> Scanner:  # noqa: ARG002 -- the protocol's signature
        """It."""
        return self.scanner

    def under(
        self,
        tenant: str,  # noqa: ARG002 -- the protocol's signature
        policy_digest: bytes,
    ) -> Scanner | None:
        """It, if the digest is its policy's."""
        return self.scanner if self.scanner.policy.digest == policy_digest else None


def findings_of(found: Sequence[Window], decided: Sequence[Sequence[Finding]]) -> list[Finding]:
    """Findings of a whole text, in its offsets; a block's finding reaches to the block's end."""
    out: list[Finding] = []
    block: int | None = None
    for window, findings in zip(found, decided, strict=True):
        if window.kind is Kind.REST:
            if block is not None:
                out[block] = replace(out[block], end=window.end)
            continue
        shift = window.start - window.core
        out += (replace(f, start=f.start + shift, end=f.end + shift) for f in findings)
        block = len(out) - 1 if window.kind is not Kind.TEXT and findings else None
    return out
