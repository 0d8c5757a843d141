"""One certificate authority takes over from another, and no call notices.

    python -m appliance.ca state                    where things are, and when the next step is due
    python -m appliance.ca begin                    1  a new root is made; the old one issues on
    python -m appliance.ca advance                  2  once all trust it, it issues
    python -m appliance.ca advance                  3  once nothing of the old one is left, it goes
    python -m appliance.ca advance --at-once        without waiting: the old root's key is stolen

Whoever holds a certificate learns at each renewal which roots to trust, so a step is due once every
certificate issued before the last step is over: the longest life that any role grants. The time
stands in the issuer's name, so that any operator may go on, on any day, after any crash. Each step
that is not due yet does nothing; the appliance may run or not, OpenBao must.

The OpenBao asked is the one beside the appliance or mesh under `APPLIANCE_DATA_DIR`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import structlog
from pydantic import ValidationError

from appliance.bootstrap import BootstrapSettings
from appliance.openbao_admin import Admin, Issuer
from appliance.settings import ApplianceSettings
from meshkit.contract import Reason, Refusal
from meshkit.telemetry import configure_logging
from meshkit.vault import AppRole, VaultSettings, vault

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Rollover", "Stage", "advance_rollover", "begin_rollover", "main", "rollover_of"]

log = structlog.get_logger()

_TAKES_OVER = "takes-over-at-"
_RETIRES = "retires-at-"
_MARGIN_S = 60
"""Certificates are issued for whole seconds, by another clock."""
_FAILED = 1


class Stage(StrEnum):
    """How far it is."""

    SETTLED = "settled"
    """One CA, or none."""
    ANNOUNCED = "announced"
    """A new one is trusted from each next renewal on; the old one issues."""
    SWITCHED = "switched"
    """The new one issues; the old one is still trusted."""


@dataclass(frozen=True, slots=True)
class Rollover:
    """Where things are; `due_s` is when the next step may be taken, in seconds since 1970."""

    stage: Stage
    due_s: int | None = None
    successor: Issuer | None = None
    retiring: tuple[Issuer, ...] = ()


def rollover_of(issuers: Sequence[Issuer]) -> Rollover:
    """Tell where things are by the names of the CAs. A name that is not ours is left alone."""
    others = [issuer for issuer in issuers if not issuer.default]
    coming = [issuer for issuer in others if issuer.name.startswith(_TAKES_OVER)]
    if coming:
        return Rollover(Stage.ANNOUNCED, _time_in(coming[0].name), successor=coming[0])
    going = tuple(issuer for issuer in others if issuer.name.startswith(_RETIRES))
    if going:
        return Rollover(
            Stage.SWITCHED, max(_time_in(issuer.name) for issuer in going), retiring=going
        )
    return Rollover(Stage.SETTLED)


def _time_in(name: str) -> int:
    return int(name.rpartition("-")[2])


async def begin_rollover(admin: Admin, settings: BootstrapSettings) -> Rollover:
    """Make the CA that will take over. Where one is under way already, nothing happens.

    Raises:
        VaultDown: OpenBao cannot be asked.
    """
    if rollover_of(await admin.issuers()).stage is Stage.SETTLED:
        name = f"{_TAKES_OVER}{await _after_all_renewed(admin, settings)}"
        await admin.add_root(settings.trust_domain, settings.root_certificate_ttl_s, name=name)
        log.info("ca.announced")
    return rollover_of(await admin.issuers())


async def advance_rollover(
    admin: Admin, settings: BootstrapSettings, *, at_once: bool = False
) -> Rollover:
    """Take the next step if it is due, and say where things are then.

    Args:
        admin: The operator's.
        settings: As OpenBao was prepared with.
        at_once: Do not wait until it is due. Whoever has not renewed since the last step fails to
            connect until it has.

    Raises:
        VaultDown: OpenBao cannot be asked; what was done stays, and the next try goes on.
    """
    issuers = await admin.issuers()
    now = rollover_of(issuers)
    if now.due_s is None or (time.time() < now.due_s and not at_once):
        return now
    if now.successor is not None:
        name = f"{_RETIRES}{await _after_all_renewed(admin, settings)}"
        for issuer in issuers:
            if issuer.default:
                await admin.rename_issuer(issuer.issuer_id, name)
        await admin.make_default_issuer(now.successor.issuer_id)
        log.info("ca.switched")
    for issuer in now.retiring:
        await admin.destroy_issuer(issuer)
        log.info("ca.retired")
    return rollover_of(await admin.issuers())


async def _after_all_renewed(admin: Admin, settings: BootstrapSettings) -> int:
    """Return when every certificate that there is now will be over."""
    longest_s = await admin.longest_certificate_s(settings.root_certificate_ttl_s)
    return int(time.time()) + longest_s + _MARGIN_S


# --- the command ----------------------------------------------------------------------------


async def _run(what: str, data: Path, settings: BootstrapSettings, *, at_once: bool) -> Rollover:
    folder = data / "openbao"
    config = json.loads((folder / "openbao.json").read_text())
    login = AppRole(**json.loads((folder / "operator.json").read_text()))
    reached = VaultSettings(address=config["api_addr"], ca=folder / "tls" / "ca.pem")
    async with vault(reached, login) as keys:
        admin = Admin(keys)
        match what:
            case "begin":
                return await begin_rollover(admin, settings)
            case "advance":
                return await advance_rollover(admin, settings, at_once=at_once)
            case _:
                return rollover_of(await admin.issuers())


def _line(now: Rollover) -> str:
    if now.due_s is None:
        return now.stage
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now.due_s))
    return f"{now.stage}; the next step is due at {at}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 1 if OpenBao cannot be asked."""
    parser = argparse.ArgumentParser(prog="python -m appliance.ca", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("what", choices=("state", "begin", "advance"))
    parser.add_argument("--at-once", action="store_true", help="do not wait until it is due")
    given = parser.parse_args(arguments)
    configure_logging()
    try:
        house = ApplianceSettings.load()
        settings = BootstrapSettings(trust_domain=house.trust_domain, tenants=house.tenants)
        now = asyncio.run(_run(given.what, house.data_dir, settings, at_once=given.at_once))
    except (ValidationError, OSError, ValueError) as failure:
        sys.stderr.write(f"Cannot: {failure}\n")
        return _FAILED
    except Refusal as refusal:
        hint = " (is it running?)" if refusal.reason is Reason.KEYS_DOWN else ""
        sys.stderr.write(f"Cannot: {refusal.reason.value}{hint}\n")
        return _FAILED
    sys.stdout.write(_line(now) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
