"""All recognizers, as one tuple; each entry names its source. PURE."""

from __future__ import annotations

from compliance.recognizers.base import Recognizer
from compliance.recognizers.cloud import CLOUD
from compliance.recognizers.cn import CN
from compliance.recognizers.dach import DACH
from compliance.recognizers.eu import EU
from compliance.recognizers.europe import EUROPE
from compliance.recognizers.generic import GENERIC
from compliance.recognizers.health import HEALTH
from compliance.recognizers.injection import INJECTION
from compliance.recognizers.secrets import SECRETS
from compliance.recognizers.uk_ie import UK_IE
from compliance.recognizers.us import US
from compliance.recognizers.world import WORLD

__all__ = ["ALL", "Recognizer"]

ALL: tuple[Recognizer, ...] = (
    *(*GENERIC, *SECRETS, *CLOUD, *US, *HEALTH, *CN),
    *(*EU, *UK_IE, *DACH, *EUROPE, *WORLD),
    *INJECTION,
)
"""Every recognizer that is on by default."""
