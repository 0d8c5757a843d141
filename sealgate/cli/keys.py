"""`sealgate keys`: rotate, rewrap, trim, destroy and restore keys of what runs on this host."""

from __future__ import annotations

from meshkit import tls_floor  # isort: skip -- before grpc

import asyncio
import json
import os
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from appliance.key_care import KeyCare, NotNowError, TenantState
from appliance.operating import keyholder, operating, operating_secrets
from meshkit.contract import Reason, Refusal
from sealgate.cli import BAD_USAGE, DONE, REFUSED, UNAVAILABLE
from sealgate.cli._command import add_command

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable

    from appliance.offboarding import Offboarding

__all__ = ["add_parser"]

assert tls_floor.in_time()

DATA = "var/appliance"
SECRETS = ("screening-mac", "cache-keys")
_DAY_S = 86_400

_EPILOG = """examples:
  sealgate keys status --data var/appliance
  sealgate keys rotate --tenant demo        # a new version; then bring older data keys under it:
  sealgate keys rewrap --tenant demo
  sealgate keys trim --tenant demo          # and forget the older versions for ever

Works on the host of an appliance or mesh, as the operator (openbao/operator.json in its data
folder). Every act is recorded in the audit log, before it is done and after; what cannot be
recorded is not done. docs/keys.md tells who may what."""

_STATUS = """examples:
  sealgate keys status
  sealgate keys status --tenant demo --json
  sealgate keys status --life-days 30       # when the next rotation would be due"""
_ROTATE = """examples:
  sealgate keys rotate --tenant demo
  sealgate keys rotate --all
  sealgate keys rotate --pseudonyms --tenant demo    # new pseudonyms from now on
  sealgate keys rotate --secret screening-mac
  sealgate keys rotate --checkpoint                  # a new key for the audit log's checkpoints

Nothing restarts, and nothing becomes unreadable. With --secret cache-keys the new version is used
by each cache from its next start on, and what it held before is looked up in vain. With
--checkpoint both keys sign for AUDIT_CHECKPOINT_KEY_OVERLAP_DAYS: until then auditors and callers
must have the new line of audit/vkey."""
_REWRAP = """examples:
  sealgate keys rewrap --tenant demo
  sealgate keys rewrap --all

May be cut off and begun again at any time."""
_TRIM = """examples:
  sealgate keys trim --tenant demo --keyholder /media/usb/keyholder.json

Refused while anything is under an older version: rewrap first. It cannot be undone, but by a
snapshot of OpenBao from before."""
_DESTROY = """examples:
  sealgate keys destroy --tenant demo --grace-days 30    # no use from now on; can be restored
  sealgate keys destroy --tenant demo                    # after the grace: deleted
  sealgate keys destroy --tenant demo                    # after --snapshot-days: recorded as such
  sealgate keys destroy --tenant demo --pseudonyms --before 2026-01-01

Each call takes the next step if it is due. --pseudonyms makes the pseudonyms of a tenant's people
in the log unlinkable for ever, and nothing else."""
_RESTORE = """examples:
  sealgate keys restore --tenant demo       # within the grace"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `keys` and what it can do."""
    parser = add_command(subparsers, "keys", "rotate, rewrap, trim and destroy keys", _EPILOG)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    status = _command(commands, "status", "say which versions there are, and what is under them")
    status.epilog = _STATUS
    status.add_argument("--tenant", metavar="NAME", help="this one alone")
    status.add_argument("--life-days", type=float, default=90.0, help="of a tenant's key [90]")
    status.set_defaults(work=_status)

    rotate = _command(commands, "rotate", "begin a new version of a key")
    rotate.epilog = _ROTATE
    _tenants(rotate)
    rotate.add_argument("--pseudonyms", action="store_true", help="the pseudonym key, not the KEK")
    rotate.add_argument("--checkpoint", action="store_true", help="the audit log's signing key")
    rotate.add_argument("--secret", choices=SECRETS, help="a secret that services share")
    rotate.set_defaults(work=_rotate)

    rewrap = _command(commands, "rewrap", "bring data keys under the newest version")
    rewrap.epilog = _REWRAP
    _tenants(rewrap)
    rewrap.set_defaults(work=_rewrap)

    trim = _command(commands, "trim", "forget older versions for ever")
    trim.epilog = _TRIM
    trim.add_argument("--tenant", metavar="NAME", required=True)
    _keyholder(trim)
    trim.set_defaults(work=_trim)
    _add_ends(commands)


