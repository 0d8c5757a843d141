"""Why something was found, or was not: the same scan once more, slowly, with a witness. PURE.

    explain(text, parts, Direction.PROMPT) -> JSON as below

    {"policy", "direction",
     "windows":  [{"start", "end", "kind", "names_asked"}],
     "findings": [CANDIDATE & {"action", "stands_for_it"}],
     "dropped":  [CANDIDATE & {"why"}]}

    CANDIDATE = {"type", "subtype", "start", "end", "score", "recognizer", "evidence"}
    evidence  = {"check", "context", "veto", "score_alone", "score_near", "source"} | null

Offsets are code points of the text. No value of the text is in it, but for the few last characters
that the policy keeps anyway, and the context word, which is one of ours. `why` is one of `Why`.
`evidence` is null for what models and block marks find. What was dropped within decoded text is not
told: it has no place of its own.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from compliance.engine import SPAN_MAX
from compliance.normalise import fold
from compliance.stream import Kind, windows
from compliance.transform import block_finding, decide, masked
from meshkit.contract import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from compliance.findings import Finding
    from compliance.policy import Policy
    from compliance.scanner import Finder, NameRunner
    from compliance.stream import Window
    from compliance.witness import Notes, Seen
    from meshkit.contract import Direction

__all__ = ["Parts", "Why", "explain"]


class Why(StrEnum):
    """Why a candidate was dropped."""

    PLACEHOLDER = "it is a mark of ours, not a value"
    CHECK = "its checksum or form does not hold"
    VETO = "a word before it says that it is something else"
    CONTEXT = "no context word stands near by"
    LENGTH = "it is longer than a finding may be"
    THRESHOLD = "its score is below the policy's threshold"
    OVERLAP = "a finding that overlaps it stands"


@dataclass(frozen=True, slots=True)
class Parts:
    """What a scan is made of. finder: built over recognizers that `notes` watches."""

    finder: Finder
    notes: Notes
    policy: Policy
    names: NameRunner | None = None


def explain(text: str, parts: Parts, direction: Direction) -> dict[str, Any]:
    """Scan `text` and tell what made each finding and what was considered; see the docstring.

    Raises:
        Refusal: COMPLIANCE_DOWN, if a recognizer fails.
    """

    def crossing(held: str) -> Iterator[tuple[int, int]]:
        return ((found.start, found.end) for found in parts.finder.find(held, 0))

    told: dict[str, list[Any]] = {"windows": [], "findings": [], "dropped": []}
    for window in windows(text, crossing):
        named = None if parts.names is None else _named(parts.names, window)
        place = {"start": window.start, "end": window.end}
        told["windows"].append(
            place | {"kind": window.kind.value, "names_asked": named is not None}
        )
        if window.kind is not Kind.REST:
            _window(window, named or [], parts, direction, told)
        elif told["findings"]:
            # The rest of a block belongs to the finding that its mark is.
            told["findings"][-1]["end"] = window.end
    for rows in (told["findings"], told["dropped"]):
        rows.sort(key=lambda row: (row["start"], row["end"], row["recognizer"]))
    about = {"policy": parts.policy.name, "direction": direction.value}
    return about | told


def _window(
    window: Window,
    named: list[Finding],
    parts: Parts,
    direction: Direction,
    told: dict[str, list[Any]],
) -> None:
    parts.notes.forget()
    raw = list(parts.finder.find(window.text, window.core))
    seen = list(parts.notes.seen)
    if (block := block_finding(window)) is not None:
        raw.append(block)
    raw += named
    policy = parts.policy
    kept = decide(raw, policy, direction)
    shift = window.start - window.core
    folded = fold(window.text)
    evidence = _Evidence(seen, folded.text)
    for finding in raw:
        row = _row(finding, shift) | {"evidence": evidence.of(finding)}
        if finding in kept:
            action = policy.decide(finding.type, finding.subtype, direction).action.value
            alone = replace(finding, start=0, end=finding.end - finding.start)
            value = window.text[finding.start : finding.end]
            row |= {"action": action, "stands_for_it": masked(value, [alone], policy, direction)}
            if row["stands_for_it"] == value:
                row["stands_for_it"] = None
            told["findings"].append(row)
        else:
            admitted = policy.admits(finding, direction)
            told["dropped"].append(row | {"why": Why.OVERLAP if admitted else Why.THRESHOLD})
    for one in evidence.unused():
        start, end = folded.span(one.first, one.last)
        if end > window.core and one.first < one.last:
            kind = {"type": one.recognizer.type, "subtype": one.recognizer.subtype}
            where = {"start": start + shift, "end": end + shift, "score": 0.0}
            name = {"recognizer": one.recognizer.name, "evidence": _told(one), "why": _why(one)}
            told["dropped"].append(kind | where | name)


def _named(names: NameRunner, window: Window) -> list[Finding] | None:
    try:
        ask = names.ask(window)
        return None if ask is None else ask.find()
    except Exception:  # noqa: BLE001 -- a model's message might quote the text
        raise Refusal(Reason.COMPLIANCE_DOWN) from None


class _Evidence:
    """Joins findings with what was seen of them."""

    def __init__(self, seen: Sequence[Seen], plain: str) -> None:
        self._seen = list(seen)
        self._plain = plain

    def of(self, finding: Finding) -> dict[str, Any] | None:
        """Take out what was seen when this was found; findings come in the order of what was."""
        name, _, rule = finding.recognizer.partition("+")
        for place, one in enumerate(self._seen):
            same = one.recognizer.name == name and bool(rule) == (one.text != self._plain)
            if same and _score_fits(one, finding.score):
                return _told(self._seen.pop(place))
        return None

    def unused(self) -> list[Seen]:
        """What was seen in the plain reading and not found."""
        return [one for one in self._seen if one.text == self._plain]


def _score_fits(seen: Seen, score: float) -> bool:
    """Whether the engine, having seen this, can have given that score; a dropped one has 0."""
    alone, near = seen.recognizer.rejected if seen.check is False else seen.recognizer.score
    return score == near if seen.context else score <= alone


def _why(seen: Seen) -> Why:
    _, near = seen.recognizer.rejected if seen.check is False else seen.recognizer.score
    if seen.last - seen.first > SPAN_MAX:
        return Why.LENGTH
    if seen.check is False and near == 0.0:
        return Why.CHECK
    if seen.veto:
        return Why.VETO
    if seen.check is None and seen.recognizer.check is not None:
        return Why.PLACEHOLDER
    return Why.CONTEXT


def _told(seen: Seen) -> dict[str, Any]:
    recognizer = seen.recognizer
    alone, near = recognizer.rejected if seen.check is False else recognizer.score
    check = None if seen.check is None else "holds" if seen.check else "does not hold"
    return {
        "check": check,
        "context": seen.context or None,
        "veto": seen.veto or None,
        "score_alone": alone,
        "score_near": near,
        "source": recognizer.source,
    }


def _row(finding: Finding, shift: int) -> dict[str, Any]:
    row = asdict(finding)
    return row | {
        "start": finding.start + shift,
        "end": finding.end + shift,
        "score": round(finding.score, 4),
    }
