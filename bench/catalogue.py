"""The figures by name: unit, budget, stretch, and whether a measurement met them. PURE.

The names are stable: people and scripts read them in `bench/results/latest.json`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from bench.statistics import median, pair_ratios, spread


class Verdict(StrEnum):
    """How a measurement stands to its budget."""

    STRETCH = "stretch"
    """Met, and the stretch goal as well."""
    MET = "met"
    MISSED = "missed"
    """Published all the same; docs/bench.md says why."""
    PLAIN = "-"
    """There is no budget for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a figure ought to be."""

    of: Literal["value", "ratio"]
    better: Literal["higher", "lower"]
    budget: float
    stretch: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One figure of the catalogue."""

    unit: str
    meaning: str
    budget: Budget | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measurement.

    value, reference: in the unit of the catalogue; ratio: median over the pairs of value over
    reference. Both None where there is nothing to compare with.
    """

    name: str
    value: float
    reference: float | None = None
    ratio: float | None = None
    spread: float | None = None
    """Of the pair ratios, or of the repeats: see `bench.statistics.spread`."""
    note: str = ""
    """Conditions a reader must know, such as how busy the core was. Constants and numbers."""

    @property
    def verdict(self) -> Verdict:
        """Judge by the catalogue's budget."""
        return judge(self, ENTRIES[self.name].budget)


def judge(figure: Figure, budget: Budget | None) -> Verdict:
    """Compare a measurement with its budget; a ratio budget without a ratio is missed."""
    if budget is None:
        return Verdict.PLAIN
    seen = figure.value if budget.of == "value" else figure.ratio
    if seen is None:
        return Verdict.MISSED
    if _reaches(seen, budget.stretch, budget.better):
        return Verdict.STRETCH
    return Verdict.MET if _reaches(seen, budget.budget, budget.better) else Verdict.MISSED


def _reaches(seen: float, goal: float, better: Literal["higher", "lower"]) -> bool:
    return seen >= goal if better == "higher" else seen <= goal


def paired(
    name: str, ours: tuple[float, ...], theirs: tuple[float, ...], *, note: str = ""
) -> Figure:
    """Make a figure from interleaved pairs: medians of both, and the median of the ratios."""
    ratios = pair_ratios(ours, theirs)
    return Figure(
        name=name,
        value=median(ours),
        reference=median(theirs),
        ratio=median(ratios),
        spread=spread(ratios),
        note=note,
    )


def repeated(name: str, values: tuple[float, ...], *, note: str = "") -> Figure:
    """Make a figure without a reference from repeats."""
    return Figure(name=name, value=median(values), spread=spread(values), note=note)


def _ratio(better: Literal["higher", "lower"], budget: float, stretch: float) -> Budget:
    return Budget(of="ratio", better=better, budget=budget, stretch=stretch)


def _value(better: Literal["higher", "lower"], budget: float, stretch: float) -> Budget:
    return Budget(of="value", better=better, budget=budget, stretch=stretch)


