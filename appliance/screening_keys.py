"""The key by which compliance vouches for text: read from OpenBao, rotated while we run."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import structlog

from meshkit.contract import Refusal
from meshkit.screening_mac import MacKeys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from appliance.bootstrap import Estate
    from meshkit.vault import Vault

__all__ = ["screening_keys"]

log = structlog.get_logger()

_NAME = "screening-mac"
_RETRY_S = 10.0


@asynccontextmanager
async def screening_keys(
    keys: Vault, estate: Estate, *, life_s: float
) -> AsyncIterator[Callable[[], MacKeys]]:
    """Yield a function that returns the two accepted versions of now.

    Raises:
        VaultDown: the first ones cannot be read.
    """
    held = await _read(keys)

    async def rotate() -> None:
        nonlocal held
        wait_s = life_s
        while True:
            await asyncio.sleep(wait_s)
            try:
                await estate.rotate_secret(_NAME)
                held = await _read(keys)
            except Refusal as failure:
                # What is held goes on serving: an older key vouches as well as a newer one.
                log.warning("screening_keys.not_rotated", kind=type(failure).__name__)
                wait_s = min(_RETRY_S, life_s)
            else:
                wait_s = life_s
                log.info("screening_keys.rotated", version=held.current()[0])

    rotating = asyncio.create_task(rotate(), name="screening-keys")
    try:
        yield lambda: held
    finally:
        rotating.cancel()
        with suppress(asyncio.CancelledError):
            await rotating


async def _read(keys: Vault) -> MacKeys:
    secret = await keys.secret(_NAME)
    return MacKeys(secret.values, secret.current)
