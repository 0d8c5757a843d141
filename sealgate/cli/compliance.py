"""`sealgate compliance scan | evaluate`: the personal-data filter, offline."""

# ruff: noqa: PLC0415 -- a service loads only when a command needs it

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Self

from sealgate.cli._command import add_command

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from compliance.findings import Finding
    from compliance.policy import Policy
    from compliance.settings import ComplianceSettings

__all__ = ["add_parser"]

EXIT_BAD_INPUT = 2
EXIT_UNAVAILABLE = 3
PROGRESS_S = 0.5

_SCAN_EXAMPLES = """examples:
  sealgate compliance scan --input texts.jsonl --output masked.jsonl
  sealgate compliance scan --input texts.jsonl --output masked.jsonl --policy ward.yaml --no-names

The output appears whole or not at all."""
_EVALUATE_EXAMPLES = """examples:
  sealgate compliance evaluate --gold labelled/
  sealgate compliance evaluate --gold labelled/names.jsonl --policy ward.yaml --json"""
_EXAMPLES = """examples:
  sealgate compliance scan --input texts.jsonl --output masked.jsonl
  sealgate compliance evaluate --gold labelled/ --json

exit codes: 0 done, 2 usage, or a file that cannot be used, 3 a recognizer failed."""


class _InputError(Exception):
    """Something the caller named cannot be used; the text says what, and quotes none of it."""


class _Scanned(NamedTuple):
    """One record of the input and what was found in its text."""

    record: dict[str, Any]
    findings: list[Finding]
    policy: Policy


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
    scan.set_defaults(run=_scan)
    evaluate = add_command(
        commands, "evaluate", "precision, recall, F1 and F2 by type", _EVALUATE_EXAMPLES
    )
    evaluate.add_argument(
        "--gold", type=Path, required=True, help="a labelled JSONL file, or a folder of them"
    )
    evaluate.add_argument("--json", action="store_true", help="print JSON")
    evaluate.set_defaults(run=_evaluate)
    for command in (scan, evaluate):
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


def _scan(args: argparse.Namespace) -> int:
    return _guarded(_scan_file(args))


def _evaluate(args: argparse.Namespace) -> int:
    return _guarded(_evaluate_files(args))


def _guarded(work: Any) -> int:  # noqa: ANN401 -- a coroutine of either command
    """Run a command; turn what may go wrong into a line on stderr and an exit code."""
    from compliance.names import WeightsError
    from compliance.policy import PolicyError
    from meshkit.contract import Refusal

    try:
        asyncio.run(work)
    except (_InputError, PolicyError, WeightsError) as error:
        print(f"sealgate: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except OSError as error:
        print(f"sealgate: {error.strerror}: {error.filename}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except Refusal as refusal:
        print(f"sealgate: {refusal.reason.value}", file=sys.stderr)
        return EXIT_UNAVAILABLE
    return 0


async def _scan_file(args: argparse.Namespace) -> None:
    from compliance.transform import masked
    from meshkit.contract import Direction

    with _written_whole(args.output) as out:
        async for record, findings, policy in _scanned(args, [args.input]):
            text = masked(record["text"], findings, policy, Direction.PROMPT)
            rows = [
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
            line = {"id": record["id"], "findings": rows, "text": text}
            out.write(json.dumps(line, ensure_ascii=False) + "\n")


async def _evaluate_files(args: argparse.Namespace) -> None:
    from compliance.evaluate import Evaluation

    files = sorted(args.gold.glob("*.jsonl")) if args.gold.is_dir() else [args.gold]
    if not files:
        msg = "no .jsonl files there"
        raise _InputError(msg)
    evaluation = Evaluation()
    async for record, findings, _ in _scanned(args, files):
        try:
            evaluation.add(record, findings)
        except (KeyError, TypeError):
            msg = "a record has no usable spans"
            raise _InputError(msg) from None
    rows = {"ALL": evaluation.total} | dict(sorted(evaluation.types.items()))
    if args.json:
        print(json.dumps({name: row.summary() for name, row in rows.items()}, indent=1))
        return
    print(f"{'type':<16}{'gold':>6}{'found':>7}{'P':>8}{'R':>8}{'F1':>8}{'F2':>8}{'leak':>8}")
    for name, row in rows.items():
        figures = (row.precision, row.recall, row.f(1), row.f(2), row.leak)
        print(f"{name:<16}{row.gold:>6}{row.found:>7}" + "".join(f"{x:>8.3f}" for x in figures))


async def _scanned(args: argparse.Namespace, files: list[Path]) -> AsyncIterator[_Scanned]:
    """Scan every record of the files, with progress on stderr."""
    from compliance.scanner import findings_of
    from compliance.service import open_scanner
    from meshkit.contract import Direction

    with _Progress() as progress:
        async with open_scanner(_settings(args)) as scanner:
            for record in _records(files):
                windows = scanner.windows(record["text"])
                found = await scanner.scan(windows, Direction.PROMPT)
                progress.add(len(record["text"]))
                yield _Scanned(record, findings_of(windows, found), scanner.policy)


def _settings(args: argparse.Namespace) -> ComplianceSettings:
    from compliance.settings import ComplianceSettings

    return ComplianceSettings(
        policy_file=args.policy, names=not args.no_names, models_dir=args.models
    )


def _records(files: list[Path]) -> Iterator[dict[str, Any]]:
    """Read JSONL; a bad line is named by its number, never quoted."""
    for path in files:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    record = json.loads(line)
                    usable = isinstance(record["text"], str) and "id" in record
                    record["text"].encode()
                except (ValueError, TypeError, KeyError, AttributeError):
                    usable = False
                if not usable:
                    msg = f'{path.name}, line {number}: not {{"id", "text"}} in valid Unicode'
                    raise _InputError(msg)
                yield record


@contextmanager
def _written_whole(path: Path) -> Iterator[IO[str]]:
    """Open a file that appears under its name only when all of it is written."""
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        partial = Path(file.name)
        try:
            yield file
            file.flush()
            os.replace(partial, path)  # noqa: PTH105 -- atomic on POSIX, and says so
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


class _Progress:
    """Tells on stderr how far it got: in place on a terminal, at the end otherwise."""

    def __init__(self) -> None:
        self._texts = 0
        self._characters = 0
        self._started = self._told = time.monotonic()
        self._live = sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tell("\n")

    def add(self, characters: int) -> None:
        """Count a text."""
        self._texts += 1
        self._characters += characters
        if self._live and time.monotonic() - self._told >= PROGRESS_S:
            self._told = time.monotonic()
            self._tell("")

    def _tell(self, end: str) -> None:
        seconds = max(time.monotonic() - self._started, 1e-9)
        rate = self._characters / seconds / 1000
        start = "\r" if self._live else ""
        told = f"{start}{self._texts:,} texts, {self._characters:,} characters, {rate:,.0f} k/s"
        print(told, end=end, file=sys.stderr, flush=True)
