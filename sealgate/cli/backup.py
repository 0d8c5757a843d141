"""`sealgate backup`: back an installation up, check, restore, and go on after a loss.

Runs on the host of the installation: it reads the data folder. docs/backup.md has the drill.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sealgate.cli import BAD_USAGE, DONE, REFUSED, UNAVAILABLE
from sealgate.cli._command import add_command
from sealgate.cli._vkey import vkey_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Coroutine

    from appliance.age import Opener, Sealer

__all__ = ["add_parser"]

_EPILOG = """examples:
  sealgate backup keygen --out backup.key
  sealgate backup create --data var/appliance --out /backups --recipient age1...
  sealgate backup seal-key --data var/appliance --out seal.age --recipient age1...
  sealgate backup verify FILE --key backup.key --vkey vkey
  sealgate backup restore FILE --key backup.key --seal-key seal.age --into var/appliance
  sealgate backup recover --data var/appliance --from-mirror s3://bucket/audit

exit codes: 0 done, 1 it does not hold or was refused, 2 usage, 3 OpenBao or audit do not answer."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `backup` with its own subcommands."""
    backup = add_command(subparsers, "backup", "back up, restore, recover", _EPILOG)
    commands = backup.add_subparsers(metavar="COMMAND", required=True)
    for add in (_add_keygen, _add_create, _add_seal_key, _add_verify, _add_restore, _add_recover):
        add(commands)
    _add_receipts(commands)


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    line: str,
    run: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    parser = add_command(commands, name, line, "")
    parser.set_defaults(run=lambda args: _told(run, args))
    return parser


def _data(parser: argparse.ArgumentParser) -> None:
    default = os.environ.get("APPLIANCE_DATA_DIR", "var/appliance")
    parser.add_argument("--data", type=Path, default=Path(default), help=f"data folder [{default}]")


def _sealing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--recipient", action="append", default=[], metavar="age1…",
        help="public key that can open it; may be given several times",
    )  # fmt: skip
    parser.add_argument("--passphrase-file", type=Path, metavar="FILE", help="or: its first line")


def _opening(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--key", type=Path, metavar="FILE", help="secret key, as `keygen` made it")
    parser.add_argument("--passphrase-file", type=Path, metavar="FILE", help="or: its first line")


def _store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--credentials", type=Path, metavar="FILE", help="JSON of the store's options [environment]"
    )


def _passphrase(path: Path) -> bytes:
    line = path.read_bytes().split(b"\n", 1)[0].rstrip(b"\r")
    if not line:
        msg = f"{path} holds no passphrase"
        raise ValueError(msg)
    return line


def _sealers(args: argparse.Namespace) -> list[Sealer]:
    from appliance.age import Passphrase, Recipient  # noqa: PLC0415 -- loaded when it is used

    if bool(args.recipient) == bool(args.passphrase_file):
        msg = "give --recipient or --passphrase-file"
        raise ValueError(msg)
    if args.passphrase_file:
        return [Passphrase(_passphrase(args.passphrase_file))]
    return [Recipient.parse(each) for each in args.recipient]


def _opener(args: argparse.Namespace) -> Opener:
    from appliance.age import Identity, Passphrase  # noqa: PLC0415 -- loaded when it is used

    if bool(args.key) == bool(args.passphrase_file):
        msg = "give --key or --passphrase-file"
        raise ValueError(msg)
    if args.passphrase_file:
        return Passphrase(_passphrase(args.passphrase_file))
    return Identity.parse(args.key.read_text(encoding="utf-8"))


