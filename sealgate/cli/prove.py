"""`sealgate audit prove`: fetch a call's records with their proofs, to be checked offline later."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, cast

from sealgate.cli import DONE, REFUSED
from sealgate.cli._vkey import vkey_of

if TYPE_CHECKING:
    from meshkit.contract import Audit

__all__ = ["DEFAULT_TARGET", "add_parser", "id_of"]

DEFAULT_TARGET = "localhost:50055"

_EPILOG = """examples:
  sealgate audit prove --call 0192f3a4b5c67d8e9fa0b1c2d3e4f506 --out proofs --tls var/appliance/tls
  sealgate audit prove --trace 0af7651916cd43dd8448eb211c80319c --out proofs --vkey vkey --json

Writes one proof file for each record; `sealgate audit check FILE --vkey VKEY` checks one anywhere.
With --vkey they are checked at once, too."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `prove` to the subcommands of `audit`."""
    parser = commands.add_parser(
        "prove",
        help="write a proof file for each record of a call",
        description="Fetch the records of a call or trace from the audit service, with proofs.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--call", type=id_of, metavar="HEX", help="call id: of a receipt")
    which.add_argument("--trace", type=id_of, metavar="HEX", help="trace id: may be several calls")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--tenant", default="", help="[your own]")
    parser.add_argument("--vkey", help="the log's verifier key, or its file: check the proofs")
    parser.add_argument(
        "--wait", type=float, default=10.0, metavar="SECONDS", help="for a checkpoint [10]"
    )
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


def id_of(text: str) -> bytes:
    """Read 16 bytes in hex, with or without a UUID's hyphens."""
    try:
        found = bytes.fromhex(text.replace("-", ""))
    except ValueError:
        found = b""
    if len(found) != 16:  # noqa: PLR2004 -- as the line below says
        msg = "not 16 bytes in hex"
        raise argparse.ArgumentTypeError(msg)
    return found


def _run(args: argparse.Namespace) -> int:
    # Here, so that `verify` and `check` need no gRPC.
    from sealgate.cli._connection import told  # noqa: PLC0415 -- see above

    return told(args, lambda: _prove(args, vkey_of(args.vkey) if args.vkey else None))


def _prove(args: argparse.Namespace, vkey: str | None) -> int:
    import asyncio  # noqa: PLC0415 -- as in `_run`

    from meshkit.tlog import ProofInvalid, check_proof  # noqa: PLC0415 -- as in `_run`

    paths = asyncio.run(_fetched(args, vkey))
    bad: list[str] = []
    for path in paths if vkey else []:
        try:
            check_proof(path.read_text(encoding="utf-8"), vkey or "")
        except ProofInvalid as invalid:
            bad.append(f"{path}: {invalid}")
    if args.json:
        told = {"ok": not bad, "files": [str(path) for path in paths], "checked": vkey is not None}
        print(json.dumps(told))
        return REFUSED if bad else DONE
    for path in paths:
        print(path)
    for line in bad:
        print(f"does NOT hold: {line}")
    return REFUSED if bad else DONE


async def _fetched(args: argparse.Namespace, vkey: str | None) -> list[Path]:
    from meshkit.contract import Refusal  # noqa: PLC0415 -- as in `_run`
    from sealgate.audit_client import AsyncAuditReader  # noqa: PLC0415 -- as in `_run`
    from sealgate.cli.audit import write_proofs  # noqa: PLC0415 -- it imports us
    from sealgate.errors import error_of  # noqa: PLC0415 -- as in `_run`

    async with AsyncAuditReader(
        args.target, tls=args.tls, vkey=vkey, server_name=args.server_name
    ) as reader:
        try:
            return await write_proofs(
                cast("Audit", reader),  # all of it but `append`
                args.tenant,
                args.out,
                call_id=args.call,
                trace_id=args.trace,
                wait_s=args.wait,
            )
        except Refusal as refusal:
            raise error_of(refusal) from None
