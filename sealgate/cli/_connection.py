"""What the commands that talk to a gateway share: where it is, and how its errors are told."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from meshkit.tlog import NoteInvalid
from sealgate.cli import BAD_USAGE, REFUSED, UNAVAILABLE
from sealgate.errors import OutOfTimeError, OverloadedError, SealgateError, UnavailableError
from sealgate.sync import Client

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping

__all__ = ["add_options", "client_of", "shown", "told"]

DEFAULT_TARGET = "localhost:50051"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the connection's options; `SEALGATE_TARGET` and `SEALGATE_TLS` are their defaults."""
    options = parser.add_argument_group("connection")
    options.add_argument(
        "--target",
        default=os.environ.get("SEALGATE_TARGET", DEFAULT_TARGET),
        metavar="HOST:PORT",
        help=f"the gateway [$SEALGATE_TARGET, {DEFAULT_TARGET}]",
    )
    options.add_argument(
        "--tls",
        type=Path,
        default=os.environ.get("SEALGATE_TLS"),
        metavar="DIR",
        help="folder with ca.pem, client.pem and client.key [$SEALGATE_TLS]",
    )
    options.add_argument(
        "--server-name", metavar="NAME", help="name in the gateway's certificate, if not HOST"
    )
    options.add_argument(
        "--token-file", type=Path, metavar="FILE", help="the user's JWT, where there is one"
    )
    options.add_argument(
        "--timeout", type=float, default=120.0, metavar="SECONDS", help="for the whole call [120]"
    )
    options.add_argument("--json", action="store_true", help="print JSON")


def client_of(args: argparse.Namespace, *, vkey: str | None = None) -> Client:
    """Make a client of the parsed options.

    Raises:
        OSError: the token's file cannot be read.
    """
    token = args.token_file.read_text(encoding="ascii").strip() if args.token_file else ""
    return Client(
        args.target,
        tls=args.tls,
        token=token,
        vkey=vkey,
        timeout_s=args.timeout,
        server_name=args.server_name,
    )


def shown(text: str) -> str:
    """Return `text` for a terminal: what would steer it (escapes, bells) is made visible."""
    if not sys.stdout.isatty():
        return text
    return "".join(c if c in "\n\t" or c.isprintable() else "\ufffd" for c in text)


def told(args: argparse.Namespace, work: Callable[[], int]) -> int:
    """Run `work`; tell what goes wrong on standard error (or as JSON), and return the exit code."""
    if args.tls is None:
        return _say(args, BAD_USAGE, {"error": "usage"}, "give --tls DIR or set SEALGATE_TLS")
    try:
        return work()
    except SealgateError as error:
        told = {
            "error": type(error).__name__,
            "reason": error.reason.name if error.reason else None,
            "field": error.field,
            "retry_after_ms": error.retry_after_ms,
        }
        again = isinstance(error, UnavailableError | OverloadedError | OutOfTimeError)
        name = f" ({error.reason.name})" if error.reason else ""
        return _say(args, UNAVAILABLE if again else REFUSED, told, f"{error}{name}")
    except NoteInvalid as invalid:
        return _say(args, BAD_USAGE, {"error": "vkey"}, f"--vkey: {invalid}")
    except UnicodeError:  # of a file, or of a word of the command line
        return _say(args, BAD_USAGE, {"error": "unreadable"}, "cannot read: this is no UTF-8 text")
    except BrokenPipeError:
        raise  # of standard output: `main` knows
    except OSError as failure:
        sentence = f"cannot read {failure.filename}: {failure.strerror}"
        return _say(args, BAD_USAGE, {"error": "unreadable", "file": failure.filename}, sentence)


def _say(args: argparse.Namespace, code: int, told: Mapping[str, object], sentence: str) -> int:
    if args.json:
        print(json.dumps(told))
    else:
        print(f"sealgate: {sentence}", file=sys.stderr)
    return code
