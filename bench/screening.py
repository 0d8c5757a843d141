"""What the personal-data filter costs by itself, and against Presidio on the same texts.

Both run in processes of their own, pinned to the same core, and take their times inside; they are
asked in turns, so that neither works while the other does. English of 2,000 characters is ten of
the workload's prompts: a person and a card number in each. Every text is new to both, so that no
memo answers. CPU time throughout, except where a figure says wall.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from bench.catalogue import Figure, paired, repeated
from bench.children import ROOT, cores
from bench.statistics import median, quantile
from bench.workload import prompt
from compliance.presidio import BaselineError, Presidio, open_presidio

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.plan import Plan

VERSUS = {"screen_2k_vs_presidio": True, "screen_2k_patterns_vs_presidio": False}
"""Figure -> whether names are asked for."""
CURVE = {
    "screen_patterns_2k_us": 2_000,
    "screen_patterns_20k_us": 20_000,
    "screen_patterns_200k_us": 200_000,
    "screen_patterns_1m_us": 1_000_000,
}
GROWTH = "screen_growth_exponent"
STREAM = ("release_first_ms", "release_gap_p99_ms", "release_token_cpu_us")
NAMES = (
    *VERSUS,
    *CURVE,
    GROWTH,
    "screen_200_names_ms",
    "screen_200_again_ms",
    "screen_32_callers_p99_ms",
    "screen_start_s",
    "screen_memory_mb",
    "screen_grown_mb",
    *STREAM,
)
PRESIDIO = ROOT / "var" / "presidio"
SET_UP = ROOT / "deploy" / "presidio_baseline.py"
TEXTS_A_PAIR = 4
CALLERS, CALLS, LOAD = 32, 6, 0.5
TOKENS_PER_S = 200
SCANS = "BENCH_SCANS"
"""Environment: short scans over which memory must not grow; one million without it."""
SCANS_MAX_S = 75
STARTS = 3


class Side:
    """Our process, asked line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._in: IO[str] = process.stdin
        self._out: IO[str] = process.stdout
        self.born = self._told()

    def do(self, what: str, **how: Any) -> dict[str, Any]:  # noqa: ANN401 -- JSON
        """Ask for one of `bench.screening_child.DEEDS` and wait."""
        self._in.write(json.dumps({"do": what} | how) + "\n")
        self._in.flush()
        return self._told()

    def cpu_s(self, texts: Sequence[str], *, names: bool, repeats: int = 1) -> list[float]:
        """CPU time of a scan of each text."""
        told: list[float] = self.do("scan", texts=texts, names=names, repeats=repeats)["cpu_s"]
        return told

    def _told(self) -> dict[str, Any]:
        line = self._out.readline()
        if not line:
            msg = "bench.screening_child ended; its messages stand above"
            raise RuntimeError(msg)
        told: dict[str, Any] = json.loads(line)
        return told


