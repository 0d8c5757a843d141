"""`sealgate audit show-digest`: what a digest in a record stands for."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from pathlib import Path

from sealgate.cli import BAD_USAGE, DONE, REFUSED

__all__ = ["add_parser", "digest_of"]

DEFAULT_TARGET = "localhost:50055"
_DIGEST_BYTES = 32

_EPILOG = """examples:
  sealgate audit show-digest 9f86d081... --tls var/appliance/tls-auditor
  sealgate audit show-digest 9f86d081... --archive var/appliance/audit/archive --json

Model manifests, chat templates, compliance policies, sets of Cedar policies. What is printed hashes
to the digest, or nothing is. With --archive the folder itself is read, without a connection.

exit codes: 0 printed, 1 it is not there or not what its digest says, 2 usage, 3 unreachable."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `show-digest` to the subcommands of `audit`."""
    parser = commands.add_parser(
        "show-digest",
        help="print what a digest in a record stands for",
        description="Print the policy, manifest or template that a record names by its SHA-256.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("digest", type=digest_of, metavar="HEX", help="64 hexadecimal digits")
    parser.add_argument("--archive", type=Path, metavar="FOLDER", help="read it there")
    parser.add_argument("--tenant", default="", help="[your own]")
    options = parser.add_argument_group("connection")
    options.add_argument(
        "--target",
        default=os.environ.get("SEALGATE_AUDIT_TARGET", DEFAULT_TARGET),
        metavar="HOST:PORT",
        help=f"the audit service [$SEALGATE_AUDIT_TARGET, {DEFAULT_TARGET}]",
    )
    options.add_argument(
        "--tls",
        type=Path,
        default=os.environ.get("SEALGATE_TLS"),
        metavar="DIR",
        help="folder with ca.pem, client.pem and client.key [$SEALGATE_TLS]",
    )
    options.add_argument("--server-name", metavar="NAME", help="if not HOST")
    options.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


def digest_of(text: str) -> bytes:
    """Read 32 bytes in hex."""
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != _DIGEST_BYTES:
        msg = "not 32 bytes in hex"
        raise argparse.ArgumentTypeError(msg)
    return found


def _run(args: argparse.Namespace) -> int:
    if args.archive is not None:
        return _from_folder(args)
    # Here, so that reading a folder needs no gRPC.
    from sealgate.cli._connection import told  # noqa: PLC0415 -- see above

    return told(args, lambda: _from_service(args))


def _from_folder(args: argparse.Namespace) -> int:
    name = args.digest.hex()
    path = args.archive / name[:2] / name
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return _failed(args, "not_found", f"there is no {name} in {args.archive}", REFUSED)
    except OSError as failure:
        sentence = f"cannot read {failure.filename}: {failure.strerror}"
        return _failed(args, "unreadable", sentence, BAD_USAGE)
    return _shown(args, "", content)


def _from_service(args: argparse.Namespace) -> int:
    import asyncio  # noqa: PLC0415 -- as in `_run`

    from sealgate.audit_client import AsyncAuditReader  # noqa: PLC0415 -- as in `_run`

    async def fetched() -> tuple[str, bytes]:
        async with AsyncAuditReader(
            args.target, tls=args.tls, server_name=args.server_name
        ) as reader:
            return await reader.archived(args.digest, args.tenant)

    return _shown(args, *asyncio.run(fetched()))


def _shown(args: argparse.Namespace, kind: str, content: bytes) -> int:
    if hashlib.sha256(content).digest() != args.digest:
        return _failed(args, "damaged", "what lies there has another digest", REFUSED)
    text = content.decode(errors="backslashreplace")
    if args.json:
        told = {"ok": True, "kind": kind, "digest": args.digest.hex(), "content": text}
        print(json.dumps(told, ensure_ascii=False))
    else:
        print(text)
    return DONE


def _failed(args: argparse.Namespace, error: str, sentence: str, code: int) -> int:
    if args.json:
        print(json.dumps({"ok": False, "error": error}))
    else:
        print(f"sealgate: {sentence}", file=sys.stderr)
    return code
