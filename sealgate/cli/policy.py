"""`sealgate compliance policy check`: whether policies can be put in force."""

# ruff: noqa: PLC0415 -- a service loads only when a command needs it

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sealgate.cli._command import add_command

if TYPE_CHECKING:
    import argparse

    from compliance.policy import Decision, Policy
    from compliance.policy_library import Book

__all__ = ["add_policy"]

EXIT_BAD_INPUT = 2

_EXAMPLES = """examples:
  sealgate compliance policy check ward.yaml
  sealgate compliance policy check policies/ --json
  sealgate compliance policy check hipaa-safe-harbor

exit codes: 0 it can be put in force, 2 it cannot (the reason is on stderr)."""


def add_policy(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `policy` with its commands; each sets `run(args) -> exit code`."""
    parser = add_command(commands, "policy", "check policies before they are put in force", "")
    inner = parser.add_subparsers(required=True, metavar="COMMAND")
    check = add_command(
        inner, "check", "validate, run the tests, print digest and resolved rules", _EXAMPLES
    )
    check.add_argument(
        "path",
        type=Path,
        metavar="FILE|DIR|NAME",
        help="a policy file, a folder of them with tenants.yaml, or a policy that ships",
    )
    check.add_argument("--json", action="store_true", help="print JSON")
    check.set_defaults(run=_check)


def _check(args: argparse.Namespace) -> int:
    from compliance.opening import finders_of
    from compliance.policy import PolicyError
    from compliance.policy_trial import try_out
    from compliance.settings import ComplianceSettings

    try:
        book = _book(args.path)
        finders = finders_of(ComplianceSettings.load())
        for policy in book.policies.values():
            try_out(policy, finders.of(policy))
    except PolicyError as error:
        print(f"sealgate: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except OSError as error:
        print(f"sealgate: {error.strerror}: {error.filename}", file=sys.stderr)
        return EXIT_BAD_INPUT
    if args.json:
        print(json.dumps(_tree(book), indent=1, ensure_ascii=False))
        return 0
    for policy in book.policies.values():
        _print(policy)
    if args.path.is_dir():
        print(f"tenants: {len(book.tenants)} named, all others have {book.default}")
    return 0


def _book(path: Path) -> Book:
    """Read what the path stands for. Raises PolicyError."""
    from compliance.policy import SHIPPED, chained, shipped
    from compliance.policy_library import Book, load_book, load_one

    if path.is_dir():
        return load_book(path)
    name = str(path)
    policy = chained(shipped(name)) if name in SHIPPED and not path.exists() else load_one(path)
    return Book(policies={policy.name: policy}, tenants={}, default=policy.name)


def _rows(policy: Policy) -> list[tuple[str, str, Decision, Decision]]:
    from meshkit.contract import Direction

    return [
        (
            type_ or "(others)",
            subtype,
            policy.decide(type_, subtype, Direction.PROMPT),
            policy.decide(type_, subtype, Direction.ANSWER),
        )
        for type_, subtype in sorted(policy.kinds())
    ]


def _tree(book: Book) -> dict[str, Any]:
    return {
        "default": book.default,
        "tenants": dict(sorted(book.tenants.items())),
        "policies": [
            {
                "name": policy.name,
                "digest": policy.digest.hex(),
                "tests": len(policy.file.tests),
                "patterns": [entry.name for entry in policy.file.patterns],
                "dictionaries": {e.name: len(e.terms) for e in policy.file.dictionaries},
                "rules": [
                    {
                        "type": type_,
                        "subtype": subtype,
                        "prompt": _decision(prompt),
                        "answer": _decision(answer),
                    }
                    for type_, subtype, prompt, answer in _rows(policy)
                ],
            }
            for policy in book.policies.values()
        ],
    }


def _decision(decision: Decision) -> dict[str, Any]:
    return {
        "action": decision.action.value,
        "threshold": decision.threshold,
        "keep_last": decision.keep_last,
        "replacement": decision.replacement,
    }


def _print(policy: Policy) -> None:
    file = policy.file
    terms = sum(len(entry.terms) for entry in file.dictionaries)
    own = f"{len(file.patterns)} patterns and {terms} terms of its own"
    print(f"{policy.name}  {policy.digest.hex()}")
    print(f"  {len(file.tests)} tests pass, {own}")
    print(f"  {'type':<18}{'subtype':<24}{'prompt':<24}answer")
    for type_, subtype, prompt, answer in _rows(policy):
        print(f"  {type_:<18}{subtype:<24}{_told(prompt):<24}{_told(answer)}")


def _told(decision: Decision) -> str:
    keep = f", last {decision.keep_last}" if decision.keep_last else ""
    return f"{decision.action.value}{keep} from {decision.threshold:g}"
