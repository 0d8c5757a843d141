"""Work that goes on beside a block, and ends with it.

async with running(watch(), "policies"):
...
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

__all__ = ["running"]


@asynccontextmanager
async def running(work: Coroutine[object, object, None], name: str) -> AsyncIterator[None]:
    """Run `work` while the block runs; then cancel it, and wait until it has ended.

    Raises:
        Exception: whatever ended `work` by itself, told when the block is left.
    """
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        # Awaiting the task itself could not tell its cancellation from ours, and would lose ours.
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()
