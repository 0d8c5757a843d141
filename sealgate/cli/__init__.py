"""The command line: `sealgate COMMAND ...`. A composition root; each command loads when it is used.

Exit codes, for every command:

    0    done; what was checked holds
    1    refused, or what was checked does not hold
    2    wrong usage, or a file that cannot be read
    3    nobody there, a part is down, or out of time: worth another try
    130  interrupted
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

__all__ = ["BAD_USAGE", "DONE", "INTERRUPTED", "REFUSED", "UNAVAILABLE", "main"]

DONE, REFUSED, BAD_USAGE, UNAVAILABLE, INTERRUPTED = 0, 1, 2, 3, 130

_COMMANDS = {
    "chat": "ask a model and print its answer as it comes",
    "models": "list the models you may ask; add, check and release models",
    "audit": "check the log and its proofs",
    "backup": "back up, restore, go on after a loss",
    "compliance": "find and mask personal data, offline",
    "keys": "rotate, rewrap, trim and destroy keys of what runs here",
    "doctor": "find out why it does not work",
}

_EPILOG = """examples:
  sealgate chat "What is a tamper-evident log?" --target localhost:50051 --tls var/appliance/tls
  sealgate models --json
  sealgate audit verify --log var/appliance/audit/log --vkey var/appliance/audit/vkey
  sealgate doctor --local var/appliance

exit codes: 0 done, 1 refused or does not hold, 2 usage, 3 unavailable, 130 interrupted.
`sealgate COMMAND --help` has more."""


def main(argv: list[str] | None = None) -> int:
    """Run a command; return the exit code. Wrong usage exits with 2, as argparse does."""
    given = sys.argv[1:] if argv is None else argv
    args = _parser(given).parse_args(given)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader has seen enough, as `head` does
        sys.stdout = None  # else the interpreter flushes it at exit, in vain
        return DONE
    return code


def _parser(given: list[str]) -> argparse.ArgumentParser:
    """Build the parser of one command; of all others only the name and a line."""
    parser = argparse.ArgumentParser(
        prog="sealgate",
        description="Ask on-prem language models, and check what was recorded.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    wanted = next((word for word in given if word in _COMMANDS), None)
    for name, line in _COMMANDS.items():
        if name == wanted:
            import_module(f"sealgate.cli.{name}").add_parser(commands)
        else:
            commands.add_parser(name, help=line)
    return parser
