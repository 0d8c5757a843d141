"""`sealgate audit`: check a log and its proofs without trusting the service that wrote them."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from meshkit.contract import Reason, Refusal
from meshkit.tlog import (
    LogInvalid,
    NoteInvalid,
    Proof,
    ProofInvalid,
    check_log,
    check_proof,
    format_proof,
    origin_of,
)
from sealgate.cli import digest, export, monitor, payloads, prove, search, witness
from sealgate.cli._command import add_command
from sealgate.cli._vkey import add_trust, trust_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshkit.contract import Audit, Checkpoint

__all__ = ["add_parser", "check", "verify", "write_proofs"]

HOLDS, FAILS, UNREADABLE = 0, 1, 2
_POLL_S = 0.1

_EPILOG = """examples:
  sealgate audit verify --log var/appliance/audit/log --vkey var/appliance/audit/vkey
  sealgate audit prove --call 0192f3a4b5c67d8e9fa0b1c2d3e4f506 --out proofs --tls var/appliance/tls
  sealgate audit check proofs/000000000041-outcome.tlog-proof --vkey var/appliance/audit/vkey
  sealgate audit verify --log var/appliance/audit/log --policy var/appliance/audit/policy
  sealgate audit monitor --log https://logs.example.org/mesh --policy policy --state state.json

exit codes: 0 it holds, 1 it does not, 2 usage, or a file or key that cannot be read."""
_VERIFY_EPILOG = """examples:
  sealgate audit verify --log var/appliance/audit/log --vkey var/appliance/audit/vkey
  sealgate audit verify --log /mnt/copy/log --vkey "example.org/audit+0f6d17a2+AQ..." --json

Needs no connection. Names the first file that does not fit, and the first bad entry."""
_CHECK_EPILOG = """examples:
  sealgate audit check proofs/000000000041-outcome.tlog-proof --vkey var/appliance/audit/vkey

