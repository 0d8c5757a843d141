"""`sealgate models versions|load|unload|canary|promote|rollback|shadow`: releases of models."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sealgate.cli import DONE, REFUSED, UNAVAILABLE
from sealgate.cli._command import add_command, number
from sealgate.cli._connection import add_options, told

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Coroutine

    from meshkit.contract import Release, ReleasedVersion
    from sealgate.models_client import AsyncModels

    Work = Callable[[AsyncModels, argparse.Namespace], Coroutine[Any, Any, int]]

__all__ = ["add_parser"]

_WAIT_S = 600.0
_PERCENT = 100
_HOURS_MIN, _HOURS_MAX = 1 / 3_600, 8_760.0
"""A second; a year, which is what the service takes at most."""
_BAD = frozenset({"failed", "refused"})

_VERSIONS = """examples:
  sealgate models versions --tls var/appliance/tls-models
  sealgate models versions smollm2-135m-instruct --json"""
_LOAD = """examples:
  sealgate models load acme-chat 2 --tls var/appliance/tls-models
  sealgate models load acme-chat 2 --no-wait

Waits until the version is warm, and tells how it goes. It gets no traffic yet."""
_UNLOAD = """examples:
  sealgate models unload acme-chat 1 --tls var/appliance/tls-models

Calls that are in it end first. A live version, or one on trial, is not unloaded."""
_CANARY = """examples:
  sealgate models canary acme-chat 2 --tls var/appliance/tls-models       # as the settings say
  sealgate models canary acme-chat 2 --percent 5 --hours 24
  sealgate models canary acme-chat 2 --replicas 2

Again: on more or less of the traffic. Undo: sealgate models rollback acme-chat"""
_PROMOTE = """examples:
  sealgate models promote acme-chat 2 --tls var/appliance/tls-models

Undo: sealgate models rollback acme-chat"""
_ROLLBACK = """examples:
  sealgate models rollback acme-chat --tls var/appliance/tls-models

Ends the trial; without one puts the version back that was live before. Where none was, nobody
answers under that name any more, unless it is the service's own (INFERENCE_MODEL).
Undo: `canary` or `promote` of the version that was taken back."""
_SHADOW = """examples:
  sealgate models shadow acme-chat 2 --percent 10 --tls var/appliance/tls-models
  sealgate models shadow acme-chat 2 --percent 0                          # no more
  sealgate models versions acme-chat                                      # what came of it

Repeats some calls on a version whose answers nobody gets, and compares them."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommands to `models`."""
    versions = add_command(commands, "versions", "tell which versions there are", _VERSIONS)
    versions.add_argument("model", nargs="?", default="", metavar="MODEL", help="[all]")
    _add(versions, _told_versions)
    load = _on_version(commands, "load", "load a version and warm it up", _LOAD)
    load.add_argument("--no-wait", action="store_true", help="return at once")
    load.add_argument("--wait", type=float, default=_WAIT_S, metavar="SECONDS", help="[600]")
    _add(load, _load)
    _add(_on_version(commands, "unload", "unload a version that has no traffic", _UNLOAD), _unload)
    canary = _on_version(commands, "canary", "try a version on some of the traffic", _CANARY)
    share = canary.add_mutually_exclusive_group()
    share.add_argument("--percent", type=number, default=0, help="of conversations, 1 to 99")
    share.add_argument("--replicas", type=number, default=0, help="all of so many replicas")
    canary.add_argument("--hours", type=hours, default=0.0, help="then you are told [48]")
    _add(canary, _canary)
    _add(_on_version(commands, "promote", "make a version the live one", _PROMOTE), _promote)
    back = add_command(commands, "rollback", "end a trial, or go back to what was live", _ROLLBACK)
    back.add_argument("model", metavar="MODEL")
    _add(back, _rollback)
    shadow = _on_version(commands, "shadow", "compare a version's answers, unseen", _SHADOW)
    shadow.add_argument("--percent", type=number, default=10, help="of calls, 0 to 100 [10]")
    _add(shadow, _shadow)


def hours(text: str) -> float:
    """Read how long a trial is. As `number`."""
    found = float(text)
    if found and not _HOURS_MIN <= found <= _HOURS_MAX:  # nor NaN
        raise ValueError
    return found


def _on_version(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, line: str, epilog: str
) -> argparse.ArgumentParser:
    parser = add_command(commands, name, line, epilog)
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("version", metavar="VERSION")
    return parser


def _add(parser: argparse.ArgumentParser, work: Work) -> None:
    add_options(parser)
    parser.set_defaults(run=lambda args: told(args, lambda: asyncio.run(_connected(args, work))))


async def _connected(args: argparse.Namespace, work: Work) -> int:
    # Here: the other commands under `models` need no gRPC.
    from sealgate.models_client import AsyncModels  # noqa: PLC0415 -- see above

    token = args.token_file.read_text(encoding="ascii").strip() if args.token_file else ""
    async with AsyncModels(
        args.target,
        tls=args.tls,
        token=token,
        timeout_s=args.timeout,
        server_name=args.server_name,
    ) as models:
        return await work(models, args)


