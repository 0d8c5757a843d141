"""All recognizers, as one tuple; each entry names its source. PURE."""

from __future__ import annotations

from compliance.recognizers.base import Recognizer
from compliance.recognizers.cn import CN
from compliance.recognizers.eu import EU
from compliance.recognizers.generic import GENERIC
from compliance.recognizers.secrets import SECRETS
from compliance.recognizers.us import US

__all__ = ["ALL", "Recognizer"]

ALL: tuple[Recognizer, ...] = (*GENERIC, *SECRETS, *US, *CN, *EU)
"""Every recognizer that is on by default."""
