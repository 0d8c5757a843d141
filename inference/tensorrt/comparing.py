"""Runs both engines of a comparison, one after the other, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from inference.registry import ModelFileError
from inference.tensorrt.comparison import Comparison, Ran

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["compare"]


def compare(
    a: str,
    b: str,
    prompts: Sequence[str],
    *,
    models_dir: Path,
    max_tokens: int,
    threads: int,
) -> Comparison:
    """Have two models of a store answer the same prompts.

    Raises:
        ModelFileError: one cannot be loaded or does not answer; or there are no prompts.
    """
    if not prompts:
        msg = "there are no prompts to compare on"
        raise ModelFileError(msg)
    job = {
        "models_dir": str(models_dir),
        "threads": threads,
        "max_tokens": max_tokens,
        "prompts": list(prompts),
    }
    return Comparison(a=_ran(job | {"model": a}), b=_ran(job | {"model": b}))


def _ran(job: dict[str, object]) -> Ran:
    done = subprocess.run(
        [sys.executable, "-m", "inference.tensorrt.answering"],
        input=json.dumps(job).encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    try:
        told = json.loads(done.stdout)
        if "fault" in told:
            raise ModelFileError(str(told["fault"]))
        return Ran.told(told)
    except (ValueError, TypeError, KeyError):
        msg = "one of the engines died before it had answered"
        raise ModelFileError(msg) from None