def _told(run: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run a command; say in a line why it did not do it."""
    from obstore.exceptions import BaseError  # noqa: PLC0415 -- only where a backup is worked on

    from appliance.age import AgeInvalid  # noqa: PLC0415 -- as above
    from appliance.backup_tar import BackupInvalid  # noqa: PLC0415 -- as above
    from appliance.openbao import OpenBaoError  # noqa: PLC0415 -- as above
    from meshkit.contract import Reason, Refusal  # noqa: PLC0415 -- as above
    from meshkit.tlog import LogInvalid  # noqa: PLC0415 -- as above
    from sealgate.errors import ReceiptError  # noqa: PLC0415 -- as above

    try:
        return run(args)
    except (AgeInvalid, BackupInvalid, LogInvalid) as bad:
        return _failed(REFUSED, f"does NOT hold: {bad}")
    except Refusal as refusal:
        away = refusal.reason in {Reason.KEYS_DOWN, Reason.AUDIT_DOWN}
        return _failed(UNAVAILABLE if away else REFUSED, refusal.reason.value)
    except OpenBaoError as failure:
        return _failed(UNAVAILABLE, str(failure))
    except OSError as failure:
        return _failed(BAD_USAGE, f"{failure.filename or 'disk'}: {failure.strerror or 'failed'}")
    except BaseError as failure:
        return _failed(UNAVAILABLE, f"object store: {type(failure).__name__}")
    except ReceiptError as bad:
        return _failed(REFUSED, f"receipt does NOT hold: step {bad.step}")
    except ValueError as failure:
        return _failed(BAD_USAGE, str(failure))


def _failed(code: int, sentence: str) -> int:
    print(f"sealgate: {sentence}", file=sys.stderr)
    return code


def _run(work: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 -- what the work returns
    from meshkit.telemetry import configure_logging  # noqa: PLC0415 -- loaded when it is used

    configure_logging()
    return asyncio.run(work)


# --- keys -------------------------------------------------------------------------------------


def _add_keygen(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "keygen", "make a key pair for backups", _keygen)
    parser.add_argument("--out", type=Path, required=True, help="file for the secret key")


def _keygen(args: argparse.Namespace) -> int:
    from appliance.age import Identity  # noqa: PLC0415 -- loaded when it is used

    made = Identity.generate()
    handle = os.open(args.out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(f"# public key: {made.recipient.name}\n{made.text}\n")
    print(made.recipient.name)
    print("Keep the secret key away from the host that is backed up.", file=sys.stderr)
    return DONE


def _add_seal_key(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "seal-key", "export what unseals OpenBao, by itself", _seal_key)
    _data(parser)
    parser.add_argument("--out", type=Path, required=True, help="file to make")
    _sealing(parser)


def _seal_key(args: argparse.Namespace) -> int:
    from appliance.age import sealed  # noqa: PLC0415 -- loaded when it is used

    key = (args.data / "openbao" / "seal.key").read_bytes()
    content = b"".join(sealed([key], _sealers(args)))
    handle = os.open(args.out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    print(f"seal key exported to {args.out}: keep it where the backups are not")
    return DONE


# --- make and check ---------------------------------------------------------------------------


def _add_create(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "create", "back up an installation that runs", _create)
    _data(parser)
    parser.add_argument("--out", required=True, help="folder, or s3://, gs://, az://")
    _sealing(parser)
    _store(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _create(args: argparse.Namespace) -> int:
    from appliance.backup import BackupOrder, create  # noqa: PLC0415 -- loaded when it is used

    order = BackupOrder(
        data=args.data, out=args.out, recipients=_sealers(args), credentials=args.credentials
    )
    made = _run(create(order))
    told = {"name": made.name, "size": made.size, "files": made.files, "bytes": made.bytes}
    told |= {"sha256": made.sha256, "seconds": round(made.seconds, 3)}
    sentence = f"{made.name}: log of {made.size} entries, {made.files} files, {made.bytes} bytes"
    print(json.dumps(told) if args.json else sentence)
    return DONE


def _add_verify(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "verify", "check a backup and the log in it", _verify)
    parser.add_argument("backup", help="file, or URL of the object")
    _opening(parser)
    _store(parser)
    parser.add_argument("--vkey", help="the log's verifier key, or its file [the backup's own]")
    parser.add_argument("--scratch", type=Path, metavar="FOLDER", help="room for the log meanwhile")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _verify(args: argparse.Namespace) -> int:
    from appliance.backup_check import pieces_of, verify  # noqa: PLC0415 -- loaded when it is used

    pieces = pieces_of(args.backup, args.credentials)
    vkey = vkey_of(args.vkey) if args.vkey else None
    checked = verify(pieces, _opener(args), vkey=vkey, scratch=args.scratch)
    told = {"made": checked.about["made"], "origin": checked.about["origin"]}
    told |= {"size": checked.size, "root": checked.root, "files": checked.files}
    whose = "" if vkey else " (by its own key: --vkey says whose it is)"
    sentence = (
        f"backup of {told['made']} holds: log {told['origin']} of {checked.size} entries, "
        f"{checked.files} files{whose}"
    )
    print(json.dumps(told) if args.json else sentence)
    return DONE


# --- restore and recover ----------------------------------------------------------------------


def _add_restore(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "restore", "put a backup back into an empty folder", _restore)
    parser.add_argument("backup", help="file, or URL of the object")
    parser.add_argument("--into", type=Path, required=True, help="data folder; empty, or not there")
    _opening(parser)
    _store(parser)
    parser.add_argument("--seal-key", type=Path, metavar="FILE", help="as `seal-key` exported it")
    parser.add_argument(
        "--seal-key-key", type=Path, metavar="FILE", help="secret key of that file [--key]"
    )
    parser.add_argument("--vkey", help="the log's verifier key, or its file [the backup's own]")
    parser.add_argument(
        "--audit-only", action="store_true", help="OpenBao was not lost; --into is its audit folder"
    )


def _seal_key_of(args: argparse.Namespace) -> bytes:
    from appliance.age import Identity, opened  # noqa: PLC0415 -- loaded when it is used

    if args.seal_key is None:
        return b""
    opener = _opener(args)
    if args.seal_key_key:
        opener = Identity.parse(args.seal_key_key.read_text(encoding="utf-8"))
    return b"".join(opened([args.seal_key.read_bytes()], opener))


def _restore(args: argparse.Namespace) -> int:
    from appliance.backup_check import pieces_of  # noqa: PLC0415 -- loaded when it is used
    from appliance.backup_restore import RestoreOrder, restore  # noqa: PLC0415 -- as above

    order = RestoreOrder(
        pieces=pieces_of(args.backup, args.credentials),
        opener=_opener(args),
        into=args.into.absolute(),
        seal_key=_seal_key_of(args),
        vkey=vkey_of(args.vkey) if args.vkey else None,
        audit_only=args.audit_only,
    )
    done = _run(restore(order))
    print(f"restored: backup of {done.made}, log of {done.size} entries, {done.files} files")
    return DONE


def _add_recover(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "recover", "let a log go on after a loss; stop it first", _recover)
    _data(parser)
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--from-mirror", metavar="URL", help="fetch what the mirror has beyond it")
    how.add_argument("--accept-loss", metavar="REASON", help="begin a new log that says so")
    _store(parser)


def _recover(args: argparse.Namespace) -> int:
    done = _run(_recovered(args))
    print(f"log {done.origin}: {done.found} entries were there, it goes on at {done.size}")
    return DONE


async def _recovered(args: argparse.Namespace) -> Any:  # noqa: ANN401 -- loaded when it is used
    from appliance.recovering import begin_anew, fill, stopped  # noqa: PLC0415 -- as above
    from appliance.settings import ApplianceSettings  # noqa: PLC0415 -- as above
    from audit.mirror.objects import StorePlace  # noqa: PLC0415 -- as above

    settings = ApplianceSettings.load().model_copy(update={"data_dir": args.data.absolute()})
    async with stopped(settings) as found:
        if args.from_mirror:
            return await fill(found, StorePlace(url=args.from_mirror, credentials=args.credentials))
        return await begin_anew(found, args.accept_loss)


# --- receipts ---------------------------------------------------------------------------------


def _add_receipts(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _command(commands, "receipts", "see whether a log holds what was promised", _receipts)
    parser.add_argument("files", nargs="+", type=Path, help="receipts as JSON, one a file")
    parser.add_argument("--log", type=Path, required=True, help="folder with checkpoint and tile/")
    parser.add_argument("--vkey", required=True, help="the log's verifier key, or its file")


def _receipts(args: argparse.Namespace) -> int:
    from audit.mirror.files import LogFiles  # noqa: PLC0415 -- loaded when it is used
    from meshkit.tlog import LogKeys, TileHashes  # noqa: PLC0415 -- as above
    from sealgate.receipts import check, receipt_from_json  # noqa: PLC0415 -- as above

    vkey = vkey_of(args.vkey)
    files = LogFiles(args.log, LogKeys.parse(vkey))
    checkpoint = files.checkpoint()
    size = 0 if checkpoint is None else checkpoint.size
    missing = 0
    for path in args.files:
        receipt = receipt_from_json(json.loads(path.read_text(encoding="utf-8")))
        check(receipt, vkey)
        there = receipt.index < size
        if there:
            there = TileHashes(files, size).node(0, receipt.index) == receipt.leaf_hash
        missing += not there
        verdict = "is in the log" if there else "was PROMISED and is NOT in the log"
        print(f"{path}: entry {receipt.index} {verdict}")
    return REFUSED if missing else DONE
