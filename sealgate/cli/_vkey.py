"""The verifier key or the policy, as every command takes it. Needs no gRPC."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from meshkit.tlog import LogKeys, NoteInvalid, Policy

if TYPE_CHECKING:
    import argparse

__all__ = ["add_trust", "policy_of", "trust_of", "vkey_of"]

_PLUS_SIGNS = 2
"""In a key: name+id+base64, which may hold more of them."""


def vkey_of(given: str) -> str:
    """Take a key, or those in the file of that name: a line each, of one log.

    Raises:
        OSError: there is no such file.
        UnicodeDecodeError: the file is no text.
        NoteInvalid: that is no key. Said before anybody is asked, or any log doubted.
    """
    if given.count("+") < _PLUS_SIGNS or Path(given).exists():
        given = Path(given).read_text(encoding="utf-8").strip()
    LogKeys.parse(given)
    return given


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add `--vkey` and `--policy`, of which one must be given."""
    trust = parser.add_mutually_exclusive_group(required=True)
    trust.add_argument("--vkey", help="the log's verifier key, or the file of one or more")
    trust.add_argument(
        "--policy", type=Path, metavar="FILE", help="logs, witnesses and quorum to believe"
    )


def trust_of(args: argparse.Namespace) -> str | Policy:
    """Take what `add_trust` was given. Raises as `vkey_of`; a policy must name a log."""
    return vkey_of(args.vkey) if args.policy is None else policy_of(args.policy)


def policy_of(path: Path) -> Policy:
    """Read a policy that names at least one log.

    Raises:
        OSError: there is no such file.
        NoteInvalid: it is no policy, or names no log.
    """
    policy = Policy.parse(path.read_bytes())
    if not policy.logs:
        reason = "policy names no log"
        raise NoteInvalid(reason)
    return policy
