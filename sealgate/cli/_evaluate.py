"""`sealgate compliance evaluate`: figures on labelled text, beside a baseline's if asked."""

# ruff: noqa: PLC0415 -- a service loads only when a command needs it

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sealgate.cli._texts import InputError, Progress, jsonl_files, records, written_whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from compliance.comparison import Baseline
    from compliance.evaluate import Evaluation
    from compliance.findings import Finding
    from compliance.scanner import Scanner
    from compliance.settings import ComplianceSettings
    from sealgate.cli._texts import Line

    Answer = Callable[[], list[Finding]]
    Ask = Callable[[Line], Answer]
    """Sends a text to the baseline; what it returns waits for the answer."""

__all__ = ["EXAMPLES", "add_arguments", "evaluate"]

EXIT_BELOW, EXIT_UNAVAILABLE = 1, 3
TEXT_CHARS_MAX = 10_000_000
"""Of a gold text; it is scanned by itself and need not fit a call."""
SET_UP = Path(__file__).parents[2] / "deploy" / "presidio_baseline.py"

EXAMPLES = """examples:
  sealgate compliance evaluate --gold labelled/
  sealgate compliance evaluate --gold labelled/names.jsonl --policy ward.yaml --json
  sealgate compliance evaluate --gold labelled/ --baseline presidio --report figures.html
  sealgate compliance evaluate --gold labelled/ --baseline presidio --must-beat
  sealgate compliance evaluate --gold labelled/ --baseline their-findings.jsonl

Gold lines are {"id", "text", "spans": [{"start", "end", "type"}], "lang", "source", "scope",
"ignore", "tags"}; the tags hard_negative and adversarial have their own figures.
Presidio runs in an environment of its own, made when it is missing (450 MB). A file given as
the baseline has lines {"id", "spans": [{"start", "end", "type", "score"}]}.

exit codes: 0 done, 1 somewhere below the baseline (with --must-beat), 2 usage, or a file that
cannot be used, 3 a recognizer failed, or --must-beat without a baseline that could be measured."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `evaluate` takes of its own."""
    parser.add_argument(
        "--gold", type=Path, required=True, help="a labelled JSONL file, or a folder of them"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--baseline", metavar="presidio|FILE", help="judge Presidio, or findings in a file, too"
    )
    parser.add_argument(
        "--presidio", type=Path, default=Path("var/presidio"), metavar="DIR", help=argparse.SUPPRESS
    )
    parser.add_argument(
        "--must-beat", action="store_true", help="exit 1 if we are below the baseline anywhere"
    )
    parser.add_argument("--report", type=Path, metavar="FILE.html", help="write a page of it")
    parser.add_argument(
        "--bench", type=Path, metavar="latest.json", help="results of make bench, for the page"
    )


async def evaluate(args: argparse.Namespace, settings: ComplianceSettings) -> int:
    """Judge every record of the gold, print what it comes to; return the exit code."""
    from compliance.comparison import document, lines
    from compliance.evaluate import Evaluation
    from compliance.service import open_scanner

    if args.must_beat and not args.baseline:
        msg = "--must-beat needs --baseline"
        raise InputError(msg)
    ours = Evaluation()
    async with open_scanner(settings) as scanner:
        with ExitStack() as stack:
            baselines, asked = _baselines(args, stack)
            await _judge(args, scanner, ours, baselines, asked)
        about = {
            "policy": scanner.policy.name,
            "policy_digest": scanner.policy.digest.hex(),
            "names": not args.no_names,
        }
    told = document(ours, baselines, about)
    if args.report is not None:
        _write_report(args, told)
    print(json.dumps(told, indent=1) if args.json else "\n".join(lines(told)))
    if not args.must_beat:
        return 0
    if told["comparison"] is None:
        return EXIT_UNAVAILABLE
    return 0 if told["comparison"]["beaten"] else EXIT_BELOW


async def _judge(
    args: argparse.Namespace,
    scanner: Scanner,
    ours: Evaluation,
    baselines: list[Baseline],
    asked: Ask | None,
) -> None:
    from compliance.scanner import findings_of
    from meshkit.contract import Direction

    files = jsonl_files(args.gold)
    with Progress(sum(file.stat().st_size for file in files)) as progress:
        for line in records(files, text_chars_max=TEXT_CHARS_MAX):
            text, group = line.record["text"], line.file.stem
            answer = asked(line) if asked is not None else None
            windows = scanner.windows(text)
            found = findings_of(windows, await scanner.scan(windows, Direction.PROMPT))
            _add(ours, line, found, group)
            if answer is not None:
                theirs = answer()
                for one in baselines:
                    _add(one.evaluation, line, one.counted(theirs), group)
            progress.add(line)


def _add(evaluation: Evaluation, line: Line, found: list[Finding], group: str) -> None:
    try:
        evaluation.add(line.record, found, group=group)
    except (KeyError, TypeError, ValueError, AttributeError):
        msg = f"{line.file.name}, line {line.number}: no usable spans"
        raise InputError(msg) from None


# --- the baseline ---------------------------------------------------------------------------


def _baselines(args: argparse.Namespace, stack: ExitStack) -> tuple[list[Baseline], Ask | None]:
    """Open what was asked for; nothing, with a word on stderr, if it cannot be had."""
    from compliance.comparison import Baseline
    from compliance.evaluate import Evaluation
    from compliance.presidio import THRESHOLDS, BaselineError, open_presidio

    if not args.baseline:
        return [], None
    if args.baseline != "presidio":
        known = _predictions(Path(args.baseline))
        one = Baseline(Path(args.baseline).name, "findings of a file", 0.0, Evaluation())
        return [one], lambda line: lambda: known.get(_key(line.record["id"]), [])
    _set_up(args.presidio)
    try:
        presidio = stack.enter_context(open_presidio(args.presidio))
    except BaselineError as error:
        print(f"sealgate: {error}; the baseline is not measured", file=sys.stderr)
        return [], None

    def ask(line: Line) -> Answer:
        presidio.ask(line.record["text"])
        return presidio.answer

    name = f"Presidio {presidio.about.version}"
    return [Baseline(name, presidio.about.model, at, Evaluation()) for at in THRESHOLDS], ask


def _set_up(folder: Path) -> None:
    """Make Presidio's environment where it is missing and this is a checkout; may fail."""
    if SET_UP.exists():
        command = [sys.executable, str(SET_UP), "--into", str(folder)]
        subprocess.run(command, check=False, stdout=sys.stderr)  # noqa: S603 -- our own script


def _predictions(path: Path) -> dict[str, list[Finding]]:
    """Read lines `{"id", "spans"}`; a bad line is named by its number, never quoted."""
    from compliance.presidio import findings

    known: dict[str, list[Finding]] = {}
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                line = json.loads(raw)
                known[_key(line["id"])] = findings(line["spans"])
            except (ValueError, TypeError, KeyError, AttributeError):
                msg = f'{path.name}, line {number}: not {{"id", "spans"}}'
                raise InputError(msg) from None
    return known


def _key(of: object) -> str:
    """An id as something to look up; it may be any JSON."""
    return json.dumps(of, sort_keys=True)


# --- the page -------------------------------------------------------------------------------


def _write_report(args: argparse.Namespace, told: dict[str, Any]) -> None:
    from compliance.report import page

    bench = {}
    if args.bench is not None:
        try:
            bench = json.loads(args.bench.read_text("utf-8"))["figures"]
        except (ValueError, KeyError, TypeError):
            msg = f"{args.bench.name}: not the results of make bench"
            raise InputError(msg) from None
    with written_whole(args.report) as file:
        file.write(page(told, bench))
