"""`sealgate audit`: check a log and its proofs without trusting the service that wrote them.

    sealgate audit verify --log var/demo/audit/log --vkey var/demo/audit/vkey
    sealgate audit check 000000000041-outcome.tlog-proof --vkey var/demo/audit/vkey

Exit codes: 0 it holds, 1 it does not, 2 it could not be read.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from meshkit.contract import Reason, Refusal
from meshkit.tlog import (
    LogInvalid,
    Proof,
    ProofInvalid,
    VerifierKey,
    check_log,
    check_proof,
    format_proof,
)
from sealgate.cli import prove

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshkit.contract import Audit, Checkpoint

__all__ = ["add_parser", "check", "verify", "write_proofs"]

HOLDS, FAILS, UNREADABLE = 0, 1, 2
_POLL_S = 0.1


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `audit` with its own subcommands; a handler is the parsed `run` default."""
    audit = subparsers.add_parser(
        "audit",
        help="check the log and its proofs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = audit.add_subparsers(dest="audit_command", required=True)
    whole = commands.add_parser("verify", help="check every entry, tile, root and signature")
    whole.add_argument("--log", type=Path, required=True, help="folder with checkpoint and tile/")
    whole.set_defaults(run=verify)
    one = commands.add_parser("check", help="check one proof file, offline")
    one.add_argument("file", type=Path, help="a proof file, as `sealgate audit prove` writes it")
    one.set_defaults(run=check)
    prove.add_parser(commands)
    for command in (whole, one):
        command.add_argument("--vkey", required=True, help="the log's verifier key, or its file")
        command.add_argument("--json", action="store_true", help="print JSON")


def _vkey(given: str) -> str:
    """Take a key, or the first line of the file of that name."""
    if given.count("+") >= 2 and not os.path.exists(given):  # noqa: PTH110, PLR2004 -- name+id+key
        return given
    return Path(given).read_text(encoding="utf-8").strip()


def _say(told: dict[str, object], sentence: str, *, as_json: bool) -> None:
    print(json.dumps(told, ensure_ascii=False) if as_json else sentence)


def verify(args: argparse.Namespace) -> int:
    """Run `sealgate audit verify --log DIR --vkey VKEY|FILE [--json]`; return the exit code."""
    folder: Path = args.log

    def read(path: str) -> bytes | None:
        try:
            return (folder / path).read_bytes()
        except FileNotFoundError:
            return None

    try:
        checked = check_log(read, _vkey(args.vkey), _paths(folder))
    except LogInvalid as bad:
        told = {"ok": False, "step": bad.step, "file": bad.path, "index": bad.index}
        _say(told | {"reason": bad.reason}, f"log does NOT hold: {bad}", as_json=args.json)
        return FAILS
    except OSError as failure:
        _say({"ok": False, "errno": failure.errno}, f"cannot read: {failure}", as_json=args.json)
        return UNREADABLE
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
    """Run `sealgate audit check FILE --vkey VKEY|FILE [--json]`; return the exit code."""
    try:
        vkey = _vkey(args.vkey)
        text = args.file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as failure:
        kind = type(failure).__name__
        _say({"ok": False, "error": kind}, f"cannot read: {kind}", as_json=args.json)
        return UNREADABLE
    try:
        proof = check_proof(text, vkey)
    except ProofInvalid as bad:
        told: dict[str, object] = {"ok": False, "step": bad.step, "reason": bad.reason}
        _say(told, f"proof does NOT hold: {bad}", as_json=args.json)
        return FAILS
    origin = VerifierKey.parse(vkey).name
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
