"""`sealgate models triton-repository`: a model repository in which Triton runs our engine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sealgate.cli import BAD_USAGE, DONE, REFUSED
from sealgate.cli._command import add_command

if TYPE_CHECKING:
    import argparse

__all__ = ["add_parser"]

_EPILOG = """examples:
  sealgate models triton-repository --out var/triton-models
  sealgate models triton-repository acme-chat --out DIR --device cuda --set slots=128
  python deploy/triton_server.py --with-sealgate --serve var/triton-models \\
      --model-control-mode=explicit

MODEL is a name in the store; its weights stay there, so Triton must see the same folder. --set
takes any field of INFERENCE_*, in lower case and without the prefix (docs/settings.md). Plans of
TensorRT come into a repository by `sealgate models build-engine --triton`. docs/triton.md has the
rest. exit codes: 0 written, 1 refused, 2 usage."""
_MODEL = "smollm2-135m-instruct"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    line = "write a Triton model repository that serves a model"
    parser = add_command(commands, "triton-repository", line, _EPILOG)
    parser.add_argument("model", nargs="?", default=_MODEL, metavar="MODEL")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--store", type=Path, default=Path("var/models"), metavar="DIR")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    parser.set_defaults(run=_write)


def _write(args: argparse.Namespace) -> int:
    # Here: other commands shall not wait for what this one loads.
    from inference.triton_repository.folder import RepositoryError  # noqa: PLC0415 -- as above
    from inference.triton_repository.own import write_own  # noqa: PLC0415 -- as above

    given = {"models_dir": str(args.store.resolve()), "device": args.device}
    for pair in args.set:
        field, equals, value = pair.partition("=")
        if not equals:
            print("sealgate: --set wants FIELD=VALUE", file=sys.stderr)
            return BAD_USAGE
        given[field] = value
    try:
        folder = write_own(args.out, args.model, settings=given)
    except (RepositoryError, OSError) as error:
        print(f"sealgate: {error}", file=sys.stderr)
        return REFUSED
    print(folder)
    return DONE
