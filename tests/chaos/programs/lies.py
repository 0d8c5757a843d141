"""Whether a service is to lie now: a file named after it says how."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "CHAOS_LIES"


def lie_of(service: str) -> str:
    try:
        return (Path(os.environ[VARIABLE]) / service).read_text()
    except FileNotFoundError:
        return ""
