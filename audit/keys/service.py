"""All keys that the audit service holds: for payloads and for pseudonyms, and who gives orders."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audit.keys.orders import FOLDER, KeyDesk
from audit.keys.pseudonym_keys import PseudonymKeys, pseudonym_keys
from meshkit.background import running
from meshkit.envelope import FolderWrappedKeys, Keyring, keyring

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from audit.settings import AuditSettings
    from meshkit.held_keys import KeyringSettings
    from meshkit.vault import Vault

__all__ = ["AuditKeys", "audit_keys"]


@dataclass(frozen=True, slots=True)
class AuditKeys:
    """What `open_audit` takes of them, and what is done with them besides."""

    sealer: Keyring
    naming: PseudonymKeys
    desk: KeyDesk

    @asynccontextmanager
    async def taking_orders(self) -> AsyncIterator[None]:
        """Carry out orders while the block runs: by the one process that has the log open."""
        async with running(self.desk.run(), "audit-key-orders"):
            yield


@asynccontextmanager
async def audit_keys(
    vault: Vault, settings: AuditSettings, rules: KeyringSettings | None = None
) -> AsyncIterator[AuditKeys]:
    """Hold the keys that are kept under `settings.data_dir` while the block runs.

    Args:
        vault: Logged in as the audit service.
        settings: The service's.
        rules: How long keys serve without OpenBao.
    """
    data = settings.data_dir
    store = FolderWrappedKeys(data / "keys")
    async with (
        keyring(vault, store, rules) as sealer,
        pseudonym_keys(
            vault,
            data / "pseudonyms",
            life_days=settings.pseudonym_life_days,
            look_s=settings.pseudonym_look_s,
            settings=rules,
        ) as naming,
    ):
        desk = KeyDesk(
            vault=vault,
            payloads=sealer,
            payload_keys=store,
            naming=naming,
            folder=data / FOLDER,
            every_s=settings.key_orders_every_s,
        )
        yield AuditKeys(sealer, naming, desk)
