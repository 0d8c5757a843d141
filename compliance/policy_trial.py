"""Tries the examples that a policy carries; one that fails refuses the policy. PURE.

Names are not asked: a policy must load without a model, and mean the same with every model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from compliance.policy_format import Action, PolicyError
from compliance.scanner import findings_of
from compliance.stream import Kind, windows
from compliance.transform import block_finding, decide, masked
from meshkit.contract import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from compliance.findings import Finding
    from compliance.policy import Policy
    from compliance.policy_format import PolicyTest
    from compliance.scanner import Finder
    from compliance.stream import Window

__all__ = ["failures", "try_out"]

FAILURES_TOLD_MAX = 5


class _StandIns:
    """Stands for what depends on a tenant's key."""

    def hash(self, type_: str, value: str) -> str:  # noqa: ARG002 -- the protocol's signature
        return f"[{type_}#hash]"

    def token(self, type_: str, value: str) -> str:  # noqa: ARG002 -- the protocol's signature
        return f"[{type_}#token]"


def try_out(policy: Policy, finder: Finder) -> None:
    """Run the policy's tests.

    Raises:
        PolicyError: which tests failed, by their place in the file, and at what; quotes no text.
    """
    found = list(failures(policy, finder))
    if found:
        told = "; ".join(found[:FAILURES_TOLD_MAX])
        more = f"; and {len(found) - FAILURES_TOLD_MAX} more" * (len(found) > FAILURES_TOLD_MAX)
        msg = f"{policy.name}: {told}{more}"
        raise PolicyError(msg)


def failures(policy: Policy, finder: Finder) -> Iterator[str]:
    """Yield what fails, as `tests.3: EMAIL is not found`."""
    for number, test in enumerate(policy.file.tests):
        for fault in _faults(policy, finder, test):
            yield f"tests.{number}: {fault}"


def _faults(policy: Policy, finder: Finder, test: PolicyTest) -> Iterator[str]:
    text = test.text
    try:
        found = _find(policy, finder, test)
    except Refusal:
        yield "a recognizer fails"
        return
    values = {(finding.type, text[finding.start : finding.end]) for finding in found}
    for type_, wanted in test.finds.items():
        if any((type_, value) not in values for value in wanted):
            yield f"{type_} is not found as it says"
    types = {type_ for type_, _ in values}
    for type_ in sorted(types if test.lacks == "any" else types & set(test.lacks)):
        yield f"{type_} is found, and should not be"
    decisions = [policy.decide(f.type, f.subtype, test.direction) for f in found]
    blocked = any(decision.action is Action.BLOCK for decision in decisions)
    if test.blocked is not None and blocked != test.blocked:
        yield "it is blocked" if blocked else "it is not blocked"
    if test.becomes is not None:
        left = masked(text, found, policy, test.direction, _StandIns())
        if left != test.becomes:
            yield "it becomes another text"


def _find(policy: Policy, finder: Finder, test: PolicyTest) -> list[Finding]:
    def crossing(text: str) -> Iterator[tuple[int, int]]:
        return ((finding.start, finding.end) for finding in finder.find(text, 0))

    found = windows(test.text, crossing)
    return findings_of(found, [decide(_raw(w, finder), policy, test.direction) for w in found])


def _raw(window: Window, finder: Finder) -> Sequence[Finding]:
    if window.kind is Kind.REST:
        return ()
    block = block_finding(window)
    return [*finder.find(window.text, window.core), *([block] if block else [])]
