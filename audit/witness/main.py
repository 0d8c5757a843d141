"""`python -m audit.witness.main`, or `sealgate audit witness serve`: the process."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import sys

import structlog

from audit.witness.app import serving_witness
from audit.witness.keys import KeysUnusableError
from audit.witness.settings import WitnessSettings
from meshkit.files import write_private
from meshkit.logs import configure_logging
from meshkit.tlog import NoteInvalid

__all__ = ["run"]

log = structlog.get_logger()


async def _serve(settings: WitnessSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with serving_witness(settings) as port:
        if settings.ready_file is not None:
            write_private(settings.ready_file, str(port).encode())
        log.info("witness.serving", port=port)
        await stop.wait()
        log.info("witness.draining", drain_ms=settings.drain_ms)
    if settings.ready_file is not None:
        settings.ready_file.unlink(missing_ok=True)


def run() -> int:
    """Serve until SIGINT or SIGTERM.

    Returns:
        0 after an orderly end; 1 if it cannot start: standard error says why.
    """
    configure_logging()
    try:
        asyncio.run(_serve(WitnessSettings.load()))
    except (KeysUnusableError, NoteInvalid, OSError, sqlite3.Error, ValueError) as failure:
        # Settings hide their input; these texts name files, ports and settings only.
        sys.stderr.write(f"Cannot start: {failure}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run())
