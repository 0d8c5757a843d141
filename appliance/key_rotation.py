"""Rotates tenants' keys by the calendar, as an operator's cron job would: recorded, and rewrapped.

Not by OpenBao's own `auto_rotate_period`, which leaves no line in its audit file
(openbao/openbao#3059). Older versions are kept: forgetting them is the keyholder's.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from appliance.key_care import NotNowError
from appliance.operating import operating
from meshkit.background import running
from meshkit.contract import Refusal
from meshkit.counters import counted

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from appliance.settings import ApplianceSettings

__all__ = ["by_the_calendar", "rotate_due", "rotating_keys"]

log = structlog.get_logger()


def by_the_calendar(settings: ApplianceSettings) -> AbstractAsyncContextManager[None]:
    """Rotate what is due for as long as the block runs."""
    work = rotating_keys(
        settings.data_dir, settings.key_rotation_days, settings.key_rotation_look_s
    )
    return running(work, "key-rotation")


async def rotating_keys(data: Path, life_days: float, look_s: float) -> None:
    """Rotate what is due, for ever. What fails is tried again at the next look."""
    while True:
        await asyncio.sleep(look_s)
        try:
            await rotate_due(data, life_days)
        except (Refusal, NotNowError, OSError, ValueError) as failure:
            counted("keys.not_rotated")
            log.warning("keys.not_rotated", kind=type(failure).__name__)


async def rotate_due(data: Path, life_days: float) -> list[str]:
    """Rotate and rewrap every tenant's key that is older than `life_days`; return whose.

    What an earlier try could not rewrap is rewrapped as well.

    Raises:
        Refusal, NotNowError, OSError, ValueError: see `appliance.operating.operating`.
    """
    rotated = []
    async with operating(data) as care:
        for tenant in await care.tenants():
            state = await care.state(tenant)
            if state.key is None or state.key.soft_deleted:
                continue
            due = (state.due_days(life_days) or 0.0) <= 0
            if due:
                await care.rotate(tenant)
                rotated.append(tenant)
            if due or state.under_older():
                await care.rewrap(tenant)
    log.info("keys.looked_at")
    return rotated
