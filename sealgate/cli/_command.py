"""How a command under a command is added: a line, and examples as they are typed."""

from __future__ import annotations

import argparse

__all__ = ["add_command", "count", "number", "seconds"]

_COUNT_MAX = (1 << 31) - 1


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, line: str, epilog: str
) -> argparse.ArgumentParser:
    """Add `name`; `line` tells what it does, in the list of commands and by itself."""
    return commands.add_parser(
        name,
        help=line,
        description=f"{line[0].upper()}{line[1:]}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def number(text: str) -> int:
    """Read what the wire can carry, from 0 on. argparse tells of a ValueError by this name."""
    found = int(text)
    if not 0 <= found <= _COUNT_MAX:
        raise ValueError
    return found


def count(text: str) -> int:
    """Read a number of things, one at least. As `number`."""
    if not (found := number(text)):
        raise ValueError
    return found


def seconds(text: str) -> float:
    """Read a time that is longer than none, and no NaN. As `number`."""
    found = float(text)
    if not 0 < found <= _COUNT_MAX:
        raise ValueError
    return found
