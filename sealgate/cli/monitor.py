"""`sealgate audit monitor`: follow a log from outside, and say when something is wrong with it."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sealgate.cli import BAD_USAGE, DONE, REFUSED, UNAVAILABLE
from sealgate.cli._vkey import add_trust, trust_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from audit.monitor.sources import Source
    from audit.monitor.watch import Alarm, Monitor

__all__ = ["add_parser"]

_EPILOG = """examples:
  sealgate audit monitor --log var/appliance/audit/log --policy policy --state state.json --once
  sealgate audit monitor --log https://logs.example.org/mesh --policy policy --state state.json
  sealgate audit monitor --log audit:50055 --tls tls --vkey vkey --state state.json

One JSON line an alarm, on standard output. A folder or URL is read entry by entry, only what is new
each time; an audit service is asked for checkpoints and proofs alone. exit codes: 0 all is well,
1 an alarm was raised, 2 usage or an unreadable file, 3 with --once: the log is out of reach."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `monitor` to the subcommands of `audit`."""
    parser = commands.add_parser(
        "monitor",
        help="follow a log, and raise an alarm when it is forked, stalled or incomplete",
        description="Follow a log, and say when something is wrong with it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--log", required=True, metavar="DIR|URL|HOST:PORT", help="folder, static files, or service"
    )
    add_trust(parser)
    parser.add_argument(
        "--state", type=Path, required=True, metavar="FILE", help="what was seen; kept between runs"
    )
    parser.add_argument("--once", action="store_true", help="look once, as cron does")
    parser.add_argument("--every", type=float, default=10.0, metavar="SECONDS", help="[10]")
    parser.add_argument(
        "--stalled", type=float, default=3_600.0, metavar="SECONDS", help="0: never [3600]"
    )
    parser.add_argument(
        "--open-intent", type=float, default=900.0, metavar="SECONDS", help="0: never [900]"
    )
    parser.add_argument("--ca", type=Path, metavar="FILE", help="of a URL's certificate, PEM")
    parser.add_argument(
        "--tls",
        type=Path,
        default=os.environ.get("SEALGATE_TLS"),
        metavar="DIR",
        help="for a service: ca.pem, client.pem and client.key [$SEALGATE_TLS]",
    )
    parser.add_argument("--server-name", metavar="NAME", help="for a service, if not HOST")
    parser.add_argument(
        "--metrics-port", type=int, metavar="PORT", help="serve metrics on 127.0.0.1"
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from audit.monitor.state import MonitorState, StateInvalidError  # noqa: PLC0415 -- lazily
    from meshkit.files import read_or_none  # noqa: PLC0415 -- as above
    from meshkit.tlog import LogKeys, NoteInvalid, Policy  # noqa: PLC0415 -- as above

    try:
        trust = trust_of(args)
        policy = trust if isinstance(trust, Policy) else Policy.of_log(*LogKeys.parse(trust).keys)
        folder = Path(args.log)
        args.is_folder = folder.is_dir()
        if not args.is_folder and ":" not in args.log:
            folder.stat()
        held = read_or_none(args.state)
        state = MonitorState() if held is None else MonitorState.loads(held)
        return asyncio.run(_watch(args, policy, state))
    except StateInvalidError:
        return _unusable(f"{args.state} is no state of a monitor")
    except (NoteInvalid, UnicodeDecodeError):
        return _unusable("--vkey or --policy is malformed")
    except TypeError:
        return _unusable("a service is asked with --tls DIR, or SEALGATE_TLS")
    except OSError as failure:
        return _unusable(f"cannot use {failure.filename}: {failure.strerror}")


def _unusable(sentence: str) -> int:
    print(f"sealgate: {sentence}", file=sys.stderr)
    return BAD_USAGE


async def _watch(args: argparse.Namespace, policy: object, state: object) -> int:
    from audit.monitor.watch import Limits, Monitor  # noqa: PLC0415 -- lazily
    from meshkit.counters import measured  # noqa: PLC0415 -- as above

    async with AsyncExitStack() as owned:
        source = await _source(args, owned)
        limits = Limits(stalled_s=args.stalled, open_intent_s=args.open_intent)
        monitor = Monitor(source, policy, state, limits=limits)  # type: ignore[arg-type] # made in _run
        if args.metrics_port is not None:
            from meshkit.metrics import metrics_endpoint  # noqa: PLC0415 -- as above

            await owned.enter_async_context(
                metrics_endpoint("127.0.0.1", args.metrics_port, service="monitor")
            )
            owned.enter_context(measured("monitor.size", lambda: monitor.state.size))
            owned.enter_context(measured("monitor.age_s", lambda: monitor.age_s))
        if args.once:
            alarms = await _look(args, monitor, ())
            kinds = {alarm.kind for alarm in alarms}
            return DONE if not kinds else UNAVAILABLE if kinds == {"unreachable"} else REFUSED
        return await _follow(args, monitor)


async def _follow(args: argparse.Namespace, monitor: Monitor) -> int:
    """Look again and again until told to stop. What goes on being wrong is told once."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    alarms: Sequence[Alarm] = ()
    raised = False
    while not stop.is_set():
        alarms = await _look(args, monitor, alarms)
        raised = raised or bool(alarms)
        try:
            async with asyncio.timeout(args.every):
                await stop.wait()
        except TimeoutError:
            continue
    return REFUSED if raised else DONE


async def _look(args: argparse.Namespace, monitor: Monitor, before: Sequence[Alarm]) -> list[Alarm]:
    """Look once, remember, and print what was not wrong before."""
    from meshkit.files import write_private  # noqa: PLC0415 -- lazily

    monitor.refused = ""
    alarms = await monitor.look()
    write_private(args.state, monitor.state.dumps())
    for alarm in alarms:
        if alarm not in before:
            print(json.dumps(_told(alarm, monitor)), flush=True)
    if monitor.refused and monitor.state.note:
        # Both bear the log's signature: together they convict it.
        stem = f"{args.state.name}.{int(time.time())}"
        write_private(args.state.with_name(f"{stem}.believed"), monitor.state.note.encode())
        write_private(args.state.with_name(f"{stem}.refused"), monitor.refused.encode())
    return alarms


def _told(alarm: Alarm, monitor: Monitor) -> dict[str, object]:
    told: dict[str, object] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "alarm": alarm.kind,
        "breaks": alarm.breaks,
        "believed_size": monitor.state.size,
    }
    told |= {"size": alarm.size} if alarm.size >= 0 else {}
    told |= {"index": alarm.index} if alarm.index >= 0 else {}
    told |= {"call_id": alarm.call_id} if alarm.call_id else {}
    return told | ({"count": alarm.count} if alarm.count > 1 else {})


async def _source(args: argparse.Namespace, owned: AsyncExitStack) -> Source:
    from audit.monitor.sources import FolderSource, HttpSource, is_url  # noqa: PLC0415 -- lazily

    if is_url(args.log):
        from meshkit.https import https_client  # noqa: PLC0415 -- as above

        client = https_client(args.ca, timeout_s=30.0)
        return HttpSource(args.log, await owned.enter_async_context(client))
    if args.is_folder:
        return FolderSource(Path(args.log))
    from sealgate.cli._reader import ServiceSource  # noqa: PLC0415 -- it needs gRPC

    return await owned.enter_async_context(ServiceSource.of(args.log, args.tls, args.server_name))
