"""Our figures beside a baseline's, on the same texts: where we are below, and by how much. PURE.

    {"policy", "policy_digest", "names", "sealgate": SUMMARY,
     "baselines": [{"name", "model", "threshold", "summary": SUMMARY}],
     "comparison": {"against", "leaked_ratio", "below": [{"by", "name", "f2", "baseline_f2",
                    "leak", "baseline_leak", "lower_f2", "leaks_more"}], "alarms_more",
                    "covers_less", "beaten"} | null}

SUMMARY is `Evaluation.summary()`. The comparison is against the first baseline. `beaten` says that
overall and in no type, group, source or language our F2 is lower or we leak a larger share of
characters, that we alarm on no more hard negatives and cover no fewer hidden spans. What is below
within a group (`"by": "cell"`, named `group/type`) is told but does not decide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compliance.measures import Alarms

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from compliance.evaluate import Evaluation
    from compliance.findings import Finding
    from compliance.measures import Row

__all__ = ["Baseline", "compared", "document", "lines"]

SLACK = 0.0005
"""Differences below half a thousandth are none."""
CELL_GOLD_MIN = 5
"""A type has to occur so often in a group to be told."""
TOLD = {"type": "by type", "group": "by group", "language": "by language"}


@dataclass(frozen=True, slots=True)
class Baseline:
    """Another tool's evaluation on the same texts. threshold: findings below it do not count."""

    name: str
    model: str
    threshold: float
    evaluation: Evaluation

    def counted(self, findings: Sequence[Finding]) -> list[Finding]:
        """What of its findings reaches the threshold."""
        return [finding for finding in findings if finding.score >= self.threshold]


def document(
    ours: Evaluation, baselines: Sequence[Baseline], about: dict[str, Any]
) -> dict[str, Any]:
    """Return everything as JSON may hold it; see the module's docstring."""
    return about | {
        "sealgate": ours.summary(),
        "baselines": [
            {
                "name": one.name,
                "model": one.model,
                "threshold": one.threshold,
                "summary": one.evaluation.summary(),
            }
            for one in baselines
        ],
        "comparison": compared(ours, baselines[0]) if baselines else None,
    }


def compared(ours: Evaluation, baseline: Baseline) -> dict[str, Any]:
    """Return where we are below the baseline, and whether we beat it; see the docstring above."""
    theirs = baseline.evaluation
    below = list(_below(ours, theirs))
    leaked = theirs.total.leaked
    alarms_more = _alarms(ours).rate > _alarms(theirs).rate + SLACK
    covers_less = ours.covered().coverage < theirs.covered().coverage - SLACK
    decisive = [row for row in below if row["by"] != "cell"]
    return {
        "against": f"{baseline.name}, threshold {baseline.threshold:g}",
        "leaked_ratio": round(ours.total.leaked / leaked, 4) if leaked else None,
        "below": below,
        "alarms_more": alarms_more,
        "covers_less": covers_less,
        "beaten": not (decisive or alarms_more or covers_less),
    }


def _alarms(evaluation: Evaluation) -> Alarms:
    return evaluation.alarms.get("ALL", Alarms())


def _below(ours: Evaluation, theirs: Evaluation) -> Iterator[dict[str, Any]]:
    yield from _row_below("all", "ALL", ours.total, theirs.total)
    for by, rows in ours.by.items():
        for name in sorted(rows):
            if rows[name].gold >= (CELL_GOLD_MIN if by == "cell" else 1):
                yield from _row_below(by, name, rows[name], theirs.by[by][name])


def _row_below(by: str, name: str, ours: Row, theirs: Row) -> Iterator[dict[str, Any]]:
    lower, more = ours.f(2) < theirs.f(2) - SLACK, ours.leak > theirs.leak + SLACK
    if lower or more:
        yield {
            "by": by,
            "name": name,
            "f2": round(ours.f(2), 4),
            "baseline_f2": round(theirs.f(2), 4),
            "leak": round(ours.leak, 4),
            "baseline_leak": round(theirs.leak, 4),
            "lower_f2": lower,
            "leaks_more": more,
        }


# --- as text --------------------------------------------------------------------------------

_FIGURES = ("precision", "recall", "f1", "f2", "leak")
_HEADINGS = "".join(f"{name:>7}" for name in ("P", "R", "F1", "F2", "leak"))


def lines(told: dict[str, Any]) -> Iterator[str]:
    """Lay a document out for people, line by line."""
    baselines, ours = told["baselines"], told["sealgate"]
    names = "names and patterns" if told["names"] else "patterns only"
    yield f"{ours['texts']:,} texts, policy {told['policy']}, {names}"
    for one in baselines:
        yield f"beside {_title(one)}, {one['model']}: all {_cells(one['summary']['overall'])}"
    yield ""
    first = baselines[0]["summary"] if baselines else None
    beside = f" |{_HEADINGS}   {_title(baselines[0])}" if baselines else ""
    yield f"{'':<28}{'gold':>6} |{_HEADINGS}{beside}"
    yield _line("all", ours["overall"], first and first["overall"])
    for by, title in TOLD.items():
        yield from ("", title)
        for name, row in ours["by"][by].items():
            yield _line(name, row, first and first["by"][by].get(name))
    yield from _sets(ours, first)
    if told["comparison"] is not None:
        yield from _verdict(told["comparison"])


def _title(baseline: dict[str, Any]) -> str:
    return f"{baseline['name']}, threshold {baseline['threshold']:g}"


def _cells(row: dict[str, float]) -> str:
    return "".join(f"{row[name]:>7.3f}" for name in _FIGURES)


def _line(name: str, ours: dict[str, Any], theirs: dict[str, Any] | None) -> str:
    text = f"{name[:27]:<28}{ours['gold']:>6} |{_cells(ours)}"
    if theirs is None:
        return text
    marks = []
    if ours["gold"] and ours["f2"] < theirs["f2"] - SLACK:
        marks.append("BELOW")
    if ours["gold"] and ours["leak"] > theirs["leak"] + SLACK:
        marks.append("LEAKS MORE")
    return f"{text} |{_cells(theirs)}   {', '.join(marks)}".rstrip()


def _sets(ours: dict[str, Any], theirs: dict[str, Any] | None) -> Iterator[str]:
    if ours["hard_negatives"]:
        yield from ("", "hard negatives: share of texts with an alarm")
        for name, row in ours["hard_negatives"].items():
            beside = f" | {theirs['hard_negatives'][name]['rate']:>7.3f}" if theirs else ""
            yield f"{name:<28}{row['texts']:>6} | {row['rate']:>6.3f}{beside}"
    if ours["adversarial"]:
        yield from ("", "hidden by a technique: share of spans covered")
        for name, row in ours["adversarial"].items():
            beside = f" | {theirs['adversarial'][name]['coverage']:>7.3f}" if theirs else ""
            yield f"{name[:27]:<28}{row['spans']:>6} | {row['coverage']:>6.3f}{beside}"
    yield from (
        "",
        f"masked in vain: {ours['masked_in_vain']:.4f} of the characters of no value",
    )


def _verdict(comparison: dict[str, Any]) -> Iterator[str]:
    ratio = comparison["leaked_ratio"]
    if ratio is not None:
        yield f"leaked characters: {ratio:.3f} of what {comparison['against']} leaks"
    within = [row["name"] for row in comparison["below"] if row["by"] == "cell"]
    if within:
        yield f"below or leaking more within a group: {', '.join(within)}"
    yield "nowhere below it" if comparison["beaten"] else "somewhere below it, see the marks"