def _add_ends(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    destroy = _command(commands, "destroy", "end a tenant, step by step")
    destroy.epilog = _DESTROY
    destroy.add_argument("--tenant", metavar="NAME", required=True)
    destroy.add_argument("--grace-days", type=float, default=30.0, metavar="N", help="[30]")
    destroy.add_argument(
        "--snapshot-days",
        type=float,
        default=30.0,
        metavar="N",
        help="how long snapshots of OpenBao are kept: what is gone is irrecoverable then [30]",
    )
    destroy.add_argument("--pseudonyms", action="store_true", help="pseudonym keys alone")
    destroy.add_argument("--before", metavar="DATE", help="pseudonym keys made before this day")
    _keyholder(destroy)
    destroy.set_defaults(work=_destroy)

    restore = _command(commands, "restore", "undo the first step of destroy, within the grace")
    restore.epilog = _RESTORE
    restore.add_argument("--tenant", metavar="NAME", required=True)
    _keyholder(restore)
    restore.set_defaults(work=_restore)


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, line: str
) -> argparse.ArgumentParser:
    parser = add_command(commands, name, line, "")
    parser.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("SEALGATE_DATA", DATA),
        metavar="DIR",
        help=f"folder of the appliance or mesh [$SEALGATE_DATA, {DATA}]",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)
    return parser


def _tenants(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--tenant", metavar="NAME", help="this one")
    which.add_argument("--all", action="store_true", help="every tenant there is")


def _keyholder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--keyholder",
        type=Path,
        metavar="FILE",
        help="login of the keyholder [openbao/keyholder.json in the data folder]",
    )


def _run(args: argparse.Namespace) -> int:
    """Do it; tell what goes wrong on standard error, or as JSON."""
    if not structlog.is_configured():  # logs by default go where the answer goes
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        told = asyncio.run(_worked(args))
    except NotNowError as refused:
        return _say(args, REFUSED, {"error": "not_now", "why": str(refused)}, str(refused))
    except Refusal as refusal:
        away = refusal.reason in {Reason.KEYS_DOWN, Reason.AUDIT_DOWN}
        sentence = f"{refusal.reason.value} ({refusal.reason.name})"
        told = {"error": "refused", "reason": refusal.reason.name}
        return _say(args, UNAVAILABLE if away else REFUSED, told, sentence)
    except OSError as failure:
        sentence = f"cannot read {failure.filename}: {failure.strerror}; does it run, and as you?"
        return _say(args, BAD_USAGE, {"error": "unreadable"}, sentence)
    except ValueError as wrong:
        return _say(args, BAD_USAGE, {"error": "usage"}, str(wrong))
    if args.json:
        print(json.dumps(told))
    return DONE


async def _worked(args: argparse.Namespace) -> dict[str, Any]:
    async with operating(args.data) as care:
        work: Callable[[argparse.Namespace, KeyCare], Awaitable[dict[str, Any]]] = args.work
        return await work(args, care)


def _say(args: argparse.Namespace, code: int, told: dict[str, Any], sentence: str) -> int:
    if args.json:
        print(json.dumps(told))
    else:
        print(f"sealgate: {sentence}", file=sys.stderr)
    return code


def _tell(args: argparse.Namespace, line: str) -> None:
    if not args.json:
        print(line)


async def _meant(args: argparse.Namespace, care: KeyCare) -> list[str]:
    if args.tenant:
        return [args.tenant]
    if getattr(args, "all", True):
        states = [await care.state(tenant) for tenant in await care.tenants()]
        return [one.tenant for one in states if one.key and not one.key.soft_deleted]
    msg = "say which: --tenant NAME or --all"
    raise ValueError(msg)


# --- the commands ---------------------------------------------------------------------------


async def _status(args: argparse.Namespace, care: KeyCare) -> dict[str, Any]:
    tenants = [args.tenant] if args.tenant else await care.tenants()
    states = [await care.state(tenant) for tenant in tenants]
    held: dict[str, dict[str, int]] | None = None
    with suppress(Refusal, OSError):
        held = await care.held()
    for state in states:
        _tell(args, _line(state, args.life_days))
    signing = await care.checkpoint_keys()
    made = datetime.fromtimestamp(signing[max(signing)].made_s, UTC).date().isoformat()
    _tell(args, f"checkpoints are signed by v{max(signing)} of {made}")
    if held is None:
        _tell(args, "held in memory: audit does not answer")
    else:
        sums = {purpose: sum(counts.values()) for purpose, counts in held.items()}
        _tell(args, f"held in memory: {_counts(sums)}")
    return {
        "tenants": [_facts(state, args.life_days) for state in states],
        "checkpoint": {str(version): int(key.made_s) for version, key in signing.items()},
        "held": held,
    }