ENTRIES: dict[str, Entry] = {
    "echo_rps": Entry(unit="requests/s", meaning="the reference: bare grpc.aio echo over mTLS"),
    "echo_self_ratio": Entry(
        unit="ratio", meaning="that echo against itself: how far 1.0 is missed is the noise"
    ),
    "governed_hit_rps": Entry(
        unit="requests/s",
        meaning="governed unary call, cache hit, one core for the server",
        budget=_ratio("higher", 0.25, 0.6),
    ),
    "governed_hit_p50": Entry(
        unit="ms",
        meaning="median latency of such a call, one at a time, fsyncs included",
        budget=_ratio("lower", 8, 3),
    ),
    "governed_hit_p99": Entry(
        unit="ms", meaning="99th percentile of the same", budget=_ratio("lower", 12, 5)
    ),
    "governed_miss_rps": Entry(
        unit="requests/s",
        meaning="new prompt and new answer each time, null engine, both screenings run",
        budget=_ratio("higher", 0.015, 0.1),
    ),
    "governed_mesh_rps": Entry(
        unit="requests/s",
        meaning="governed unary call, cache hit, five processes on the whole host",
        budget=_ratio("higher", 0.12, 0.4),
    ),
    "mesh_hop_us": Entry(
        unit="us", meaning="CPU that a hop between two services costs, both its ends"
    ),
    "mesh_memory_idle_mb": Entry(
        unit="MB", meaning="resident memory of the five processes after their start, null engine"
    ),
    "mesh_memory_grown_mb": Entry(unit="MB", meaning="what they grew by over so many calls"),
    "stream_token_us": Entry(
        unit="us/token",
        meaning="CPU a token that gateway and compliance add, 16 streams at 200 tokens/s each",
        budget=_value("lower", 60, 15),
    ),
    "ttft_added_cpu_ms": Entry(
        unit="ms",
        meaning="CPU spent before the first released character of a new prompt",
        budget=_value("lower", 10, 3),
    ),
    "holdback_chars": Entry(
        unit="characters", meaning="what the engine has said when the first piece is released"
    ),
    "audit_events_per_s": Entry(
        unit="events/s",
        meaning="durable events, one writer, 64 clients over gRPC, batched appends, 2 cores",
        budget=_value("higher", 5_000, 20_000),
    ),
    "audit_append_p99_ms": Entry(
        unit="ms",
        meaning="99th percentile of the time to the durable ack, at half that rate",
        budget=_value("lower", 25, 10),
    ),
    "audit_append_p99_2500_ms": Entry(
        unit="ms",
        meaning="the same at 2,500 events/s, whatever the highest rate is",
    ),
    "cache_l1_hit_us": Entry(
        unit="us",
        meaning="L1 hit in process, sealed value",
        budget=_value("lower", 25, 10),
    ),
    "cache_l2_vs_get": Entry(
        unit="us",
        meaning="L2 hit, one at a time, over a bare redis-py GET of that size, both by TLS",
        budget=_ratio("lower", 1.6, 1.2),
    ),
    "step_authenticate_us": Entry(unit="us", meaning="certificate to actor"),
    "step_admit_us": Entry(unit="us", meaning="limits: reserve and settle"),
    "step_authorize_us": Entry(unit="us", meaning="Cedar decision"),
    "step_screen_us": Entry(unit="us", meaning="prompt not seen before, names on"),
    "step_screen_again_us": Entry(unit="us", meaning="prompt seen before"),
    "step_look_up_us": Entry(unit="us", meaning="cache look-up that hits"),
    "step_release_us": Entry(unit="us", meaning="answer not seen before, names on"),
    "step_commit_us": Entry(unit="us", meaning="the four salted commitments of a call"),
    "step_seal_us": Entry(unit="us", meaning="payload sealed"),
    "step_append_us": Entry(
        unit="us", meaning="INTENT and OUTCOME of a call, durable, 64 calls at once"
    ),
    "step_intent_us": Entry(unit="us", meaning="INTENT, what is left to wait for after look-up"),
    "step_outcome_us": Entry(unit="us", meaning="OUTCOME made, sealed, durable, receipt signed"),
    "step_serialise_us": Entry(unit="us", meaning="request parsed, response serialised"),
    "screen_2k_vs_presidio": Entry(
        unit="scans/s",
        meaning="2,000 English characters, patterns and names, over Presidio's AnalyzerEngine",
        budget=_ratio("higher", 2, 6),
    ),
    "screen_2k_patterns_vs_presidio": Entry(
        unit="scans/s",
        meaning="the same, patterns only",
        budget=_ratio("higher", 250, 600),
    ),
    "screen_patterns_2k_us": Entry(
        unit="us",
        meaning="patterns only, 2,000 English characters, median",
        budget=_value("lower", 450, 250),
    ),
    "screen_patterns_20k_us": Entry(unit="us", meaning="the same, 20,000 characters"),
    "screen_patterns_200k_us": Entry(unit="us", meaning="the same, 200,000 characters"),
    "screen_patterns_1m_us": Entry(unit="us", meaning="the same, 1,000,000 characters"),
    "screen_growth_exponent": Entry(
        unit="exponent",
        meaning="how that time grows with the length: 1 is linear, 2 quadratic",
        budget=_value("lower", 1.2, 1.05),
    ),
    "screen_200_names_ms": Entry(
        unit="ms",
        meaning="200 English characters not seen before, patterns and names",
        budget=_value("lower", 6, 3),
    ),
    "screen_200_again_ms": Entry(unit="ms", meaning="the same once more: no model is asked"),
    "screen_32_callers_p99_ms": Entry(
        unit="ms",
        meaning="99th percentile of screening such a prompt, 32 callers, over one alone",
        budget=_ratio("lower", 4, 2),
    ),
    "screen_start_s": Entry(
        unit="s", meaning="birth to first names found", budget=_value("lower", 1.5, 1.0)
    ),
    "screen_memory_mb": Entry(
        unit="MB", meaning="resident memory by then", budget=_value("lower", 250, 200)
    ),
    "screen_grown_mb": Entry(
        unit="MB",
        meaning="resident memory gained over many short scans",
        budget=_value("lower", 8, 2),
    ),
    "release_first_ms": Entry(
        unit="ms", meaning="from the model's first token to the first released piece"
    ),
    "release_gap_p99_ms": Entry(
        unit="ms", meaning="99th percentile of the time between released pieces"
    ),
    "release_token_cpu_us": Entry(unit="us/token", meaning="CPU that a token costs there"),
    "on_top_tokens_1": Entry(
        unit="tokens/s",
        meaning="SmolLM2 through the whole appliance, one stream, over the engine by itself",
        budget=_ratio("higher", 0.9, 0.97),
    ),
    "on_top_tokens_16": Entry(
        unit="tokens/s", meaning="the same, 16 streams", budget=_ratio("higher", 0.9, 0.97)
    ),
    "on_top_first_ms_1": Entry(
        unit="ms", meaning="to the first text of such a stream, over the engine by itself"
    ),
    "on_top_first_ms_16": Entry(unit="ms", meaning="the same, 16 streams"),
    "smollm2_decode_tokens_per_s": Entry(
        unit="tokens/s", meaning="torch engine, SmolLM2-135M on this CPU, one stream"
    ),
    "torch_decode_vs_llamacpp": Entry(
        unit="tokens/s",
        meaning="the same over llama.cpp's on the same file, as many threads",
        budget=_ratio("higher", 0.8, 1.1),
    ),
    "torch_decode_vs_transformers": Entry(
        unit="tokens/s",
        meaning="the same over transformers' in fp32, weights dequantised, as many threads",
        budget=_ratio("higher", 2, 4),
    ),
    "smollm2_8_streams_tokens_per_s": Entry(
        unit="tokens/s",
        meaning="all of eight streams together, over one stream",
        budget=_ratio("higher", 4, 5),
    ),
    "smollm2_8_streams_vs_llamacpp": Entry(
        unit="tokens/s",
        meaning="all of eight streams together, over llama.cpp's in one batch of eight",
        budget=_ratio("higher", 0.8, 1.1),
    ),
    "smollm2_first_token_ms": Entry(
        unit="ms",
        meaning="time to the first token of a short prompt, over llama.cpp's",
        budget=_ratio("lower", 1, 0.5),
    ),
}
