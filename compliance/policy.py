"""What to do with what was found: a policy, resolved, and its digest. PURE.

`compliance.policy_format` has the file's form, and how files build on each other. The value for a
finding and a direction is that of the subtype's rule, else the type's, else the default's.

The digest is SHA-256 over the canonical form: the policy after inheritance as JSON, keys sorted, no
white space, everything that was left out filled in as null, terms of dictionaries spelled out.
Tests, comments and the way a policy was put together are not in it: they change no verdict.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, TypeVar

from compliance.policy_format import (
    CHAIN_MAX,
    Action,
    PolicyError,
    PolicyFile,
    read_file,
)
from compliance.policy_gate import hold_patterns
from compliance.policy_merge import merged
from meshkit.contract import Direction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from compliance.findings import Finding
    from compliance.policy_format import Rule

__all__ = [
    "SHIPPED",
    "THRESHOLD",
    "Action",
    "Decision",
    "Policy",
    "PolicyError",
    "chained",
    "default_policy",
    "parse_policy",
    "shipped",
]

THRESHOLD = 0.5
"""Where no rule gives one."""

SHIPPED = ("default", "gdpr", "hipaa-safe-harbor", "pci-dss", "pipl")
"""Policies that come with Sealgate; no file of a folder may bear their names."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Decision:
    """What a policy says about one kind of finding in one direction."""

    action: Action
    threshold: float
    keep_last: int
    """Of a masked value; 0 for every other action."""
    replacement: str
    """Of a replaced value; empty for every other action."""


class Policy:
    """A policy in force.

    name: as the file says. digest: SHA-256 of the canonical form, 32 bytes. file: all files of its
    chain laid over each other.
    """

    def __init__(self, file: PolicyFile) -> None:
        """Resolve.

        Raises:
            PolicyError: an action `replace` has no replacement, or a pattern is not let in.
        """
        hold_patterns(file.patterns)
        self.file = file
        self._decisions: dict[tuple[str, str, Direction], Decision] = {}
        self.name = file.name
        self.digest = hashlib.sha256(self.canonical()).digest()
        for type_, subtype in self.kinds():
            for direction in Direction:
                self.decide(type_, subtype, direction)

    def kinds(self) -> Iterator[tuple[str, str]]:
        """Every kind that the file tells apart; the first stands for all it does not name."""
        yield "", ""
        for type_, rule in self.file.types.items():
            yield type_, ""
            yield from ((type_, subtype) for subtype in rule.subtypes)

    def canonical(self) -> bytes:
        """Return the bytes that `digest` is over."""
        tree = self.file.model_dump(mode="json", exclude={"extends", "tests"})
        for entries in (tree["dictionaries"], tree["patterns"]):
            entries.sort(key=lambda entry: str(entry["name"]))
        tree["default"]["threshold"] = {
            direction.value: self.decide("", "", direction).threshold for direction in Direction
        }
        return json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()

    @property
    def custom(self) -> bytes:
        """What the policy finds by itself, canonical; empty if nothing. Equal means same finds."""
        if not (self.file.dictionaries or self.file.patterns):
            return b""
        tree = json.loads(self.canonical())
        own = {key: tree[key] for key in ("dictionaries", "patterns")}
        return json.dumps(own, sort_keys=True, separators=(",", ":")).encode()

    def decide(self, type_: str, subtype: str, direction: Direction) -> Decision:
        """Return what to do with findings of this kind. Memoised: kinds are few and ours."""
        key = (type_, subtype, direction)
        if (decision := self._decisions.get(key)) is None:
            decision = self._decisions[key] = self._resolve(type_, subtype, direction)
        return decision

    def admits(self, finding: Finding, direction: Direction) -> bool:
        """Whether the finding's score reaches its threshold."""
        return finding.score >= self.decide(finding.type, finding.subtype, direction).threshold

    def _resolve(self, type_: str, subtype: str, direction: Direction) -> Decision:
        of_type = self.file.types.get(type_)
        of_subtype = of_type.subtypes.get(subtype) if of_type else None
        rules = [rule for rule in (of_subtype, of_type, self.file.default) if rule is not None]
        action = _first([getattr(rule, direction.value) for rule in rules], Action.BLOCK)
        replacement = _first([rule.replacement for rule in rules], None)
        if action is Action.REPLACE and replacement is None:
            msg = f"{type_ or 'default'}: action replace needs a replacement"
            raise PolicyError(msg)
        return Decision(
            action,
            _first([_threshold(rule, direction) for rule in rules], THRESHOLD),
            _first([rule.keep_last for rule in rules], 0) if action is Action.MASK else 0,
            (replacement or "") if action is Action.REPLACE else "",
        )


def _threshold(rule: Rule, direction: Direction) -> float | None:
    if rule.threshold is None:
        return None
    value: float | None = getattr(rule.threshold, direction.value)
    return value


def _first(values: list[T | None], otherwise: T) -> T:
    return next((value for value in values if value is not None), otherwise)


def shipped(name: str) -> PolicyFile:
    """Return the file of a policy that comes with Sealgate; `name` is one of `SHIPPED`."""
    return read_file(files("compliance").joinpath(f"policies/{name}.yaml").read_bytes())


def chained(file: PolicyFile, find: Callable[[str], PolicyFile] | None = None) -> Policy:
    """Lay a file over what it extends. `find`: a file by name, where it is not one of `SHIPPED`.

    Raises:
        PolicyError: the chain is too long, runs in a circle or leads nowhere, or the whole is no
            policy.
    """
    chain, names = [file], {file.name}
    while (wanted := chain[-1].extends) is not None:
        if wanted in names:
            msg = f"{file.name}: its extends run in a circle"
            raise PolicyError(msg)
        if len(chain) == CHAIN_MAX:
            msg = f"{file.name}: more than {CHAIN_MAX} files extend each other"
            raise PolicyError(msg)
        if wanted not in SHIPPED and find is None:
            msg = f"{file.name}: extends a policy that is not there"
            raise PolicyError(msg)
        chain.append(shipped(wanted) if find is None or wanted in SHIPPED else find(wanted))
        names.add(wanted)
    return Policy(merged(reversed(chain)))


def parse_policy(text: str | bytes) -> Policy:
    """Read a policy from YAML; it may extend a shipped one, and has no files beside it.

    Its tests are not tried here: that takes an engine (`compliance.policy_trial`).

    Raises:
        PolicyError: too large, no YAML, or not a policy; says which field.
    """
    return chained(read_file(text))


def default_policy() -> Policy:
    """Return the policy that ships with Sealgate."""
    return chained(shipped("default"))
