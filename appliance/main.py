"""`python -m appliance.main`: the appliance in the foreground. SIGINT or SIGTERM drains it.

Writes `ready.json` (ports, folders) into the data folder once it serves, and removes it at the end:
what scripts wait for. Logs are JSON lines on standard error, what people read is on standard out.
"""

from __future__ import annotations

from meshkit import tls_floor  # isort: skip -- before grpc, or TLS 1.2 would be let in

import json
import sys
from typing import TYPE_CHECKING

import structlog
from pydantic import ValidationError

from appliance.house import House, appliance
from appliance.openbao import OpenBaoError, alone
from appliance.settings import ApplianceSettings
from appliance.staging import cleared_at_start
from compliance.names import WeightsError
from compliance.policy import PolicyError
from inference.registry import ModelFileError
from meshkit.contract import Reason, Refusal
from meshkit.files import write_private
from meshkit.server import run, stop_event
from meshkit.telemetry import configure_logging
from meshkit.tls import TlsError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["main"]

log = structlog.get_logger()

assert tls_floor.in_time()

_CANNOT_START = 1

_FOR_THE_OPERATOR = (
    *(ValidationError, OSError, ValueError, OpenBaoError, TlsError),
    *(ModelFileError, PolicyError, WeightsError),
)
"""What a start may end with. Settings hide their input, and these texts name files, ports and
settings only."""


async def serve(settings: ApplianceSettings) -> None:
    """Run until told to stop."""
    stop = stop_event()
    ready = settings.data_dir / "ready.json"
    with alone(settings.data_dir):  # or a second start would take away what the first one wrote
        ready.unlink(missing_ok=True)
        cleared_at_start(settings.data_dir)
        async with appliance(settings, tell=_say) as house:
            write_private(ready, json.dumps(_facts(house, settings.data_dir), indent=2).encode())
            _say(_welcome(house, settings.data_dir))
            log.info("appliance.serving", port=house.port, audit_port=house.audit_port)
            await stop.wait()
            ready.unlink(missing_ok=True)
            _say("Draining: calls under way finish")
    _say("Stopped")


def _facts(house: House, data: Path) -> dict[str, object]:
    return {
        "gateway": f"localhost:{house.port}",
        "audit": f"localhost:{house.audit_port}",
        "console": f"https://localhost:{house.console_port}" if house.console_port else "",
        "tls": str(house.tls),
        "auditor_tls": str(house.auditor_tls),
        "log": str(house.log),
        "vkey": str(data / "audit" / "vkey"),
        "openbao_pid": house.openbao_pid,
    }


def _welcome(house: House, data: Path) -> str:
    return (
        f"Serving on localhost:{house.port}, auditors on localhost:{house.audit_port}"
        f"{_console(house)}. Try:\n"
        f"  sealgate chat 'What is a tamper-evident log?' --target localhost:{house.port} "
        f"--tls {house.tls}\n"
        f"  sealgate audit verify --log {house.log} --vkey {data / 'audit' / 'vkey'}"
    )


def _console(house: House) -> str:
    port = house.console_port
    return f", their browsers on https://localhost:{port} (docs/console.md)" if port else ""


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 -- what people who wait read


def main() -> int:
    """Run; return the exit code: 0 after an orderly end, 1 if it cannot start."""
    configure_logging()
    try:
        run(serve(ApplianceSettings.load()))
    except _FOR_THE_OPERATOR as failure:
        _say(f"Cannot start: {failure}")
        return _CANNOT_START
    except Refusal as refusal:
        hint = "; see openbao/openbao.log in the data folder, and whether the disk is full"
        _say(f"Cannot start: {refusal.reason.value}{hint * (refusal.reason is Reason.KEYS_DOWN)}")
        return _CANNOT_START
    return 0


if __name__ == "__main__":
    sys.exit(main())
