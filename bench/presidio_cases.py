"""`python -m bench.presidio_cases --cases FILE [--misses]`: Presidio's own test cases, run on ours.

FILE is JSONL with one case a line: `{"kind": "span" | "span_observed" | "validator", "text",
"expected": [{"start", "end", "presidio_type"}] or true/false/null, "presidio_types",
"recognizer"}`. Only cases of types in `CLAIMED` count; those of others are told apart.

- **recognised**: as Presidio's tests count, at any score: each expected span lies within findings
  of our subtypes for its type, and where none is expected there is none.
- **masked**: by the default policy: each expected span is covered, whatever it is taken for; where
  none is expected, nothing of the type is masked.
- validator: the checksum says what it ought to; Presidio's null ("cannot tell") takes either.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.presidio_types import CLAIMED, VALIDATORS
from compliance.engine import Engine, expressions
from compliance.policy import default_policy
from compliance.prefilter import HyperscanPrefilter
from compliance.recognizers import ALL
from compliance.transform import decide
from meshkit.contract import Direction

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from compliance.findings import Finding

SPANS = frozenset({"span", "span_observed"})
CANDIDATE_MIN = 0.01


@dataclass
class Tally:
    """Cases of one recognizer: how many, how many passed, and which did not."""

    total: int = 0
    recognised: int = 0
    masked: int = 0
    misses: list[str] = field(default_factory=list)


def main(arguments: Sequence[str]) -> int:
    """Run the command line; return 0."""
    parser = argparse.ArgumentParser(prog="python -m bench.presidio_cases")
    parser.add_argument("--cases", type=Path, required=True, metavar="FILE")
    parser.add_argument("--misses", action="store_true", help="list each miss with its text")
    asked = parser.parse_args(arguments)
    with asked.cases.open(encoding="utf-8") as lines:
        tallies, other = run(json.loads(line) for line in lines)
    print(f"{'recognizer':34} {'cases':>5} {'recognised':>10} {'masked':>6}")
    for name, tally in sorted(tallies.items()):
        print(f"{name:34} {tally.total:5} {tally.recognised:10} {tally.masked:6}")
        if asked.misses:
            for miss in tally.misses:
                print(f"    {miss}")
    total = sum(t.total for t in tallies.values())
    recognised = sum(t.recognised for t in tallies.values())
    masked = sum(t.masked for t in tallies.values())
    share = f"{recognised / total:.1%} / {masked / total:.1%}" if total else "-"
    print(f"{'all claimed':34} {total:5} {recognised:10} {masked:6}  {share}")
    print(f"not claimed: {other} cases")
    return 0


def run(cases: Iterable[dict[str, Any]]) -> tuple[dict[str, Tally], int]:
    """Judge every case; return tallies by Presidio's recognizer, and how many are not claimed."""
    engine = Engine(ALL, HyperscanPrefilter(expressions(ALL), None))
    tallies: defaultdict[str, Tally] = defaultdict(Tally)
    other = 0
    for case in cases:
        verdict = _judge(case, engine)
        if verdict is None:
            other += 1
            continue
        tally = tallies[case["recognizer"]]
        recognised, masked, what = verdict
        tally.total += 1
        tally.recognised += recognised
        tally.masked += masked
        if not recognised:
            tally.misses.append(f"{case['kind']}: {case['text'][:70]!r} {what}")
    return tallies, other


def _judge(case: dict[str, Any], engine: Engine) -> tuple[bool, bool, str] | None:
    if case["kind"] == "validator":
        return _validate(case)
    kinds = {x.get("presidio_type", "") for x in case["expected"] or ()} | set(
        case["presidio_types"]
    )
    subtypes = frozenset().union(*(CLAIMED.get(kind, frozenset()) for kind in kinds))
    if case["kind"] not in SPANS or not subtypes:
        return None
    text = case["text"]
    found = [f for f in engine.find(text, 0) if f.score >= CANDIDATE_MIN]
    ours = [f for f in found if f.subtype in subtypes]
    decided = decide(found, default_policy(), Direction.PROMPT)
    expected = [(x["start"], x["end"]) for x in case["expected"]]
    if not expected:
        masked = not any(f.subtype in subtypes for f in decided)
        return not ours, masked, f"found {[(text[f.start : f.end], f.score) for f in ours[:2]]}"
    missing = [text[a:b] for a, b in expected if not _covered(text, a, b, ours)]
    masked = all(_covered(text, a, b, decided) for a, b in expected)
    return not missing, masked, f"missing {missing[:2]}"


def _covered(text: str, start: int, end: int, found: Sequence[Finding]) -> bool:
    """Whether every letter and digit from `start` to `end` lies in a finding."""
    places = {i for i in range(start, end) if text[i].isalnum()} or set(range(start, end))
    for finding in found:
        places -= set(range(finding.start, finding.end))
    return not places


def _validate(case: dict[str, Any]) -> tuple[bool, bool, str] | None:
    (kind,) = case["presidio_types"]
    check = VALIDATORS.get(kind)
    if check is None:
        return None
    expected = case["expected"]
    said = check(case["text"])
    right = expected is None or said is expected
    return right, right, f"said {said}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
