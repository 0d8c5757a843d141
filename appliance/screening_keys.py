"""Rotates the key by which compliance vouches for text; those who hold it read it by themselves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from meshkit.contract import Refusal
from meshkit.screening_keys import SECRET

if TYPE_CHECKING:
    from appliance.bootstrap import Estate

__all__ = ["rotating"]

log = structlog.get_logger()

_RETRY_S = 10.0


async def rotating(estate: Estate, life_s: float) -> None:
    """Make a new version every `life_s` seconds, until cancelled. The one before still counts."""
    wait_s = life_s
    while True:
        await asyncio.sleep(wait_s)
        try:
            await estate.rotate_secret(SECRET)
            wait_s = life_s
        except Refusal as failure:
            # What is held goes on serving: an older key vouches as well as a newer one.
            log.warning("screening_keys.not_rotated", kind=type(failure).__name__)
            wait_s = min(_RETRY_S, life_s)
