"""`sealgate models list|add|verify|sign|seal|remove`: what lies in a store, and how it changes.

All of it works on the host of the store, without a gateway. Whoever signs or seals logs in to
OpenBao as the model administrator (openbao/model-admin.json of the first start, or --login).
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

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from inference.store.changing import StoreChanger
    from inference.store.checking import Checked
    from inference.store.manifest import Manifest
    from inference.store.openssf import Published
    from inference.store.store import Entry, ModelStore
    from meshkit.contract import Refusal

__all__ = ["add_parser"]

_DATA = "var/appliance"

_LIST = """examples:
  sealgate models list
  sealgate models list --store var/models --json

Reads manifests only; `verify` checks what they say."""
_ADD = """examples:
  sealgate models add download/ --name acme-chat --licence Apache-2.0 --sign
  sealgate models add model.gguf --name acme-chat --licence Apache-2.0 --context-tokens 8192
  sealgate models add lora.zip --name acme-tone --licence MIT --kind adapter --base acme-chat --seal
  sealgate models add export/ --manifest manifest.json --signature signature.json

PATH is a folder, a .zip, .tar or .tar.gz, or one file. Taken are safetensors, GGUF, ONNX, TensorRT
plans, JSON and plain text; a pickle, a link or a path that leads elsewhere refuses all of it.
Nothing is changed unless all of it is sound."""
_VERIFY = """examples:
  sealgate models verify
  sealgate models verify acme-chat --version 2 --json

Signatures are held against OpenBao's public keys, and sealed files are opened with its keys: give
--data of what runs here. exit codes: 0 all hold, 1 something does not, 2 usage, 3 no OpenBao."""
_SIGN = """examples:
  sealgate models sign acme-chat
  sealgate models sign acme-chat --version 2 --login /media/usb/model-admin.json"""
_SEAL = """examples:
  sealgate models seal acme-chat

Encrypts the files in the store and removes them in plain; what a disk keeps of removed files is
its own matter. `add --seal` never writes them there."""
_REMOVE = """examples:
  sealgate models remove acme-chat --version 1"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of a store."""
    listing = _command(commands, "list", "list the models in a store, asked or not", _LIST)
    listing.set_defaults(work=_list)
    _add_add(commands)

    verify = _command(
        commands, "verify", "check models again: digests, signature, content", _VERIFY
    )
    verify.add_argument("name", nargs="?", metavar="NAME", help="this model [all]")
    verify.add_argument("--version", metavar="V", help="this version [the newest]")
    _login(verify)
    verify.set_defaults(work=_verify)

    for name, line, epilog, work in (
        ("sign", "sign a model's manifest with OpenBao's key", _SIGN, _sign),
        ("seal", "encrypt a model's files", _SEAL, _seal),
    ):
        parser = _command(commands, name, line, epilog)
        parser.add_argument("name", metavar="NAME")
        parser.add_argument("--version", metavar="V", help="[the newest]")
        _login(parser)
        parser.set_defaults(work=work)

    remove = _command(commands, "remove", "remove a model from a store", _REMOVE)
    remove.add_argument("name", metavar="NAME")
    remove.add_argument("--version", metavar="V", required=True)
    remove.set_defaults(work=_remove)


def _add_add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    add = _command(commands, "add", "take a model into a store", _ADD)
    add.add_argument("path", type=Path, metavar="PATH")
    add.add_argument("--name", help="what it is asked for by")
    add.add_argument("--licence", default="", help="best an SPDX expression")
    add.add_argument("--version", help="[one above the highest there is]")
    add.add_argument("--source", default="", help="where it is from")
    add.add_argument("--intended-use", default="", metavar="TEXT")
    add.add_argument("--risk-class", default="limited", choices=("minimal", "limited", "high"))
    add.add_argument(
        "--classification",
        default="unclassified",
        choices=("public", "internal", "restricted", "unclassified"),
    )
    add.add_argument("--language", action="append", default=[], metavar="TAG", help="such as en")
    add.add_argument("--kind", default="chat", choices=("chat", "embedding", "adapter"))
    add.add_argument(
        "--base", default="", metavar="NAME", help="of an adapter: the model, or its digest"
    )
    add.add_argument("--format", choices=("gguf", "safetensors", "onnx", "plan"), help="[as found]")
    add.add_argument("--precision", default="", metavar="TEXT")
    add.add_argument("--context-tokens", type=int, metavar="N", help="[as the files say]")
    add.add_argument("--default-system", default="", metavar="TEXT", help="system message if none")
    add.add_argument("--manifest", type=Path, metavar="FILE", help="holds all of this instead")
    add.add_argument("--signature", type=Path, metavar="FILE", help="made elsewhere; it must hold")
    add.add_argument(
        "--openssf-signature",
        type=Path,
        metavar="FILE",
        help="the publisher's, by a key (OpenSSF model-signing); it must hold for all files",
    )
    add.add_argument("--openssf-key", type=Path, metavar="FILE", help="its public key, PEM")
    add.add_argument("--sign", action="store_true", help="sign it, too")
    add.add_argument("--seal", action="store_true", help="encrypt its files")
    _login(add)
    add.set_defaults(work=_add)


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, line: str, epilog: str
) -> argparse.ArgumentParser:
    parser = add_command(commands, name, line, epilog)
    parser.add_argument(
        "--store", type=Path, metavar="DIR", help="the models folder [$SEALGATE_MODELS_DIR]"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run, login=None, data=None)
    return parser


