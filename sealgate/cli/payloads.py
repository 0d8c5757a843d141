"""`sealgate audit erase|export-subject|hold|payload`: what a privacy officer does."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meshkit.contract import subject_of_user
from sealgate.cli import DONE
from sealgate.cli._command import add_command
from sealgate.cli.prove import DEFAULT_TARGET, id_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Coroutine

    from sealgate.payloads_client import AsyncPayloads, KeptPayload, LegalHold

    Work = Callable[[AsyncPayloads, argparse.Namespace], Coroutine[Any, Any, None]]

__all__ = ["add_parser"]

_ERASE = """examples:
  sealgate audit erase --subject p-4711 --out proofs --tls var/appliance/tls-privacy
  sealgate audit erase --user ada@example.org --tenant demo --out proofs

Erases payloads, their keys and cached answers; records in the log stay, and every proof holds.
Writes the proof file of the record that says so: `sealgate audit check` reads it."""
_EXPORT = """examples:
  sealgate audit export-subject --subject p-4711 --out p-4711.jsonl --tls var/appliance/tls-privacy

One JSON object a line: what was said, as it was screened and released."""
_HOLD = """examples:
  sealgate audit hold set --on subject --value p-4711 --reference case-2026-17
  sealgate audit hold set --on tenant --reference regulator-9
  sealgate audit hold list --json
  sealgate audit hold release 0192f3a4b5c67d8e9fa0b1c2d3e4f506

A hold keeps payloads from retention and erasure until it is released."""
_PAYLOAD = """examples:
  sealgate audit payload --call 0192f3a4b5c67d8e9fa0b1c2d3e4f506 --tls var/appliance/tls-privacy

Prints what was said in a call, as JSON lines. The read is recorded."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommands to `audit`."""
    erase = add_command(commands, "erase", "erase all that is kept about a person", _ERASE)
    erase.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for the proof")
    _add_subject(erase)
    _add_connection(erase, _erase)
    export = add_command(
        commands, "export-subject", "write down all that is kept about a person", _EXPORT
    )
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="0600")
    _add_subject(export)
    _add_connection(export, _export)
    payload = add_command(commands, "payload", "print what was said in a call", _PAYLOAD)
    payload.add_argument("--call", type=id_of, required=True, metavar="HEX", help="call id")
    _add_connection(payload, _payload)
    hold = add_command(commands, "hold", "set, release and list legal holds", _HOLD)
    _add_holds(hold.add_subparsers(dest="hold_command", metavar="COMMAND", required=True))


def _add_holds(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    put = add_command(commands, "set", "set a legal hold", _HOLD)
    put.add_argument("--on", required=True, choices=("tenant", "class", "subject", "call"))
    put.add_argument("--value", default="", help="a class, a subject's id, a call id in hex")
    put.add_argument("--reference", required=True, help="why: such as a case number")
    _add_connection(put, _set_hold)
    release = add_command(commands, "release", "release a legal hold", _HOLD)
    release.add_argument("id", type=id_of, help="as `hold list` tells it")
    _add_connection(release, _release_hold)
    _add_connection(add_command(commands, "list", "list legal holds", _HOLD), _list_holds)


def _add_subject(parser: argparse.ArgumentParser) -> None:
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--subject", metavar="ID", help="as calls said it")
    who.add_argument(
        "--user",
        dest="subject",
        type=subject_of_user,
        metavar="SUB",
        help="a user whose calls named no subject, as tokens call it",
    )


def _add_connection(parser: argparse.ArgumentParser, work: Work) -> None:
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
    parser.set_defaults(run=_run, work=work)


def _run(args: argparse.Namespace) -> int:
    # Here, so that `verify` and `check` need no gRPC.
    from sealgate.cli._connection import told  # noqa: PLC0415 -- see above

    return told(args, lambda: _done(args))


def _done(args: argparse.Namespace) -> int:
    import asyncio  # noqa: PLC0415 -- as in `_run`

    asyncio.run(_connected(args))
    return DONE


async def _connected(args: argparse.Namespace) -> None:
    from sealgate.payloads_client import AsyncPayloads  # noqa: PLC0415 -- as in `_run`

    async with AsyncPayloads(args.target, tls=args.tls, server_name=args.server_name) as payloads:
        await args.work(payloads, args)


async def _erase(payloads: AsyncPayloads, args: argparse.Namespace) -> None:
    erased = await payloads.erase(args.subject, tenant=args.tenant)
    path = args.out / f"{erased.index:012d}-erase.tlog-proof"
    if erased.proof:
        args.out.mkdir(parents=True, exist_ok=True)
        path.write_text(erased.proof, encoding="utf-8")
    told: dict[str, object] = {
        "payloads": erased.payloads,
        "keys": erased.keys,
        "cached": erased.cached,
        "call_id": erased.call_id.hex(),
        "index": erased.index,
        "proof": str(path) if erased.proof else None,
    }
    if args.json:
        print(json.dumps(told))
        return
    counts = f"{erased.payloads} payloads, {erased.keys} keys and {erased.cached} cached answers"
    print(f"erased {counts}; record {erased.index}")
    print(path if erased.proof else "no checkpoint covers it yet: `sealgate audit prove` it later")


async def _export(payloads: AsyncPayloads, args: argparse.Namespace) -> None:
    count = 0
    handle = os.open(args.out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        async for kept in payloads.export(args.subject, tenant=args.tenant):
            file.write(_line(kept) + "\n")
            count += 1
    told = {"file": str(args.out), "payloads": count}
    print(json.dumps(told) if args.json else f"{args.out}: {count} payloads")


async def _payload(payloads: AsyncPayloads, args: argparse.Namespace) -> None:
    for kept in await payloads.read(args.call, tenant=args.tenant):
        print(_line(kept))


async def _set_hold(payloads: AsyncPayloads, args: argparse.Namespace) -> None:
    hold = await payloads.set_hold(args.on, args.value, args.reference, tenant=args.tenant)
    _say_hold(hold, as_json=args.json)


async def _release_hold(payloads: AsyncPayloads, args: argparse.Namespace) -> None:
    await payloads.release_hold(args.id, tenant=args.tenant)
    told = {"released": args.id.hex()}
    print(json.dumps(told) if args.json else f"released {args.id.hex()}")


async def _list_holds(payloads: AsyncPayloads, args: argparse.Namespace) -> None:
    for hold in await payloads.holds(tenant=args.tenant):
        _say_hold(hold, as_json=args.json)


def _say_hold(hold: LegalHold, *, as_json: bool) -> None:
    told = {
        "id": hold.id.hex(),
        "on": hold.scope,
        "value": hold.value,
        "reference": hold.reference,
        "set_us": hold.set_us,
    }
    on = f"{hold.scope} {hold.value}".strip()
    print(json.dumps(told) if as_json else f"{hold.id.hex()}  {on}  ({hold.reference})")


def _line(kept: KeptPayload) -> str:
    told = {
        "index": kept.index,
        "call_id": kept.call_id.hex(),
        "received_us": kept.received_us,
        "class": kept.retention,
        "screened": [
            {"role": message.role.value, "content": message.content} for message in kept.screened
        ],
        "released": kept.released,
        "salts": {name: salt.hex() for name, salt in sorted(kept.salts.items())},
    }
    return json.dumps(told, ensure_ascii=False)
