"""Certificates of the first tenant's workloads on this host, kept while the house runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from appliance.bootstrap import Estate
    from appliance.settings import ApplianceSettings

__all__ = ["ASSISTANT", "AUDITOR", "PRIVACY", "keep_clients"]

ASSISTANT = "assistant"
AUDITOR = "auditor"
PRIVACY = "privacy"
"""Workloads of the first tenant that get a certificate at start; the policies know all three."""

FOLDERS = {ASSISTANT: "tls", AUDITOR: "tls-auditor", PRIVACY: "tls-privacy"}


async def keep_clients(owned: AsyncExitStack, estate: Estate, settings: ApplianceSettings) -> None:
    """Write the folders of `FOLDERS`, and renew each at two thirds of its certificate's life.

    Raises:
        VaultDown: OpenBao issues none.
        OSError: the files cannot be written.
    """
    for workload, folder in FOLDERS.items():
        await owned.enter_async_context(
            estate.kept_client(settings.tenants[0], workload, settings.data_dir / folder)
        )