def _line(state: TenantState, life_days: float) -> str:
    if state.key is None:
        stage = "no key" if state.stage is None else state.stage.stage.value
        return f"{state.tenant}  {stage}"
    due = state.due_days(life_days)
    made = datetime.fromtimestamp(state.key.made_s, UTC).date().isoformat()
    under = "; ".join(
        f"{purpose} keys: " + _counts({f"v{v}": n for v, n in sorted(counts.items())})
        for purpose, counts in state.wrapped.items()
    )
    ending = "  BEING DESTROYED" if state.key.soft_deleted else ""
    return (
        f"{state.tenant}  v{state.key.latest} of {made}, rotation due in {due:.0f} days"
        f"  versions kept: {len(state.key.versions)}  {under}{ending}"
    )


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"


def _facts(state: TenantState, life_days: float) -> dict[str, Any]:
    key, stage = state.key, state.stage
    return {
        "tenant": state.tenant,
        "latest": None if key is None else key.latest,
        "versions": None if key is None else {str(v): made for v, made in key.versions.items()},
        "min_decryption": None if key is None else key.min_decryption,
        "soft_deleted": None if key is None else key.soft_deleted,
        "rotation_due_days": state.due_days(life_days),
        "wrapped": {p: {str(v): n for v, n in c.items()} for p, c in state.wrapped.items()},
        "under_older": state.under_older(),
        "offboarding": None if stage is None else _stage(stage),
    }


async def _rotate(args: argparse.Namespace, care: KeyCare) -> dict[str, Any]:
    if args.secret:
        async with operating_secrets(args.data) as rotate:
            version = await care.rotate_secret(args.secret, rotate)
        _tell(args, f"{args.secret} is at version {version}")
        return {"secret": args.secret, "version": version}
    if args.checkpoint:
        version = await care.rotate_checkpoint()
        _tell(args, f"checkpoints: v{version} signs as soon as audit has looked; see audit/vkey")
        return {"checkpoint": version}
    done: dict[str, Any] = {}
    for tenant in await _meant(args, care):
        if args.pseudonyms:
            done[tenant] = await care.rotate_pseudonyms(tenant)
            _tell(args, f"{tenant}: pseudonyms are under key {done[tenant]} from now on")
        else:
            done[tenant] = await care.rotate(tenant)
            _tell(args, f"{tenant}: new data keys are wrapped by v{done[tenant]}")
    return {"rotated": done}


async def _rewrap(args: argparse.Namespace, care: KeyCare) -> dict[str, Any]:
    done = {}
    for tenant in await _meant(args, care):
        told = await care.rewrap(tenant)
        done[tenant] = {"done": told.done, "left": told.left}
        left = f", {told.left} could not be opened and stay" if told.left else ""
        _tell(args, f"{tenant}: {told.done} data keys rewrapped{left}")
    return {"rewrapped": done}


async def _trim(args: argparse.Namespace, care: KeyCare) -> dict[str, Any]:
    async with keyholder(args.data, args.keyholder) as holder:
        version = await care.trim(args.tenant, holder)
    _tell(args, f"{args.tenant}: all versions before v{version} are gone")
    return {"tenant": args.tenant, "version": version}


async def _destroy(args: argparse.Namespace, care: KeyCare) -> dict[str, Any]:
    if args.pseudonyms:
        count = await care.erase_pseudonyms(args.tenant, _day(args.before))
        _tell(args, f"{args.tenant}: {count} pseudonym keys are gone")
        return {"tenant": args.tenant, "pseudonym_keys": count}
    async with keyholder(args.data, args.keyholder) as holder:
        stage = await care.destroy(
            args.tenant,
            holder,
            grace_days=args.grace_days,
            snapshot_days=args.snapshot_days,
        )
    told = _stage(stage)
    next_one = f"; next step from {told['next']} on" if stage.stage.value != "done" else ""
    _tell(args, f"{args.tenant}: {stage.stage.value}{next_one}")
    return {"tenant": args.tenant, **told}


async def _restore(args: argparse.Namespace, care: KeyCare) -> dict[str, Any]:
    async with keyholder(args.data, args.keyholder) as holder:
        await care.restore(args.tenant, holder)
    _tell(args, f"{args.tenant}: restored")
    return {"tenant": args.tenant, "restored": True}


def _stage(stage: Offboarding) -> dict[str, Any]:
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(stage.next_s))
    return {"stage": stage.stage.value, "next": when}


def _day(date: str | None) -> int | None:
    """Return days since 1970. Raises ValueError."""
    if date is None:
        return None
    return int(datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp() // _DAY_S)
