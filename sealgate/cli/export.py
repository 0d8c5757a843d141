"""`sealgate audit export`: bring the log's entries to a SIEM, resumably and at least once."""

from __future__ import annotations

import json
import signal
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from sealgate.cli import BAD_USAGE, DONE, REFUSED, UNAVAILABLE
from sealgate.cli._command import add_command
from sealgate.cli._vkey import add_trust, trust_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from audit.export.exporter import Exporter
    from audit.export.sinks import Sink
    from audit.export.state import ExportState
    from meshkit.tlog import LogKeys, Policy

__all__ = ["add_parser"]

_EPILOG = """examples:
  sealgate audit export --format ecs --to events.ndjson --state export.state \\
      --log var/appliance/audit/log --vkey var/appliance/audit/vkey
  sealgate audit export --format cef --to - --follow --state export.state \\
      --log https://logs.example/mesh --policy policy
  sealgate audit export --format ocsf --to otlp://localhost:4317 --follow --state export.state \\
      --log var/appliance/audit/log --vkey var/appliance/audit/vkey

Every entry is verified against the signed checkpoint before it goes out. Go on by the same command:
the state file says where. A file may be rotated at any time (rename, or SIGHUP).

exit codes: 0 done, 1 the log is not what it was (nothing of that went out), 2 usage, 3 the receiver
or the log cannot be reached, 130 interrupted."""

FORMATS = ("ocsf", "ecs", "cef")
_SENTENCES = {
    "signature": "the checkpoint is not signed by a log of --vkey or --policy, or not cosigned",
    "shrunk": "the log holds less than was seen before: it was put back to an older state",
    "fork": "the log is not the one that was exported before: it was rewritten, or is another one",
    "entry": "an entry is not the one that the checkpoint speaks for",
    "missing": "a file of the log is missing",
}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `export` to the subcommands of `audit`."""
    parser = add_command(commands, "export", "bring the entries to a SIEM", _EPILOG)
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument(
        "--to", required=True, metavar="FILE|-|otlp://HOST:PORT", help="otlps:// for TLS"
    )
    parser.add_argument("--log", required=True, metavar="DIR|URL", help="checkpoint and tile/")
    add_trust(parser)
    parser.add_argument(
        "--state", type=Path, required=True, metavar="FILE", help="where to go on; made if missing"
    )
    parser.add_argument("--follow", action="store_true", help="go on with what comes")
    parser.add_argument(
        "--poll", type=float, default=1.0, metavar="SECONDS", help="for new entries [1]"
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="how long what fails is tried; without end with --follow [60]",
    )
    options = parser.add_argument_group("otlps")
    options.add_argument("--otlp-ca", type=Path, metavar="FILE", help="of the collector")
    options.add_argument("--otlp-cert", type=Path, metavar="FILE", help="our certificate chain")
    options.add_argument("--otlp-key", type=Path, metavar="FILE")
    parser.add_argument("--json", action="store_true", help="print the end as JSON, on stderr")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from audit.export.exporter import GaveUp  # noqa: PLC0415 -- audit's needs, where they are met
    from audit.export.otlp import SinkRefused  # noqa: PLC0415 -- as above
    from audit.export.reading import LogRefused  # noqa: PLC0415 -- as above
    from audit.export.state import StateBusy, StateInvalid  # noqa: PLC0415 -- as above
    from meshkit.tlog import NoteInvalid  # noqa: PLC0415 -- as above

    try:
        state = _exported(args)
    except LogRefused as refused:
        return _say(args, REFUSED, refused.kind, _SENTENCES[refused.kind])
    except SinkRefused as refused:
        return _say(args, REFUSED, "sink", f"the receiver takes nothing from us: {refused.kind}")
    except GaveUp as gave_up:
        return _say(args, UNAVAILABLE, "waiting", f"gave up: {gave_up.kind}")
    except (StateInvalid, NoteInvalid, _UsageError) as invalid:
        return _say(args, BAD_USAGE, "usage", str(invalid))
    except StateBusy:
        return _say(args, BAD_USAGE, "busy", "another export has this --state")
    except BrokenPipeError:
        raise  # of standard output: `main` knows
    except OSError as failure:
        return _say(args, BAD_USAGE, "file", f"{failure.filename}: {failure.strerror}")
    sentence = f"exported to entry {state.done.size} of {state.seen.size} in log {state.origin}"
    if state.rejected:
        sentence += f"; {state.rejected} rejected by the receiver in all"
    told = {"next": state.done.size, "size": state.seen.size, "rejected": state.rejected}
    return _say(args, DONE, "", sentence, **told)


class _UsageError(Exception):
    """The options do not fit together."""


def _say(args: argparse.Namespace, code: int, error: str, sentence: str, **told: int) -> int:
    """Tell the end on standard error: standard output may be where the entries go."""
    if args.json:
        print(json.dumps({"error": error} if error else told), file=sys.stderr)
    else:
        print(f"sealgate: {sentence}", file=sys.stderr)
    return code


def _exported(args: argparse.Namespace) -> ExportState:
    from audit.export.exporter import Exporter, Waits  # noqa: PLC0415 -- as in `_run`
    from audit.export.reading import LogReader  # noqa: PLC0415 -- as in `_run`
    from audit.export.state import alone  # noqa: PLC0415 -- as in `_run`

    sink = _sink_of(args)
    trust = _trust(args)
    over = threading.Event()
    with ExitStack() as owned:
        owned.enter_context(alone(args.state))
        exporter = Exporter(
            LogReader(_read_of(args.log, owned), trust),
            sink,
            args.state,
            args.format,
            waits=Waits(patience_s=None if args.follow else args.patience, poll_s=args.poll),
            told=_told,
            rest=over.wait,
        )
        _heed_signals(exporter, over, owned)
        return exporter.run(follow=args.follow)


def _told(what: str, number: int) -> None:
    if what == "rejected":
        print(f"sealgate: entry {number} is rejected by the receiver", file=sys.stderr)


def _trust(args: argparse.Namespace) -> LogKeys | Policy:
    from meshkit.tlog import LogKeys  # noqa: PLC0415 -- as in `_run`

    trust = trust_of(args)
    return LogKeys.parse(trust) if isinstance(trust, str) else trust


def _heed_signals(exporter: Exporter, over: threading.Event, owned: ExitStack) -> None:
    """SIGTERM ends it behind the entries under way; SIGHUP has it open its file anew."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number, action in (
        (signal.SIGTERM, lambda *_: over.set()),
        (signal.SIGHUP, lambda *_: exporter.reopen_soon()),
    ):
        owned.callback(signal.signal, number, signal.signal(number, action))


