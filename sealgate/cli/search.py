"""`sealgate audit search`: find records by what they say, within one tenant."""

from __future__ import annotations

import argparse
import json
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sealgate.cli import DONE
from sealgate.cli._command import add_command
from sealgate.cli.prove import DEFAULT_TARGET, id_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from meshkit.contract import Record
    from sealgate.audit_search import Search

__all__ = ["add_parser"]

_EPILOG = """examples:
  sealgate audit search --from 24h --outcome BLOCKED --tls var/appliance/tls
  sealgate audit search --from 2026-11-01 --to 2026-12-01 --verdict PERSON:mask --json
  sealgate audit search --actor spiffe://sealgate.local/tenant/demo/assistant --user ada
  sealgate audit search --action subject.erase --oldest-first --limit 0

Everything given must fit. Times are UTC where no offset is given, or an age: 30m, 24h, 7d.
The search itself is recorded, and so is every page of it."""

_AGE = re.compile(r"(\d{1,6})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_COLUMNS = ("index", "time (UTC)", "phase", "action", "outcome", "model", "verdicts", "trace")
_PHASES = ("intent", "outcome", "note")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `search` to the subcommands of `audit`."""
    parser = add_command(commands, "search", "find records by what they say", _EPILOG)
    parser.add_argument("--from", dest="since", type=_when, metavar="WHEN", help="from then on")
    parser.add_argument("--to", dest="until", type=_when, metavar="WHEN", help="before then")
    for name, help_text in (
        ("actor", "SPIFFE id of the workload that called"),
        ("user", "as its token named the user"),
        ("subject", "whom the data is about"),
        ("model", "as it is listed"),
        ("outcome", "released, ok, or a reason such as BLOCKED"),
        ("action", "chat, log.read, …"),
    ):
        parser.add_argument(f"--{name}", default="", help=help_text)
    parser.add_argument(
        "--verdict", default="", metavar="TYPE[:ACTION]", help="EMAIL, PERSON:mask, :block"
    )
    parser.add_argument("--phase", choices=_PHASES)
    parser.add_argument("--trace", type=id_of, default=b"", metavar="HEX", help="trace id")
    parser.add_argument("--tenant", default="", help="[your own]")
    parser.add_argument("--oldest-first", action="store_true", help="[the newest come first]")
    parser.add_argument("--limit", type=int, default=100, help="records; 0: all [100]")
    _add_connection(parser)
    parser.set_defaults(run=_run)


def _add_connection(parser: argparse.ArgumentParser) -> None:
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
    options.add_argument("--json", action="store_true", help="print a JSON object a record")


def _when(text: str) -> datetime:
    """Read a time in ISO 8601, or how long ago it was."""
    age = _AGE.fullmatch(text)
    if age is not None:
        return datetime.now(UTC) - timedelta(**{_UNITS[age[2]]: int(age[1])})
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        msg = "no time in ISO 8601, and no age such as 24h"
        raise argparse.ArgumentTypeError(msg) from None
    return when if when.tzinfo is not None else when.replace(tzinfo=UTC)


def _run(args: argparse.Namespace) -> int:
    # Here, so that `verify` and `check` need no gRPC.
    from sealgate.cli._connection import told  # noqa: PLC0415 -- see above

    return told(args, lambda: _search(args))


def _search(args: argparse.Namespace) -> int:
    import asyncio  # noqa: PLC0415 -- as in `_run`

    asyncio.run(_print(args))
    return DONE


def _wanted(args: argparse.Namespace) -> Search:
    from meshkit.contract import Phase  # noqa: PLC0415 -- as in `_run`
    from sealgate.audit_search import Search  # noqa: PLC0415 -- as in `_run`

    kind, _, action = args.verdict.partition(":")
    return Search(
        tenant=args.tenant,
        since=args.since,
        until=args.until,
        actor=args.actor,
        user=args.user,
        subject=args.subject,
        model=args.model,
        trace_id=args.trace,
        verdict_type=kind,
        verdict_action=action,
        outcome=args.outcome,
        action=args.action,
        phase=Phase(args.phase) if args.phase else None,
        oldest_first=args.oldest_first,
    )


async def _found(args: argparse.Namespace) -> AsyncGenerator[Record, None]:
    from sealgate.audit_client import AsyncAuditReader  # noqa: PLC0415 -- as in `_run`

    left = args.limit or None
    async with AsyncAuditReader(args.target, tls=args.tls, server_name=args.server_name) as reader:
        async for record in reader.search(_wanted(args), page_size=min(args.limit, 1_000)):
            yield record
            left = None if left is None else left - 1
            if left == 0:
                return


async def _print(args: argparse.Namespace) -> None:
    from contextlib import aclosing  # noqa: PLC0415 -- as in `_run`

    from sealgate.cli._connection import shown  # noqa: PLC0415 -- as in `_run`

    count = 0
    async with aclosing(_found(args)) as found:
        async for record in found:
            leaf = json.loads(record.leaf)
            if args.json:
                told = {"index": record.index, "phase": record.phase.value, "leaf": leaf}
                print(json.dumps(told, ensure_ascii=False))
                continue
            if count == 0:
                print(_line(_COLUMNS))
            count += 1
            print(shown(_line(_row(record.index, leaf["event"]))))
    if not args.json and count == 0:
        print("no such record")


def _row(index: int, event: dict[str, Any]) -> tuple[str, ...]:
    when = datetime.fromtimestamp(event["time_us"] / 1e6, UTC)
    verdicts = sorted({f"{each[1]}:{each[3]}" for each in event.get("verdicts", ())})
    return (
        str(index),
        when.strftime("%F %T"),
        event["phase"],
        event["action"],
        event.get("outcome", "-"),
        event.get("model", "-"),
        ",".join(verdicts) or "-",
        event["trace_id"],
    )


def _line(cells: tuple[str, ...]) -> str:
    widths = (9, 19, 7, 14, 15, 16, 24, 0)
    return "  ".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()