async def _told_versions(models: AsyncModels, args: argparse.Namespace) -> int:
    found = [await models.release(args.model)] if args.model else await models.versions()
    if args.json:
        print(json.dumps({"releases": [_json(release) for release in found]}))
    else:
        print("\n\n".join(_text(release) for release in found))
    return DONE


async def _load(models: AsyncModels, args: argparse.Namespace) -> int:
    progress = _Progress(shown=not args.json and sys.stderr.isatty())
    wait_s = 0.0 if args.no_wait else args.wait
    release = await models.load(args.model, args.version, wait_s=wait_s, watch=progress.watch)
    progress.done()
    _say(args, release)
    found = release.find(args.version)
    if found is not None and found.state in _BAD:
        return REFUSED
    unfinished = found is not None and found.loading and not args.no_wait
    return UNAVAILABLE if unfinished else DONE


async def _unload(models: AsyncModels, args: argparse.Namespace) -> int:
    return _say(args, await models.unload(args.model, args.version))


async def _canary(models: AsyncModels, args: argparse.Namespace) -> int:
    release = await models.canary(
        args.model,
        args.version,
        percent=args.percent,
        replicas=args.replicas,
        seconds=round(args.hours * 3_600),
    )
    return _say(args, release)


async def _promote(models: AsyncModels, args: argparse.Namespace) -> int:
    return _say(args, await models.promote(args.model, args.version))


async def _rollback(models: AsyncModels, args: argparse.Namespace) -> int:
    return _say(args, await models.rollback(args.model))


async def _shadow(models: AsyncModels, args: argparse.Namespace) -> int:
    return _say(args, await models.shadow(args.model, args.version, args.percent))


class _Progress:
    """One line on a terminal that tells what is being done."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._looks = 0

    def watch(self, found: ReleasedVersion) -> None:
        if self._shown:
            self._looks += 1
            doing = "warming up" if found.state == "loaded" else "loading"
            dots = "." * (self._looks % 4)
            print(f"\r{found.version}: {doing}{dots:<4}", end="", file=sys.stderr, flush=True)

    def done(self) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _say(args: argparse.Namespace, release: Release) -> int:
    print(json.dumps(_json(release)) if args.json else _text(release))
    return DONE


def _text(release: Release) -> str:
    lines = [release.model]
    for each in release.versions:
        why = f" ({each.why})" if each.why else ""
        state = f"{each.state}{why}{', loading' if each.loading else ''}"
        share = f"{each.share / _PERCENT:g} %" if each.share else "-"
        seen = (
            f"{each.calls} calls, {each.error_rate:.1%} failed, p99 {each.p99_s:.2f} s"
            if each.calls
            else ""
        )
        told = f"  {each.version:<12} {state:<24} {share:>6}  {each.digest.hex()[:12]:<12}  {seen}"
        lines.append(told.rstrip())
    if release.trial is not None:
        ends = datetime.fromtimestamp(release.trial.ends_s, UTC).strftime("%F %T UTC")
        lines.append(f"  trial of {release.trial.version} until {ends}")
    if release.shadow is not None:
        lines.append(_shadow_text(release))
    if release.history:
        lines.append(f"  before it: {', '.join(release.history)}")
    return "\n".join(lines)


def _shadow_text(release: Release) -> str:
    shadow = release.shadow
    assert shadow is not None
    if not shadow.calls:
        return f"  shadow {shadow.version} of {shadow.share / _PERCENT:g} %: nothing compared yet"
    refusals = f"{shadow.refusals_live:.0%} -> {shadow.refusals_candidate:.0%}"
    return (
        f"  shadow {shadow.version} of {shadow.share / _PERCENT:g} %: {shadow.calls} compared, "
        f"agreement {shadow.agreement:.2f}, length x{shadow.length_ratio:.2f}, "
        f"time x{shadow.slower:.2f}, refusals {refusals}"
    )


def _json(release: Release) -> dict[str, object]:
    trial, shadow = release.trial, release.shadow
    return {
        "model": release.model,
        "versions": [
            {
                "version": each.version,
                "digest": each.digest.hex(),
                "state": each.state,
                "why": each.why,
                "share_percent": each.share / _PERCENT,
                "in_flight": each.in_flight,
                "calls": each.calls,
                "error_rate": each.error_rate,
                "p99_s": each.p99_s,
                "tokens": each.tokens,
                "loading": each.loading,
            }
            for each in release.versions
        ],
        "history": list(release.history),
        "trial": trial
        and {
            "version": trial.version,
            "percent": trial.share / _PERCENT,
            "replicas": trial.replicas,
            "ends_s": trial.ends_s,
        },
        "shadow": shadow
        and {
            "version": shadow.version,
            "percent": shadow.share / _PERCENT,
            "calls": shadow.calls,
            "agreement": shadow.agreement,
            "length_ratio": shadow.length_ratio,
            "slower": shadow.slower,
            "refusals_live": shadow.refusals_live,
            "refusals_candidate": shadow.refusals_candidate,
        },
    }
