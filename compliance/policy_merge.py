"""How policy files are laid over each other; `compliance.policy_format` has the rules. PURE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compliance.findings import TYPES
from compliance.policy_format import (
    DICTIONARIES_MAX,
    PATTERNS_MAX,
    TERMS_MAX,
    Dictionary,
    Pattern,
    PolicyError,
    PolicyFile,
    Rule,
    TypeRule,
)
from meshkit.contract import Direction

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["merged"]


def merged(chain: Iterable[PolicyFile]) -> PolicyFile:
    """Lay files over each other, the root first; the last gives the name and the tests.

    Raises:
        PolicyError: a limit is passed, or a type is named that nothing finds.
    """
    files = list(chain)
    default, types = files[0].default, dict(files[0].types)
    entries = _by_name(files[0])
    for file in files[1:]:
        default = _over(default, file.default)
        for kind, rule in file.types.items():
            types[kind] = _type_over(types.get(kind, TypeRule()), rule)
        entries |= _by_name(file)
    whole = files[-1].model_copy(
        update={
            "extends": None,
            "default": default,
            "types": types,
            "dictionaries": [e for e in entries.values() if isinstance(e, Dictionary)],
            "patterns": [e for e in entries.values() if isinstance(e, Pattern)],
        }
    )
    _hold_limits(whole)
    return whole


def _by_name(file: PolicyFile) -> dict[str, Dictionary | Pattern]:
    entries: list[Dictionary | Pattern] = [*file.dictionaries, *file.patterns]
    return {entry.name: entry for entry in entries}


def _over(base: Rule, top: Rule) -> Rule:
    """Take each field from `top` if it gives it, else from `base`."""
    return Rule.model_validate(_fields_over(base, top))


def _fields_over(base: Rule, top: Rule) -> dict[str, Any]:
    fields = {name: getattr(base, name) for name in Rule.model_fields}
    given = {name: getattr(top, name) for name in Rule.model_fields}
    fields |= {name: value for name, value in given.items() if value is not None}
    if base.threshold is not None and top.threshold is not None:
        fields["threshold"] = base.threshold.model_copy(
            update=top.threshold.model_dump(exclude_none=True)
        )
    return fields


def _type_over(base: TypeRule, top: TypeRule) -> TypeRule:
    subtypes = dict(base.subtypes)
    for name, rule in top.subtypes.items():
        subtypes[name] = _over(subtypes.get(name, Rule()), rule)
    return TypeRule.model_validate({**_fields_over(base, top), "subtypes": subtypes})


def _hold_limits(file: PolicyFile) -> None:
    found = {entry.type for entry in (*file.dictionaries, *file.patterns)}
    if unknown := sorted(set(file.types) - TYPES - found):
        msg = f"unknown entity types: {', '.join(unknown)}"
        raise PolicyError(msg)
    if len(file.patterns) > PATTERNS_MAX or len(file.dictionaries) > DICTIONARIES_MAX:
        msg = f"more than {PATTERNS_MAX} patterns or {DICTIONARIES_MAX} dictionaries in all"
        raise PolicyError(msg)
    if sum(len(entry.terms) for entry in file.dictionaries) > TERMS_MAX:
        msg = f"more than {TERMS_MAX} terms in all dictionaries"
        raise PolicyError(msg)
    for direction in Direction:
        if getattr(file.default, direction.value) is None:
            msg = f"default.{direction.value}: no file of the chain gives it"
            raise PolicyError(msg)