@contextmanager
def our_side() -> Iterator[Side]:
    """Run compliance in a process of its own for as long as the block runs."""
    pinned = ",".join(str(core) for core in sorted(cores()[0]))
    with subprocess.Popen(
        [sys.executable, "-m", "bench.screening_child"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"BENCH_CORES": pinned},
    ) as process:
        try:
            yield Side(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()


async def measure(plan: Plan) -> list[Figure]:
    """Measure what is wanted; without Presidio its two figures are left out, and it says so."""
    figures: list[Figure] = []
    with our_side() as ours:
        if plan.wants(*VERSUS):
            figures += _against_presidio(plan, ours)
        if plan.wants(*CURVE, GROWTH):
            figures += _curve(plan, ours)
        if plan.wants("screen_200_names_ms", "screen_200_again_ms"):
            figures += _short(plan, ours)
        if plan.wants("screen_32_callers_p99_ms"):
            figures.append(_callers(plan, ours))
        if plan.wants(*STREAM):
            figures += _stream(plan, ours)
        if plan.wants("screen_grown_mb"):
            figures.append(_memory(plan, ours))
        born = [ours.born]
    if plan.wants("screen_start_s", "screen_memory_mb"):
        figures += _starts(plan, born)
    return figures


def english(chars: int, number: int) -> str:
    """Return text `number` of that many characters: prompts in a row, each a line."""
    first = 1_000_000 * number
    count = -(-chars // 200)
    return "\n".join(prompt(first + place)[:199] for place in range(count))[:chars].ljust(
        chars, "."
    )


def _against_presidio(plan: Plan, ours: Side) -> list[Figure]:
    subprocess.run([sys.executable, str(SET_UP), "--into", str(PRESIDIO)], check=False)
    try:
        with open_presidio(PRESIDIO, pinned_to=cores()[0]) as presidio:
            return [_versus(plan, ours, presidio, name) for name in VERSUS if plan.wants(name)]
    except BaselineError as error:
        print(f"screening: {error}; not measured: {', '.join(VERSUS)}", flush=True)
        return []


def _versus(plan: Plan, ours: Side, presidio: Presidio, name: str) -> Figure:
    """Scans a second of both, pair by pair on the same texts."""
    mine, theirs = [], []
    for pair in range(plan.pairs + 1):
        texts = [english(2_000, 1 + pair * TEXTS_A_PAIR + n) for n in range(TEXTS_A_PAIR)]
        mine.append(1 / median(ours.cpu_s(texts, names=VERSUS[name])))
        theirs.append(1 / median([presidio.cpu_seconds(text, 1)[0] for text in texts]))
    about = presidio.about
    note = (
        f"Presidio {about.version}, {about.model}, up in {about.load_s:.1f} s with "
        f"{about.memory_mb:,.0f} MB; CPU time of new texts, {TEXTS_A_PAIR} a pair"
    )
    # The first pair warms both up.
    return paired(name, tuple(mine[1:]), tuple(theirs[1:]), note=note)


def _curve(plan: Plan, ours: Side) -> list[Figure]:
    """Patterns only, by length, and the exponent of the growth from 2,000 to a million."""
    measured: dict[int, list[float]] = {}
    sizes = list(CURVE.values())
    for size in sizes:
        repeats = 1 if plan.quick else 3 if size > 100_000 else 15
        texts = [english(size, 500 + n) for n in range(1 if size > 100_000 else plan.pairs)]
        ours.cpu_s(texts[:1], names=False)
        measured[size] = [1e6 * s for s in ours.cpu_s(texts, names=False, repeats=repeats)]
    figures = [repeated(name, tuple(measured[size])) for name, size in CURVE.items()]
    least, most = sizes[0], sizes[-1]
    exponent = math.log(median(measured[most]) / median(measured[least])) / math.log(most / least)
    note = f"log of the times over log of the lengths, {least:,} to {most:,} characters; 2 is bad"
    return [*figures, Figure(name=GROWTH, value=exponent, note=note)]


def _short(plan: Plan, ours: Side) -> list[Figure]:
    count = 8 if plan.quick else 96
    spent = ours.cpu_s([prompt(3_000_000 + n) for n in range(count)], names=True)
    again = ours.do("again", texts=[prompt(4_000_000 + n) for n in range(16)], repeats=12)
    first = 1e3 * median(again["first_cpu_s"])
    note = f"the first time {first:.2f} ms; what the models were asked is remembered"
    return [
        repeated("screen_200_names_ms", tuple(1e3 * s for s in spent)),
        repeated("screen_200_again_ms", tuple(1e3 * s for s in again["cpu_s"]), note=note),
    ]


def _callers(plan: Plan, ours: Side) -> Figure:
    alone, many = [], []
    for _ in range(2 if plan.quick else 5):
        told = ours.do("callers", callers=CALLERS, calls=2 if plan.quick else CALLS, load=LOAD)
        alone.append(1e3 * told["alone_p99_s"])
        many.append(1e3 * told["p99_s"])
    note = f"wall; {CALLERS} callers ask for {LOAD:.0%} of what one alone gets done, names on"
    return paired("screen_32_callers_p99_ms", tuple(many), tuple(alone), note=note)


def _stream(plan: Plan, ours: Side) -> list[Figure]:
    told = ours.do("stream", tokens_per_s=TOKENS_PER_S, answers=1 if plan.quick else 8)
    note = f"wall; tokens of 4 characters at {TOKENS_PER_S}/s, names on"
    gaps = [1e3 * gap for gap in told["gaps_s"]]
    return [
        repeated("release_first_ms", tuple(1e3 * s for s in told["first_s"]), note=note),
        Figure(name="release_gap_p99_ms", value=quantile(gaps, 0.99), note=note),
        Figure(name="release_token_cpu_us", value=1e6 * told["cpu_s_per_token"], note=note[6:]),
    ]


def _memory(plan: Plan, ours: Side) -> Figure:
    scans = 2_000 if plan.quick else int(os.environ.get(SCANS, "1000000"))
    told = ours.do("memory", scans=scans, seconds=SCANS_MAX_S if SCANS not in os.environ else 3_600)
    note = (
        f"{told['scans']:,} scans of {100} characters, patterns only, all different, after the "
        f"verdict memo was full; {told['resident_mb']:,.0f} MB then"
    )
    return Figure(name="screen_grown_mb", value=told["grown_mb"], note=note)


def _starts(plan: Plan, born: list[dict[str, Any]]) -> list[Figure]:
    for _ in range(1 if plan.quick else STARTS):
        with our_side() as again:
            born.append(again.born)
    note = "wall, from the birth of the process to the first names found in English and Chinese"
    return [
        repeated("screen_start_s", tuple(one["start_s"] for one in born[1:]), note=note),
        repeated("screen_memory_mb", tuple(one["memory_mb"] for one in born)),
    ]
