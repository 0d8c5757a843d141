"""Turn findings and a policy into text that may travel, and a count of what was done. PURE."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from compliance.findings import Finding, resolve
from compliance.policy import Action
from compliance.stream import Kind
from meshkit.contract import Direction, FindingCount

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from compliance.policy import Decision, Policy
    from compliance.stream import Window

__all__ = [
    "StandIns",
    "Tally",
    "Treated",
    "block_finding",
    "counts",
    "decide",
    "mask",
    "masked",
    "stands_in",
    "tally",
    "to_tokenise",
    "treat",
]

Tally = Counter[tuple[Direction, str, str, str]]
"""(direction, type, subtype, action) -> how often."""


_IN_NAMES_OF_FIRMS = frozenset({"LOCATION", "ORG"})
_PASSES = frozenset({Action.ALLOW, Action.FLAG})


@dataclass(frozen=True, slots=True)
class Treated:
    """A segment after policy: what may leave of it, and whether it stops everything."""

    text: str
    blocked: bool


def block_finding(window: Window) -> Finding | None:
    """The finding that a block mark is in itself, in the window's offsets; None for text."""
    end = len(window.text)
    if window.kind is Kind.PEM:
        return Finding("SECRET", "PRIVATE_KEY", window.core, end, 0.99, "pem_block")
    if window.kind is Kind.BASE64:
        return Finding("SECRET", "ENCODED_BLOCK", window.core, end, 0.9, "base64_block")
    return None


def decide(found: Iterable[Finding], policy: Policy, direction: Direction) -> list[Finding]:
    """Keep what reaches its threshold, resolve overlaps; in order, disjoint.

    What is allowed hides nothing that is not, but for places: an address in a link is masked though
    links pass, and so is a person in what was taken for a company's name; its town passes with it.
    """
    admitted = [finding for finding in found if policy.admits(finding, direction)]
    while True:
        kept = resolve(admitted)
        passing = {
            f for f in kept if policy.decide(f.type, f.subtype, direction).action is Action.ALLOW
        }
        hiding = {f for f in passing if _hides(f, admitted, policy, direction)}
        if not hiding:
            return kept
        admitted = [finding for finding in admitted if finding not in hiding]


def _hides(
    finding: Finding, admitted: Sequence[Finding], policy: Policy, direction: Direction
) -> bool:
    return any(
        other.start < finding.end
        and finding.start < other.end
        and other.type not in _IN_NAMES_OF_FIRMS
        and policy.decide(other.type, other.subtype, direction).action is not Action.ALLOW
        for other in admitted
    )


def mask(finding: Finding, value: str, keep_last: int) -> str:
    """Return what stands in the place of `value`: `[CREDIT_CARD]`, or `[CREDIT_CARD:1111]`.

    At most `keep_last` letters or digits are kept, and never more than a quarter of the value.
    """
    kept = "".join(filter(str.isalnum, value))
    keep = min(keep_last, len(kept) // 4)
    return f"[{finding.type}:{kept[-keep:]}]" if keep else f"[{finding.type}]"


class StandIns(Protocol):
    """What stands for values under keys; `compliance.token_vault.StandIns` is one."""

    def hash(self, type_: str, value: str) -> str:
        """Return a digest that equal values of a tenant share."""
        ...

    def token(self, type_: str, value: str) -> str:
        """Return the token of a value that `to_tokenise` told of."""
        ...


def treat(
    text: str,
    findings: Sequence[Finding],
    policy: Policy,
    direction: Direction,
    stand_ins: StandIns | None = None,
) -> Treated:
    """Apply the policy's actions to `text`; `findings` lie in it, disjoint and in order."""
    actions = (policy.decide(f.type, f.subtype, direction).action for f in findings)
    if Action.BLOCK in actions:
        return Treated("", blocked=True)
    return Treated(masked(text, findings, policy, direction, stand_ins), blocked=False)


def masked(
    text: str,
    findings: Sequence[Finding],
    policy: Policy,
    direction: Direction,
    stand_ins: StandIns | None = None,
) -> str:
    """Put what policy says in the place of each finding; what it blocks is masked.

    stand_ins: without any, as offline where there are no keys, hashes and tokens are masks too.
    """
    parts: list[str] = []
    done = 0
    for finding in findings:
        decision = policy.decide(finding.type, finding.subtype, direction)
        if decision.action not in _PASSES:
            value = text[finding.start : finding.end]
            parts += (text[done : finding.start], _stand_in(finding, value, decision, stand_ins))
            done = finding.end
    return "".join((*parts, text[done:]))


def _stand_in(finding: Finding, value: str, decision: Decision, stand_ins: StandIns | None) -> str:
    if decision.action is Action.REPLACE:
        return decision.replacement
    if stand_ins is not None and decision.action is Action.HASH:
        return stand_ins.hash(finding.type, value)
    if stand_ins is not None and decision.action is Action.TOKENISE:
        return stand_ins.token(finding.type, value)
    return mask(finding, value, decision.keep_last)


def stands_in(policy: Policy) -> bool:
    """Whether the policy puts tokens or hashes into texts."""
    keyed = {Action.HASH, Action.TOKENISE}
    return any(
        policy.decide(type_, subtype, direction).action in keyed
        for type_, subtype in policy.kinds()
        for direction in Direction
    )


def to_tokenise(
    text: str, findings: Iterable[Finding], policy: Policy, direction: Direction
) -> Iterator[tuple[str, str]]:
    """Type and value of each finding that a token is to stand for."""
    for finding in findings:
        action = policy.decide(finding.type, finding.subtype, direction).action
        if action is Action.TOKENISE:
            yield finding.type, text[finding.start : finding.end]


def tally(findings: Iterable[Finding], policy: Policy, direction: Direction) -> Tally:
    """Count findings by kind and action."""
    return Counter(
        (
            direction,
            finding.type,
            finding.subtype,
            str(policy.decide(finding.type, finding.subtype, direction).action),
        )
        for finding in findings
    )


def counts(tally_: Tally) -> tuple[FindingCount, ...]:
    """Turn a tally into the contract's form, in a fixed order."""
    return tuple(
        FindingCount(direction=direction, type=kind, subtype=subtype, action=action, count=n)
        for (direction, kind, subtype, action), n in sorted(tally_.items())
    )
