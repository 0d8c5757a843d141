"""What to do with what was found: a versioned, validated file, and its digest. PURE.

    version: 1
    name: ward-7
    default: {prompt: mask, answer: mask, threshold: 0.5}
    types:
      CREDIT_CARD: {keep_last: 4}
      SECRET:
        answer: block
        subtypes:
          JWT: {prompt: block, threshold: 0.8}

The value for a finding and a direction is that of the subtype's rule, else the type's, else the
default's. The digest is SHA-256 over the canonical form: the policy as JSON, keys sorted, no white
space, everything that was left out filled in as null.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from compliance.findings import TYPES
from meshkit.contract import Direction

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compliance.findings import Finding

__all__ = ["Action", "Decision", "Policy", "PolicyError", "default_policy", "parse_policy"]

POLICY_BYTES_MAX = 256 * 1024

T = TypeVar("T")
R = TypeVar("R", bound="_Rule | _Default")


class PolicyError(Exception):
    """A policy cannot be used; the text says where and why, and quotes no value of it."""


class Action(StrEnum):
    """What happens to a span."""

    ALLOW = "allow"
    """It passes."""
    FLAG = "flag"
    """It passes, and the record says that it was there."""
    MASK = "mask"
    """Its type stands for it, with its last few characters where `keep_last` says so."""
    REPLACE = "replace"
    """The policy's own fixed text stands for it."""
    HASH = "hash"
    """A short digest under the tenant's key stands for it: equal values look equal."""
    TOKENISE = "tokenise"
    """A token stands for it, from which it can be restored."""
    BLOCK = "block"
    """Nothing of its segment passes, nor what comes after."""


Name = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,47}$")]
Threshold = Annotated[float, Field(ge=0.0, le=1.0)]
Replacement = Annotated[str, StringConstraints(max_length=64, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
"""What stands for a value that is replaced: at most 64 characters, none of them a control."""

_STRICT = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def _refuse_tokens(rule: R) -> R:
    """Say so at load: a policy must never believe that text can be restored when it cannot."""
    if Action.TOKENISE in (rule.prompt, rule.answer):
        msg = "action tokenise is not available in this version; use mask"
        raise ValueError(msg)
    return rule


class _Rule(BaseModel):
    model_config = _STRICT

    prompt: Action | None = None
    answer: Action | None = None
    threshold: Threshold | None = None
    keep_last: Annotated[int, Field(ge=0, le=4)] | None = None
    replacement: Replacement | None = None

    _refuse_tokens = model_validator(mode="after")(_refuse_tokens)


class _TypeRule(_Rule):
    subtypes: dict[Name, _Rule] = {}


class _Default(BaseModel):
    model_config = _STRICT

    prompt: Action
    answer: Action
    threshold: Threshold = 0.5
    replacement: Replacement | None = None

    _refuse_tokens = model_validator(mode="after")(_refuse_tokens)


class _File(BaseModel):
    model_config = _STRICT

    version: Literal[1]
    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.\-]{0,62}$")]
    default: _Default
    types: dict[Name, _TypeRule] = {}

    @model_validator(mode="after")
    def know_every_type(self) -> Self:
        """Refuse a misspelt type: it would silently protect nothing."""
        if unknown := sorted(set(self.types) - TYPES):
            msg = f"unknown entity types: {', '.join(unknown)}"
            raise ValueError(msg)
        return self


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

    name: as the file says. digest: SHA-256 of the canonical form, 32 bytes.
    """

    def __init__(self, file: _File) -> None:
        """Resolve. Raises PolicyError: an action `replace` has no replacement."""
        self._file = file
        self._decisions: dict[tuple[str, str, Direction], Decision] = {}
        self.name = file.name
        self.digest = hashlib.sha256(self.canonical()).digest()
        for type_, subtype in self._kinds():
            for direction in Direction:
                self.decide(type_, subtype, direction)

    def _kinds(self) -> Iterator[tuple[str, str]]:
        """Every kind that the file tells apart; the first stands for all it does not name."""
        yield "", ""
        for type_, rule in self._file.types.items():
            yield type_, ""
            yield from ((type_, subtype) for subtype in rule.subtypes)

    def canonical(self) -> bytes:
        """Return the bytes that `digest` is over."""
        tree = self._file.model_dump(mode="json")
        return json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()

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
        of_type = self._file.types.get(type_)
        of_subtype = of_type.subtypes.get(subtype) if of_type else None
        rules = [rule for rule in (of_subtype, of_type) if rule is not None]
        default = self._file.default
        action = _first([getattr(r, direction.value) for r in rules], getattr(default, direction))
        replacement = _first([rule.replacement for rule in rules], default.replacement)
        if action is Action.REPLACE and replacement is None:
            msg = f"{type_ or 'default'}: action replace needs a replacement"
            raise PolicyError(msg)
        return Decision(
            action,
            _first([rule.threshold for rule in rules], default.threshold),
            _first([rule.keep_last for rule in rules], 0) if action is Action.MASK else 0,
            (replacement or "") if action is Action.REPLACE else "",
        )


def _first(values: list[T | None], otherwise: T) -> T:
    return next((value for value in values if value is not None), otherwise)


def parse_policy(text: str | bytes) -> Policy:
    """Read a policy from YAML.

    Raises:
        PolicyError: too large, no YAML, or not a policy; says which field.
    """
    if len(text) > POLICY_BYTES_MAX:
        msg = f"policy is larger than {POLICY_BYTES_MAX} bytes"
        raise PolicyError(msg)
    try:
        tree: Any = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeError, RecursionError):
        msg = "policy is not YAML"
        raise PolicyError(msg) from None
    try:
        return Policy(_File.model_validate(tree))
    except ValidationError as error:
        faults = (
            f"{'.'.join(str(part) for part in fault['loc']) or 'policy'}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_url=False)
        )
        raise PolicyError("; ".join(faults)) from None


def default_policy() -> Policy:
    """Return the policy that ships with Sealgate."""
    return parse_policy(files("compliance").joinpath("policies/default.yaml").read_bytes())
