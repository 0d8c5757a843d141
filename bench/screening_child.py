"""Compliance by itself, in a process of its own, measured where it runs.

    python -m bench.screening_child     pinned by BENCH_CORES; started by `bench.screening` only

First line out: `{"start_s", "memory_mb"}`: from the process's birth to its first scan with a name,
patterns compiled and cached before. Then a line out for a line `{"do", …}` in; see `DEEDS`.
Times are CPU time of the whole process, threads of the name models included, unless called wall.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import resource
import sys
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from bench.children import pin_as_told
from bench.statistics import median, quantile
from bench.workload import answer, prompt, tokens
from compliance.scanner import findings_of
from compliance.service import open_compliance, open_scanner
from compliance.settings import ComplianceSettings
from meshkit.contract import Direction, Message, Released, Role, Scope, TraceContext
from meshkit.screening_mac import MacKeys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from typing import TextIO

    from compliance.scanner import Scanner
    from compliance.service import ComplianceService

MAC = MacKeys({1: bytes(range(32))}, 1)
SHORT_CHARS = 100
MEMO_FILL = 21_000
"""Scans before memory is looked at: the verdict memo is full by then."""
LOOK_EVERY = 1_000


class Bench:
    """The scanners and the services under measurement, with names and without."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._fresh = itertools.count(10_000_000)
        """Numbers of prompts that nobody has seen."""

    async def open(self) -> None:
        """Open all of them; raises as `open_scanner` does."""
        enter = self._stack.enter_async_context
        self.names: Scanner = await enter(open_scanner(ComplianceSettings.load()))
        plain = ComplianceSettings.load().model_copy(update={"names": False})
        self.patterns: Scanner = await enter(open_scanner(plain))
        self.screening: ComplianceService = await enter(
            open_compliance(ComplianceSettings.load(), mac_keys=MAC)
        )
        self.short: ComplianceService = await enter(open_compliance(plain, mac_keys=MAC))

    async def scan(self, asked_for: dict[str, Any]) -> dict[str, Any]:
        """`texts`, `names`, `repeats` -> `cpu_s`: one each, the median of its repeats."""
        scanner = self.names if asked_for["names"] else self.patterns
        return {
            "cpu_s": [
                median([await _scanned(scanner, text) for _ in range(asked_for["repeats"])])
                for text in asked_for["texts"]
            ]
        }

    async def again(self, asked_for: dict[str, Any]) -> dict[str, Any]:
        """`texts`, `repeats` -> `first_cpu_s`, one each; `cpu_s` of all later scans. Names on."""
        texts = asked_for["texts"]
        first = [await _scanned(self.names, text) for text in texts]
        later = [
            await _scanned(self.names, text) for text in texts for _ in range(asked_for["repeats"])
        ]
        return {"first_cpu_s": first, "cpu_s": later}

    async def callers(self, asked_for: dict[str, Any]) -> dict[str, Any]:
        """`callers`, `calls` (of each), `load` -> `alone_p99_s`, `p99_s`, wall time of `screen`.

        Each caller waits for its answer, and asks at even distances such that all of them ask for
        the share `load` of what was done alone.
        """
        many, calls = asked_for["callers"], asked_for["calls"]
        alone = [await self._call() for _ in range(many * calls // 2)]
        every = many * median(alone) / asked_for["load"]
        times: list[float] = []

        async def caller(number: int) -> None:
            begin = time.perf_counter() + every * number / many
            for call in range(calls):
                await asyncio.sleep(max(0.0, begin + call * every - time.perf_counter()))
                times.append(await self._call())

        await asyncio.gather(*(caller(number) for number in range(many)))
        return {"alone_p99_s": quantile(alone, 0.99), "p99_s": quantile(times, 0.99)}

    async def _call(self) -> float:
        number = next(self._fresh)
        text = prompt(number)
        began = time.perf_counter()
        await self.screening.screen(_scope(number), [Message(Role.USER, text)])
        return time.perf_counter() - began

    async def memory(self, asked_for: dict[str, Any]) -> dict[str, Any]:
        """`scans`, `seconds` at most -> `scans` done, `grown_mb`, `resident_mb`; patterns only."""
        until = time.monotonic() + asked_for["seconds"]
        await self._short_scans(min(MEMO_FILL, asked_for["scans"]))
        before, done = _resident_mb(), 0
        while done < asked_for["scans"] and time.monotonic() < until:
            await self._short_scans(LOOK_EVERY)
            done += LOOK_EVERY
        return {"scans": done, "grown_mb": _resident_mb() - before, "resident_mb": _resident_mb()}

    async def _short_scans(self, count: int) -> None:
        for _ in range(count):
            number = next(self._fresh)
            text = f"{number} {prompt(number % 64)[:SHORT_CHARS]}"
            await self.short.screen(_scope(number), [Message(Role.USER, text)])

    async def stream(self, asked_for: dict[str, Any]) -> dict[str, Any]:
        """`tokens_per_s`, `answers` (of ten paragraphs) -> `first_s`, `gaps_s`, `cpu_s_per_token`.

        first_s: from the model's first token to the first released piece. gaps_s: between pieces.
        """
        pause = 1 / asked_for["tokens_per_s"]
        firsts: list[float] = []
        gaps: list[float] = []
        spent, said = time.process_time(), 0
        for _ in range(asked_for["answers"]):
            number = next(self._fresh)
            pieces = tokens(" ".join(answer(number + place) for place in range(4)))
            said += len(pieces)
            began = last = time.perf_counter()
            async for piece in self.screening.release(_scope(number), _paced(pieces, pause)):
                if isinstance(piece, Released):
                    continue
                now = time.perf_counter()
                (firsts if last == began else gaps).append(now - last)
                last = now
        cpu = (time.process_time() - spent) / said
        return {"first_s": firsts, "gaps_s": gaps, "cpu_s_per_token": cpu}


def _scope(number: int) -> Scope:
    trace = TraceContext(trace_id=number.to_bytes(16), span_id=number.to_bytes(8))
    return Scope(call_id=number.to_bytes(16), tenant="bench", principal="spiffe://x/y", trace=trace)


async def _paced(pieces: list[str], pause: float) -> AsyncIterator[str]:
    begin = time.perf_counter()
    for number, piece in enumerate(pieces):
        await asyncio.sleep(max(0.0, begin + number * pause - time.perf_counter()))
        yield piece


async def _scanned(scanner: Scanner, text: str) -> float:
    began = time.process_time()
    windows = scanner.windows(text)
    findings_of(windows, await scanner.scan(windows, Direction.PROMPT))
    return time.process_time() - began


def _resident_mb() -> float:
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 -- read often
        pages = int(file.read().split()[1])
    return pages * resource.getpagesize() / 2**20


def _age_s() -> float:
    """Seconds since this process was born, to a hundredth (proc(5), field 22 of stat)."""
    with open("/proc/self/stat", encoding="ascii") as file:  # noqa: PTH123 -- proc
        ticks = int(file.read().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


DEEDS: dict[str, Callable[[Bench, dict[str, Any]], Awaitable[dict[str, Any]]]] = {
    "scan": Bench.scan,
    "again": Bench.again,
    "callers": Bench.callers,
    "memory": Bench.memory,
    "stream": Bench.stream,
}
"""What the parent may ask for."""


async def main(parent: TextIO) -> None:
    """Open one scanner and say how long that took; then answer standard input until it ends."""
    async with AsyncExitStack() as stack:
        async with open_scanner(ComplianceSettings.load()) as scanner:
            await _scanned(scanner, "Ada Lovelace lives in London.")
            await _scanned(scanner, "李小龙住在北京市。")
            parent.write(json.dumps({"start_s": _age_s(), "memory_mb": _resident_mb()}) + "\n")
        bench = Bench(stack)
        await bench.open()
        while line := await asyncio.to_thread(sys.stdin.readline):
            asked_for = json.loads(line)
            told = await DEEDS[asked_for["do"]](bench, asked_for)
            parent.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    pin_as_told()
    # Standard output is the parent's; whatever logs goes where messages go.
    with os.fdopen(os.dup(1), "w", buffering=1) as lines:
        os.dup2(2, 1)
        asyncio.run(main(lines))
