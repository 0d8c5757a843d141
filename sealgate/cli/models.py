"""`sealgate models`: what may be asked, and what one does with models before they are.

Alone it asks a gateway for the list. Its commands live in modules of their own, each of which loads
what it needs only when it is used: a listing shall not wait for an engine.
"""

from __future__ import annotations

import argparse
import json
from importlib import import_module
from importlib.util import find_spec

from sealgate.cli import DONE
from sealgate.cli._connection import add_options, client_of, told

__all__ = ["add_parser"]

_EPILOG = """examples:
  sealgate models --target localhost:50051 --tls var/appliance/tls    # what you may ask
  sealgate models --json
  sealgate models list --store var/models                             # what lies in a store

`sealgate models COMMAND --help` has more; docs/models.md tells what happens to a model."""

_COMMANDS = ("_store", "_precision", "_engines", "_releases", "_triton")
"""Modules beside this one. Each has `add_parser(commands)`; one that is not there is left out."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `models`."""
    parser = subparsers.add_parser(
        "models",
        help="list the models you may ask; add, check and release models",
        description="List the models you may ask or, with a COMMAND, look after models.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    parser.set_defaults(run=lambda args: told(args, lambda: _list(args)))
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")
    for name in _COMMANDS:
        if find_spec(f"sealgate.cli.{name}"):
            import_module(f"sealgate.cli.{name}").add_parser(commands)


def _list(args: argparse.Namespace) -> int:
    with client_of(args) as client:
        models = client.models()
    if args.json:
        listed = [
            {
                "name": model.name,
                "digest": model.digest.hex(),
                "context_tokens": model.context_tokens,
                "licence": model.licence,
                "languages": list(model.languages),
            }
            for model in models
        ]
        print(json.dumps({"models": listed}, ensure_ascii=False))
        return DONE
    for model in models:
        print(
            f"{model.name}  {model.context_tokens} tokens  {model.licence}  "
            f"{' '.join(model.languages)}  {model.digest.hex()[:12]}"
        )
    return DONE
