"""Callers that never stop asking, and what became of each of their calls."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sealgate import ReceiptError, SealgateError
from tests.chaos.engine import NAME

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from sealgate import AsyncClient, ChatResult

CANARY = re.compile(r"(?:canary|reveal)-[0-9a-f]{8}@")
CALL_S = 20.0
UNREACHED = "UNREACHED"
RECEIPT = "RECEIPT"


@dataclass(frozen=True)
class Answered:
    call_id: bytes
    index: int
    at_s: float
    tier: str


@dataclass(frozen=True)
class Failed:
    at_s: float
    began_s: float
    reason: str
    receipt: tuple[bytes, int] | None
    """Call id and place of its record, if there is one."""


@dataclass
class Tally:
    """All that the callers saw; seconds are those of the monotonic clock."""

    answered: list[Answered] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)

    def failures(self, since: int) -> Counter[str]:
        """By reason, of those after the first `since`."""
        return Counter(each.reason for each in self.failed[since:])


@dataclass
class Load:
    clients: dict[str, AsyncClient]
    tally: Tally = field(default_factory=Tally)
    over: bool = False
    pause_s: float = 0.05
    _numbers: int = 0
    _began: set[float] = field(default_factory=set)
    """When each call that is under way began."""

    def oldest_s(self) -> float:
        """When the oldest call under way began."""
        return min(self._began, default=float("inf"))

    def prompt(self, *, fresh: bool) -> str:
        """A prompt that must not reach the model as it is; an old one is likely in the cache."""
        self._numbers += 1
        which = secrets.token_hex(4) if fresh else f"{self._numbers % 8:08x}"
        return f"Write to canary-{which}@example.org, number {which}."

    async def unary(self, client: AsyncClient, *, fresh: bool) -> str:
        """One call; return how it ended: a cache tier, or a reason."""
        began = self._begin()
        try:
            result = await client.chat(
                self.prompt(fresh=fresh), model=NAME, max_tokens=64, timeout_s=CALL_S
            )
        except (SealgateError, ReceiptError) as failure:
            return self._refused(failure, began)
        finally:
            self._began.discard(began)
        return self._told(result, result.text)

    def _begin(self) -> float:
        began = time.monotonic()
        self._began.add(began)
        return began

    async def stream(self, client: AsyncClient) -> str:
        """One streamed call; what came of it is looked at even if it breaks."""
        began = self._begin()
        stream = client.stream(self.prompt(fresh=True), model=NAME, max_tokens=64, timeout_s=CALL_S)
        try:
            async for _ in stream:
                pass
        except (SealgateError, ReceiptError) as failure:
            self._look_at(stream.text)
            return self._refused(failure, began)
        finally:
            self._began.discard(began)
        return self._told(stream.result, stream.text)

    def _told(self, result: ChatResult, text: str) -> str:
        self._look_at(text)
        receipt = result.receipt
        assert receipt is not None
        self.tally.answered.append(
            Answered(receipt.call_id, receipt.index, time.monotonic(), result.cache_tier)
        )
        return result.cache_tier

    def _refused(self, failure: Exception, began: float) -> str:
        reason = RECEIPT
        receipt = None
        if isinstance(failure, SealgateError) and not isinstance(failure, ReceiptError):
            reason = failure.reason.name if failure.reason else UNREACHED
            if failure.receipt is not None:
                receipt = (failure.receipt.call_id, failure.receipt.index)
        self.tally.failed.append(Failed(time.monotonic(), began, reason, receipt))
        return reason

    def _look_at(self, text: str) -> None:
        self.tally.leaks += CANARY.findall(text)

    async def keep_asking(self, tenant: str, kind: str) -> None:
        client = self.clients[tenant]
        while not self.over:
            if kind == "stream":
                await self.stream(client)
            else:
                await self.unary(client, fresh=kind == "miss")
            await asyncio.sleep(self.pause_s)


def callers(tenants: list[str]) -> Iterator[tuple[str, str]]:
    for tenant in tenants:
        for kind in ("hit", "miss", "stream"):
            yield tenant, kind


@asynccontextmanager
async def loaded(clients: dict[str, AsyncClient], pause_s: float) -> AsyncIterator[Load]:
    """Three callers a tenant, for as long as the block runs: hits, misses and streams."""
    load = Load(clients, pause_s=pause_s)
    tasks = [
        asyncio.create_task(load.keep_asking(tenant, kind))
        for tenant, kind in callers(list(clients))
    ]
    try:
        yield load
    finally:
        load.over = True
        await asyncio.gather(*tasks)