Needs no connection. Prints the record that the proof is about."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `audit` with its own subcommands; a handler is the parsed `run` default."""
    audit = subparsers.add_parser(
        "audit",
        help="check the log and its proofs",
        description="Check a log and its proofs without trusting the service that wrote them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = audit.add_subparsers(dest="audit_command", metavar="COMMAND", required=True)
    whole = add_command(
        commands, "verify", "check every entry, tile, root and signature", _VERIFY_EPILOG
    )
    whole.add_argument("--log", type=Path, required=True, help="folder with checkpoint and tile/")
    whole.set_defaults(run=verify)
    one = add_command(commands, "check", "check one proof file, offline", _CHECK_EPILOG)
    one.add_argument("file", type=Path, help="a proof file, as `sealgate audit prove` writes it")
    one.set_defaults(run=check)
    prove.add_parser(commands)
    digest.add_parser(commands)
    witness.add_parser(commands)
    monitor.add_parser(commands)
    search.add_parser(commands)
    payloads.add_parser(commands)
    export.add_parser(commands)
    for command in (whole, one):
        add_trust(command)
        command.add_argument("--json", action="store_true", help="print JSON")


def _say(told: dict[str, object], sentence: str, *, as_json: bool) -> None:
    print(json.dumps(told, ensure_ascii=False) if as_json else sentence)


def _unusable(failure: OSError | UnicodeDecodeError | NoteInvalid, *, as_json: bool) -> int:
    """Say what could not even be looked at: that is no verdict on the log."""
    if isinstance(failure, NoteInvalid):
        told, sentence = {"error": "vkey"}, f"--vkey or --policy: {failure}"
    elif isinstance(failure, OSError):
        told = {"error": "unreadable", "file": str(failure.filename)}
        sentence = f"cannot read {failure.filename}: {failure.strerror}"
    else:
        told, sentence = {"error": "unreadable"}, "cannot read: this is no UTF-8 text"
    if as_json:
        print(json.dumps({"ok": False} | told))
    else:
        print(f"sealgate: {sentence}", file=sys.stderr)
    return UNREADABLE


def verify(args: argparse.Namespace) -> int:
    """Run `sealgate audit verify --log DIR --vkey VKEY or --policy FILE`; return the code."""
    folder: Path = args.log

    def read(path: str) -> bytes | None:
        try:
            return (folder / path).read_bytes()
        except FileNotFoundError:
            return None

    try:
        trust = trust_of(args)
        folder.stat()  # a name that was mistyped speaks against no log
        checked = check_log(read, trust, _paths(folder))
    except LogInvalid as bad:
        told = {"ok": False, "step": bad.step, "file": bad.path, "index": bad.index}
        _say(told | {"reason": bad.reason}, f"log does NOT hold: {bad}", as_json=args.json)
        return FAILS
    except (OSError, UnicodeDecodeError, NoteInvalid) as failure:
        return _unusable(failure, as_json=args.json)
    told = {"ok": True, "origin": checked.origin, "size": checked.size}
    told |= {"root": checked.root.hex(), "files": checked.files, "beyond": checked.beyond}
    sentence = (
        f"log {checked.origin} holds: {checked.size} entries, {checked.files} files, "
        f"root {checked.root.hex()}"
    )
    _say(told, sentence, as_json=args.json)
    return HOLDS


def _paths(folder: Path) -> Iterator[str]:
    for path in (folder / "tile").rglob("*"):
        # Names with a leading dot are files being written; nobody serves them.
        if not path.name.startswith(".") and path.is_file():
            yield path.relative_to(folder).as_posix()


def check(args: argparse.Namespace) -> int:
    """Run `sealgate audit check FILE --vkey VKEY or --policy FILE`; return the code."""
    try:
        trust = trust_of(args)
        text = args.file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, NoteInvalid) as failure:
        return _unusable(failure, as_json=args.json)
    try:
        proof = check_proof(text, trust)
    except ProofInvalid as bad:
        told: dict[str, object] = {"ok": False, "step": bad.step, "reason": bad.reason}
        _say(told, f"proof does NOT hold: {bad}", as_json=args.json)
        return FAILS
    origin = origin_of(proof.checkpoint)
    leaf = proof.leaf.decode(errors="backslashreplace")
    told = {"ok": True, "origin": origin, "index": proof.index, "size": proof.checkpoint.size}
    sentence = (
        f"proof holds: entry {proof.index} of {proof.checkpoint.size} in log {origin}\n{leaf}"
    )
    _say(told | {"leaf": leaf}, sentence, as_json=args.json)
    return HOLDS


async def write_proofs(
    audit: Audit,
    tenant: str,
    out: Path,
    *,
    call_id: bytes | None = None,
    trace_id: bytes | None = None,
    wait_s: float = 10.0,
) -> list[Path]:
    """Write one proof file for each record of a call or trace; return their paths.

    Waits up to `wait_s` for a checkpoint that covers the records: they are durable at once, but
    published up to a publish interval later.

    Raises:
        Refusal: NOT_FOUND, if there is no such record; OUT_OF_TIME, if no checkpoint came.
        OSError: the folder cannot be written.
    """
    records = await audit.records(tenant, call_id=call_id, trace_id=trace_id)
    if not records:
        raise Refusal(Reason.NOT_FOUND)
    checkpoint = await _covering(audit, records[-1].index, wait_s)
    proofs = [
        (
            f"{record.index:012d}-{record.phase.value}.tlog-proof",
            Proof(
                leaf=record.leaf,
                index=record.index,
                hashes=await audit.inclusion(record.index, checkpoint.size),
                checkpoint=checkpoint,
            ),
        )
        for record in records
    ]
    return await asyncio.to_thread(_write, out, proofs)


async def _covering(audit: Audit, index: int, wait_s: float) -> Checkpoint:
    """Return a checkpoint of a tree that holds `index`."""
    try:
        async with asyncio.timeout(wait_s):
            while True:
                checkpoint = await audit.checkpoint()
                if checkpoint.size > index:
                    return checkpoint
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise Refusal(Reason.OUT_OF_TIME) from None


def _write(out: Path, proofs: list[tuple[str, Proof]]) -> list[Path]:
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, proof in proofs:
        path = out / name
        path.write_text(format_proof(proof), encoding="utf-8")
        paths.append(path)
    return paths
