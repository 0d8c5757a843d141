"""`sealgate models`: what may be asked."""

from __future__ import annotations

import argparse
import json

from sealgate.cli import DONE
from sealgate.cli._connection import add_options, client_of, told

__all__ = ["add_parser"]

_EPILOG = """examples:
  sealgate models --target localhost:50051 --tls var/appliance/tls
  sealgate models --json"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `models`."""
    parser = subparsers.add_parser(
        "models",
        help="list the models you may ask",
        description="List the models you may ask.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    parser.set_defaults(run=lambda args: told(args, lambda: _list(args)))


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
