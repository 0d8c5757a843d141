"""How a command under a command is added: a line, and examples as they are typed."""

from __future__ import annotations

import argparse

__all__ = ["add_command"]


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