def _read_of(place: str, owned: ExitStack) -> Callable[[str], bytes | None]:
    if not place.startswith(("https://", "http://")):
        folder = Path(place)
        folder.stat()  # a name that was mistyped speaks against no log
        return lambda path: _file(folder / path)
    import httpx2  # noqa: PLC0415 -- needed for a URL alone

    client = owned.enter_context(httpx2.Client(timeout=30.0))

    def fetch(path: str) -> bytes | None:
        try:
            reply = client.get(f"{place.rstrip('/')}/{path}")
        except httpx2.HTTPError:
            raise OSError from None
        if reply.status_code in {404, 410}:
            return None
        if not reply.is_success:
            raise OSError
        return reply.content

    return fetch


def _file(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _sink_of(args: argparse.Namespace) -> Callable[[str], Sink]:
    """Return how to make the sink, once the log's name is known.

    Raises:
        _UsageError: the options do not fit together.
        OSError: a file of the certificate cannot be read.
    """
    from audit.export.sinks import FileSink, StreamSink  # noqa: PLC0415 -- as in `_run`

    scheme, _, target = args.to.rpartition("://")
    if scheme in {"otlp", "otlps"}:
        return _otlp(args, scheme, target)
    if scheme:
        msg = "--to: a file, - or otlp://HOST:PORT"
        raise _UsageError(msg)
    if args.to == "-":
        sys.stdout.flush()
        return lambda _origin: StreamSink(sys.stdout.fileno())
    return lambda _origin: FileSink(Path(args.to))


def _otlp(args: argparse.Namespace, scheme: str, target: str) -> Callable[[str], Sink]:
    import grpc  # noqa: PLC0415 -- as in `_run`

    from audit.export.otlp import OtlpSink, is_loopback  # noqa: PLC0415 -- as in `_run`

    if scheme == "otlp" and not is_loopback(target):
        msg = "--to: in the clear to this machine alone; otlps:// elsewhere"
        raise _UsageError(msg)
    credentials = None
    if scheme == "otlps":
        ca, key, chain = (
            None if path is None else path.read_bytes()
            for path in (args.otlp_ca, args.otlp_key, args.otlp_cert)
        )
        credentials = grpc.ssl_channel_credentials(ca, key, chain)
    timeout_s = min(30.0, args.patience)

    def made(origin: str) -> Sink:
        return OtlpSink(
            target, credentials, origin=origin, format_name=args.format, timeout_s=timeout_s
        )

    return made
