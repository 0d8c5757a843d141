"""`sealgate compliance scan | evaluate | explain`: the personal-data filter, offline."""

# ruff: noqa: PLC0415 -- a service loads only when a command needs it

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sealgate.cli import _evaluate, _explain, policy
from sealgate.cli._command import add_command
from sealgate.cli._texts import InputError, Progress, records, written_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from compliance.findings import Finding
    from compliance.scanner import Scanner
    from compliance.settings import ComplianceSettings
    from sealgate.cli._texts import Line

    Command = Callable[[argparse.Namespace, ComplianceSettings], Coroutine[Any, Any, int]]

__all__ = ["add_parser"]

EXIT_BAD_INPUT = 2
EXIT_UNAVAILABLE = 3
AHEAD_TEXTS = 4
"""Texts a thread may have begun beyond the one whose line is written next."""
AHEAD_CHARS = 4_000_000
"""Characters of all of them; one text may be longer."""
THREADS_MAX = 64

_SCAN_EXAMPLES = """examples:
  sealgate compliance scan --input texts.jsonl --output masked.jsonl
  sealgate compliance scan --input texts.jsonl --output masked.jsonl --policy ward.yaml --no-names

A line of input is {"id", "text"}; a line of output is {"id", "findings", "text"}, a finding is
{"type", "subtype", "start", "end", "score", "recognizer"}, offsets count code points of the input.
The output appears whole or not at all, in the order of the input. Memory does not grow with it.

exit codes: 0 done, 2 usage, or a file or line that cannot be used, 3 a recognizer failed."""
_EXAMPLES = """examples:
  sealgate compliance scan --input texts.jsonl --output masked.jsonl
  sealgate compliance explain "call me at 212-555-0143"
  sealgate compliance evaluate --gold labelled/ --json
  sealgate compliance evaluate --gold labelled/ --baseline presidio --report figures.html

exit codes: 0 done, 1 below the baseline (evaluate --must-beat), 2 usage, or a file that cannot be
used, 3 a recognizer failed."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `compliance` with its commands; each sets `run(args) -> exit code`."""
    parser = subparsers.add_parser(
        "compliance",
        help="find and mask personal data, offline",
        description="Find and mask personal data and secrets in files, without a server.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    scan = add_command(
        commands, "scan", 'read lines {"id","text"}, write findings and text', _SCAN_EXAMPLES
    )
    scan.add_argument("--input", type=Path, required=True, metavar="IN.jsonl")
    scan.add_argument("--output", type=Path, required=True, metavar="OUT.jsonl")
    scan.add_argument(
        "--threads",
        type=_threads,
        default=min(4, os.cpu_count() or 1),
        metavar="N",
        help="of the name models [one a core, 4 at most]",
    )
    scan.set_defaults(run=lambda args: _run(args, _scan))
    evaluate = add_command(
        commands, "evaluate", "precision, recall, F1 and F2 by type", _evaluate.EXAMPLES
    )
    _evaluate.add_arguments(evaluate)
    evaluate.set_defaults(run=lambda args: _run(args, _evaluate.evaluate))
    explain = add_command(
        commands, "explain", "why something was found, or dropped", _explain.EXAMPLES
    )
    _explain.add_arguments(explain)
    explain.set_defaults(run=lambda args: _run(args, _explain.explain))
    for command in (scan, evaluate, explain):
        _add_common(command)
    policy.add_policy(commands)


def _add_common(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--policy", type=Path, metavar="FILE", help="policy file; default: the built-in one"
    )
    command.add_argument("--no-names", action="store_true", help="patterns only, much faster")
    command.add_argument(
        "--models",
        type=Path,
        default=Path("var/models"),
        metavar="DIR",
        help="folder of the name models [var/models]",
    )


def _threads(text: str) -> int:
    if text.isdecimal() and 1 <= int(text) <= THREADS_MAX:
        return int(text)
    msg = f"a number from 1 to {THREADS_MAX}"
    raise argparse.ArgumentTypeError(msg)


def _run(args: argparse.Namespace, command: Command) -> int:
    """Run a command; turn what may go wrong into a line on stderr and an exit code."""
    from compliance.names import WeightsError
    from compliance.policy import PolicyError
    from compliance.settings import ComplianceSettings
    from meshkit.contract import Refusal

    settings = ComplianceSettings(
        policy_file=args.policy,
        names=not args.no_names,
        models_dir=args.models,
        name_workers=getattr(args, "threads", 1),
    )
    try:
        return asyncio.run(command(args, settings))
    except (InputError, PolicyError, WeightsError) as error:
        print(f"sealgate: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except OSError as error:
        print(f"sealgate: {error.strerror}: {error.filename}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except Refusal as refusal:
        print(f"sealgate: {refusal.reason.value}", file=sys.stderr)
        return EXIT_UNAVAILABLE


async def _scan(args: argparse.Namespace, settings: ComplianceSettings) -> int:
    from compliance.service import open_scanner
    from compliance.transform import masked
    from meshkit.contract import Direction

    lines = records([args.input], text_chars_max=settings.text_chars_max)
    size = args.input.stat().st_size
    with Progress(size) as progress, written_whole(args.output) as out:
        async with open_scanner(settings) as scanner:

            def write(line: Line, found: list[Finding]) -> None:
                text = masked(line.record["text"], found, scanner.policy, Direction.PROMPT)
                told = {"id": line.record["id"], "findings": _rows(found), "text": text}
                out.write(json.dumps(told, ensure_ascii=False) + "\n")
                progress.add(line)

            await _each_in_order(scanner, lines, write, threads=args.threads)
    return 0


def _rows(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    return [
        {
            "type": f.type,
            "subtype": f.subtype,
            "start": f.start,
            "end": f.end,
            "score": round(f.score, 4),
            "recognizer": f.recognizer,
        }
        for f in findings
    ]


async def _each_in_order(
    scanner: Scanner,
    lines: Iterable[Line],
    write: Callable[[Line, list[Finding]], None],
    *,
    threads: int,
) -> None:
    """Scan texts, several at a time, so that models work while patterns do; write in order."""
    begun: deque[tuple[Line, asyncio.Task[list[Finding]]]] = deque()
    ahead = 0
    try:
        for line in lines:
            begun.append((line, asyncio.create_task(_found(scanner, line.record["text"]))))
            ahead += len(line.record["text"])
            while len(begun) > AHEAD_TEXTS * threads or (begun and ahead > AHEAD_CHARS):
                first = begun[0][0]
                write(first, await begun[0][1])
                begun.popleft()
                ahead -= len(first.record["text"])
        for line, task in begun:
            write(line, await task)
    finally:
        for _, task in begun:
            task.cancel()
        await asyncio.gather(*(task for _, task in begun), return_exceptions=True)


async def _found(scanner: Scanner, text: str) -> list[Finding]:
    from compliance.scanner import findings_of
    from meshkit.contract import Direction

    windows = scanner.windows(text)
    return findings_of(windows, await scanner.scan(windows, Direction.PROMPT))