def _login(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("SEALGATE_DATA", _DATA),
        metavar="DIR",
        help=f"folder of the appliance or mesh, whose OpenBao is asked [$SEALGATE_DATA, {_DATA}]",
    )
    parser.add_argument(
        "--login",
        type=Path,
        metavar="FILE",
        help="the model administrator's [openbao/model-admin.json in the data folder]",
    )


def _run(args: argparse.Namespace) -> int:
    """Do it; tell what goes wrong on standard error, or as JSON."""
    import structlog  # noqa: PLC0415 -- a listing shall not wait for what it does not use

    from inference.store.errors import ModelFileError  # noqa: PLC0415 -- as above
    from meshkit.contract import Refusal  # noqa: PLC0415 -- as above
    from meshkit.vault import VaultRejected  # noqa: PLC0415 -- as above

    if not structlog.is_configured():  # logs by default go where the answer goes
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        told, code = args.work(args)
    except ModelFileError as error:
        refused = {"error": "model", "fault": error.name, "member": error.member or None}
        where = f": {error.member!r}" if error.member else ""
        return _say(args, REFUSED, refused, f"{error}{where}")
    except VaultRejected as rejected:
        if not rejected.forbidden:
            return _refused(args, rejected)
        sentence = "OpenBao does not let this login do that"
        return _say(args, REFUSED, {"error": "refused", "reason": "DENIED"}, sentence)
    except Refusal as refusal:
        return _refused(args, refusal)
    except OSError as failure:
        sentence = f"cannot read {failure.filename}: {failure.strerror}"
        return _say(args, BAD_USAGE, {"error": "unreadable"}, sentence)
    except ValueError as wrong:
        return _say(args, BAD_USAGE, {"error": "usage"}, str(wrong))
    if args.json:
        print(json.dumps(told, ensure_ascii=False))
    return int(code)


def _refused(args: argparse.Namespace, refusal: Refusal) -> int:
    away = refusal.reason.name == "KEYS_DOWN"
    told = {"error": "refused", "reason": refusal.reason.name}
    sentence = f"{refusal.reason.value} ({refusal.reason.name})"
    return _say(args, UNAVAILABLE if away else REFUSED, told, sentence)


def _say(args: argparse.Namespace, code: int, told: dict[str, Any], sentence: str) -> int:
    if args.json:
        print(json.dumps(told))
    else:
        print(f"sealgate: {sentence}", file=sys.stderr)
    return code


def _tell(args: argparse.Namespace, line: str) -> None:
    if not args.json:
        print(line)


# --- the commands ---------------------------------------------------------------------------


