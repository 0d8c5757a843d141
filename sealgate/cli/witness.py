"""`sealgate audit witness`: a witness of logs, on a host of its own. Needs no gRPC."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from sealgate.cli import BAD_USAGE, DONE, REFUSED

__all__ = ["add_parser"]

_EPILOG = """examples:
  sealgate audit witness init --data witness --name witness.example.org/north
  WITNESS_LOGS_FILE=witness/logs sealgate audit witness serve

`serve` reads WITNESS_* from the environment: docs/settings.md has them all. Put the verifier keys
of the logs into WITNESS_LOGS_FILE, one a line. exit codes: 0 done, 1 refused, 2 usage."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `witness` with its own subcommands to those of `audit`."""
    parser = commands.add_parser(
        "witness",
        help="cosign checkpoints of logs, on another host",
        description="Cosign checkpoints of logs, each only if it extends the one before.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    inner = parser.add_subparsers(dest="witness_command", metavar="COMMAND", required=True)
    init = inner.add_parser("init", help="make the witness's two keys")
    init.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    init.add_argument(
        "--name", required=True, help="who cosigns, best a domain of yours and a path"
    )
    init.add_argument(
        "--passphrase-file", type=Path, metavar="FILE", help="encrypts the keys; read by serve too"
    )
    init.add_argument("--url", default="", help="for the policy lines: where logs will reach it")
    init.add_argument("--json", action="store_true", help="print JSON")
    init.set_defaults(run=_init)
    inner.add_parser("serve", help="serve until stopped").set_defaults(run=_serve)


def _init(args: argparse.Namespace) -> int:
    # Here, so that no other command needs what the witness needs.
    from audit.witness.keys import KeysUnusableError, WitnessKeys  # noqa: PLC0415 -- see above

    try:
        secret = args.passphrase_file.read_bytes().strip() if args.passphrase_file else None
        keys = WitnessKeys.make(args.data, args.name, secret)
    except KeysUnusableError as unusable:
        print(f"sealgate: {unusable}", file=sys.stderr)
        return REFUSED
    except OSError as failure:
        print(f"sealgate: cannot use {failure.filename}: {failure.strerror}", file=sys.stderr)
        return BAD_USAGE
    vkeys = [str(key) for key in keys.vkeys]
    if args.json:
        print(json.dumps({"vkeys": vkeys}))
        return DONE
    stem = args.name.replace("/", "-")
    print("# Lines for the policy of a log that asks this witness:")
    for name, vkey in zip((stem, f"{stem}-pq"), vkeys, strict=True):
        print(f"witness {name} {vkey} {args.url}".rstrip())
    print(f"group {stem}-both all {stem} {stem}-pq")
    return DONE


def _serve(_args: argparse.Namespace) -> int:
    from audit.witness.main import run  # noqa: PLC0415 -- as in `_init`

    return run()
