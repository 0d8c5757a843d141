"""The operator of an appliance or mesh that runs on this host, for as long as a command takes.

    async with operating(Path("var/appliance")) as care, keyholder(data, file) as holder:
        await care.trim("acme", holder)

Logs in by `openbao/operator.json`, and has a certificate of `spiffe://<domain>/service/operator`
issued, with which it appends to the audit log and does nothing else. Both end with the block.
"""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from appliance.bootstrap import BootstrapSettings, Estate
from appliance.clients import appending
from appliance.key_care import KeyCare
from appliance.openbao_admin import Admin
from meshkit.vault import AppRole, VaultSettings, vault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from meshkit.vault import Vault

__all__ = ["caring", "keyholder", "logged_in", "operating", "operating_secrets"]


@asynccontextmanager
async def operating(data: Path) -> AsyncIterator[KeyCare]:
    """Be the operator of what runs on `data` while the block runs.

    Raises:
        OSError: nothing runs there, or its files are not for us.
        ValueError: one of its files is damaged.
        Refusal: KEYS_DOWN.
    """
    audit = str(_json(data / "ready.json")["audit"])
    origin = _text(data / "audit" / "vkey").split("+")[0]
    async with (
        logged_in(data, data / "openbao" / "operator.json") as keys,
        caring(keys, data, audit, origin.removesuffix("/audit")) as care,
    ):
        yield care


@asynccontextmanager
async def caring(
    keys: Vault, data: Path, audit_target: str, trust_domain: str
) -> AsyncIterator[KeyCare]:
    """Care for keys as the operator, recorded by the audit service at `audit_target`."""
    async with appending(keys, audit_target, trust_domain) as audit:
        yield KeyCare(keys, data / "audit", audit.append)


@asynccontextmanager
async def operating_secrets(data: Path) -> AsyncIterator[Callable[[str], Awaitable[int]]]:
    """Yield what gives a secret of all services a new version. Raises as `operating`."""
    async with logged_in(data, data / "openbao" / "operator.json") as keys:
        yield Estate(keys, Admin(keys), BootstrapSettings()).rotate_secret


@asynccontextmanager
async def keyholder(data: Path, file: Path | None) -> AsyncIterator[Vault]:
    """Log in as the keyholder, by `file` or where the first start left it. Raises OSError."""
    async with logged_in(data, file or data / "openbao" / "keyholder.json") as keys:
        yield keys


@asynccontextmanager
async def logged_in(data: Path, login: Path) -> AsyncIterator[Vault]:
    """Log in to the OpenBao under `data` by a file with role id and secret id.

    Raises:
        OSError: a file is missing or not for us.
        ValueError: `login` is another kind of file.
        Refusal: KEYS_DOWN.
    """
    address = str(_json(data / "openbao" / "openbao.json")["api_addr"])
    try:
        known = _json(login)
        role = AppRole(role_id=known["role_id"], secret_id=known["secret_id"])
    except (KeyError, TypeError, ValueError):
        msg = "the login's file is none: it has a role_id and a secret_id"
        raise ValueError(msg) from None
    settings = VaultSettings(address=address, ca=data / "openbao" / "tls" / "ca.pem")
    async with vault(settings, role) as keys:
        yield keys


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _json(path: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(_text(path))
    return told