def _list(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    from inference.store.checking import is_there  # noqa: PLC0415 -- as in `_run`

    store, _ = _offline(args)
    _must_be_there(store)
    entries = [entry for entry in store.entries() if not entry.packaged or is_there(store, entry)]
    rows = [_row(entry) for entry in entries]
    for row in rows:
        marks = " ".join(mark for mark in ("packaged", "signed", "sealed") if row[mark])
        _tell(
            args,
            f"{row['name']}  {row['version']}  {row['kind']}  {row['format']}  "
            f"{row['bytes'] / 1e6:,.1f} MB  {row['licence']}  {row['risk_class']}  "
            f"{row['digest'][:12]}  {marks}",
        )
    sound = {(row["name"], row["version"]) for row in rows}
    damaged = [place for place in store.places() if place not in sound]
    for name, version in damaged:
        _tell(args, f"{name}  {version}  damaged: see `sealgate models verify`")
    told = {"models": rows, "damaged": [list(place) for place in damaged]}
    return told, DONE


def _row(entry: Entry) -> dict[str, Any]:
    manifest = entry.manifest
    return {
        "name": manifest.name,
        "version": manifest.version,
        "kind": manifest.kind,
        "format": manifest.format,
        "precision": manifest.precision,
        "licence": manifest.licence,
        "risk_class": manifest.risk_class,
        "classification": manifest.classification,
        "bytes": manifest.size,
        "digest": manifest.digest.hex(),
        "packaged": entry.packaged,
        "signed": entry.signature is not None,
        "sealed": entry.seal is not None,
    }


def _add(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    from inference.store.claims import Claim  # noqa: PLC0415 -- as in `_run`
    from inference.store.manifest import Manifest  # noqa: PLC0415 -- as in `_run`

    if args.manifest is None and not (args.name and args.licence):
        msg = "say --name and --licence, or give a --manifest"
        raise ValueError(msg)
    claim: Claim | Manifest
    if args.manifest is not None:
        claim = Manifest.parse(args.manifest.read_bytes())
    else:
        claim = Claim(
            name=args.name,
            licence=args.licence,
            version=args.version,
            kind=args.kind,
            base=args.base,
            format=args.format,
            precision=args.precision,
            context_tokens=args.context_tokens,
            source=args.source,
            languages=tuple(args.language),
            intended_use=args.intended_use,
            risk_class=args.risk_class,
            classification=args.classification,
            default_system=args.default_system,
        )

    def work(changer: StoreChanger) -> Manifest:
        manifest = changer.add(args.path, claim, seal=args.seal, published=_published(args))
        if args.signature is not None:
            text = args.signature.read_bytes()
            changer.put_signature(manifest.name, manifest.version, text)
        if args.sign:
            changer.sign(manifest.name, manifest.version)
        return manifest

    asks = args.seal or args.sign or args.signature is not None
    return _changed(args, work, "added", asks=asks)


def _published(args: argparse.Namespace) -> Published | None:
    from inference.store.openssf import Published  # noqa: PLC0415 -- as in `_run`

    if (args.openssf_signature is None) != (args.openssf_key is None):
        msg = "give both --openssf-signature and --openssf-key"
        raise ValueError(msg)
    if args.openssf_signature is None:
        return None
    return Published(args.openssf_signature.read_bytes(), args.openssf_key.read_bytes())


def _sign(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    return _changed(args, lambda changer: changer.sign(args.name, args.version), "signed")


def _seal(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    return _changed(args, lambda changer: changer.seal(args.name, args.version), "sealed")


def _remove(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    from inference.store.changing import StoreChanger  # noqa: PLC0415 -- as in `_run`

    store, limits = _offline(args)
    StoreChanger(store, limits).remove(args.name, args.version)
    _tell(args, f"removed: {args.name} {args.version}")
    return {"removed": {"name": args.name, "version": args.version}}, DONE


def _changed(
    args: argparse.Namespace,
    work: Callable[[StoreChanger], Manifest],
    done: str,
    *,
    asks: bool = True,
) -> tuple[dict[str, Any], int]:
    from inference.store.changing import StoreChanger  # noqa: PLC0415 -- as in `_run`
    from sealgate.cli._store_keys import with_keys  # noqa: PLC0415 -- as in `_run`

    if asks:
        login = args.login or args.data / "openbao" / "model-admin.json"
        manifest = asyncio.run(
            with_keys(
                args, login, lambda store, limits, keys: work(StoreChanger(store, limits, keys))
            )
        )
    else:
        store, limits = _offline(args)
        manifest = work(StoreChanger(store, limits))
    digest = manifest.digest.hex()
    _tell(args, f"{done}: {manifest.name} {manifest.version}  {digest}")
    return {done: {"name": manifest.name, "version": manifest.version, "digest": digest}}, DONE


def _verify(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    from inference.store.checking import check_model, check_store  # noqa: PLC0415 -- as in `_run`
    from sealgate.cli._store_keys import login_to_look, with_keys  # noqa: PLC0415 -- as in `_run`

    def work(store: ModelStore) -> list[Checked]:
        _must_be_there(store)
        if args.name:
            return [check_model(store, args.name, args.version)]
        return list(check_store(store))

    login = login_to_look(args)
    if login is None:
        found = work(_offline(args)[0])
    else:
        found = asyncio.run(with_keys(args, login, lambda store, _limits, _keys: work(store)))
    for one in found:
        _tell(args, _line(one))
    return {"models": [_told(one) for one in found]}, DONE if all(
        one.holds for one in found
    ) else REFUSED


def _must_be_there(store: ModelStore) -> None:
    """Raise OSError if there is no such folder: of a mistyped one all would hold."""
    next(store.folder.iterdir(), None)


def _line(one: Checked) -> str:
    checks = "  ".join(
        f"{name}: {getattr(one, name).replace('_', ' ')}"
        for name in ("manifest", "signature", "files", "content")
    )
    extra = f"  {one.extra} files too many" if one.extra else ""
    return f"{'ok ' if one.holds else 'BAD'}  {one.name}  {one.version}  {checks}{extra}"


def _told(one: Checked) -> dict[str, Any]:
    from dataclasses import asdict  # noqa: PLC0415 -- as in `_run`

    return asdict(one) | {"holds": one.holds}


def _offline(args: argparse.Namespace) -> Any:  # noqa: ANN401 -- types that load when used
    from sealgate.cli._store_keys import offline  # noqa: PLC0415 -- as in `_run`

    return offline(args)
