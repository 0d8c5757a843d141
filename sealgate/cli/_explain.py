"""`sealgate compliance explain`: which recognizer, word, checksum and score made a finding."""

# ruff: noqa: PLC0415 -- a service loads only when a command needs it

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sealgate.cli._texts import InputError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from compliance.settings import ComplianceSettings

__all__ = ["EXAMPLES", "add_arguments", "explain"]

EXAMPLES = """examples:
  sealgate compliance explain "call me at 212-555-0143"
  sealgate compliance explain --input letter.txt --json
  sealgate compliance explain --input - --policy ward.yaml --answer < letter.txt
  sealgate compliance explain "order 4111 1111 1111 1111" --show-text

Values are not printed: offsets and types stand for them, and what the policy puts in their
place. --show-text prints them. A shell may keep TEXT in its history, --input it does not.

exit codes: 0 done, 2 usage, or a file that cannot be used, 3 a recognizer failed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `explain` takes of its own."""
    parser.add_argument("text", nargs="?", metavar="TEXT", help="the text itself")
    parser.add_argument("--input", metavar="FILE", help="a text file; - for standard input")
    parser.add_argument("--answer", action="store_true", help="as an answer, not as a prompt")
    parser.add_argument("--show-text", action="store_true", help="print the values found")
    parser.add_argument("--json", action="store_true", help="print JSON")


async def explain(args: argparse.Namespace, settings: ComplianceSettings) -> int:
    """Explain one text; return the exit code."""
    from compliance.engine import Engine
    from compliance.explain import Parts
    from compliance.explain import explain as explained
    from compliance.policy_finder import Finders
    from compliance.recognizers import ALL
    from compliance.service import open_scanner
    from compliance.witness import watch
    from meshkit.contract import Direction

    text = _text(args, settings.text_chars_max)
    direction = Direction.ANSWER if args.answer else Direction.PROMPT
    watched, notes = watch(ALL)
    async with open_scanner(settings) as scanner:
        # Without the prefilter every pattern is tried: the same findings, and time is no matter.
        finder = Finders(Engine(watched)).of(scanner.policy)
        told = explained(text, Parts(finder, notes, scanner.policy, scanner.names), direction)
    if args.show_text:
        for row in (*told["findings"], *told["dropped"]):
            row["text"] = text[row["start"] : row["end"]]
    print(json.dumps(told, ensure_ascii=False, indent=1) if args.json else "\n".join(_lines(told)))
    return 0


def _text(args: argparse.Namespace, chars_max: int) -> str:
    if (args.text is None) == (args.input is None):
        msg = "give either TEXT or --input"
        raise InputError(msg)
    if args.text is not None:
        text: str = args.text
    else:
        try:
            raw = sys.stdin.buffer.read() if args.input == "-" else Path(args.input).read_bytes()
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            msg = "the text is not UTF-8"
            raise InputError(msg) from None
    if len(text) > chars_max:
        msg = f"the text is longer than {chars_max:,} characters"
        raise InputError(msg)
    return text


def _lines(told: dict[str, Any]) -> Iterator[str]:
    asked = [f"{w['start']}-{w['end']}" for w in told["windows"] if w["names_asked"]]
    yield f"policy {told['policy']}, as {told['direction']}"
    yield f"{len(told['windows'])} segments; names asked for in: {', '.join(asked) or 'none'}"
    yield f"\nfound: {len(told['findings'])}"
    for row in told["findings"]:
        stands = f" -> {row['stands_for_it']}" if row["stands_for_it"] is not None else ""
        yield f"{_head(row)}  {row['action']}{stands}"
        yield from _evidence(row)
    yield f"\nconsidered and dropped: {len(told['dropped'])}"
    for row in told["dropped"]:
        yield f"{_head(row)}  {row['why']}"
        yield from _evidence(row)


def _head(row: dict[str, Any]) -> str:
    place = f"{row['start']}-{row['end']}"
    kind = f"{row['type']}/{row['subtype']}"
    value = f"  {json.dumps(row['text'], ensure_ascii=False)}" if "text" in row else ""
    return f"  {place:<12}{kind:<36}{row['score']:.2f}  {row['recognizer']}{value}"


def _evidence(row: dict[str, Any]) -> Iterator[str]:
    seen = row["evidence"]
    if seen is None:
        return
    words = [
        f"checksum {seen['check']}" if seen["check"] else "",
        f"near {seen['context']!r}" if seen["context"] else "",
        f"behind {seen['veto']!r}" if seen["veto"] else "",
        f"{seen['score_alone']:.2f} alone, {seen['score_near']:.2f} with context",
        seen["source"],
    ]
    yield f"{'':<14}{'; '.join(word for word in words if word)}"
