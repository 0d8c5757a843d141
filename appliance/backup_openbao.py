"""OpenBao's part of a backup: its raft snapshot, taken and put back through its own API.

A snapshot is what OpenBao has on its disk, sealed under its own keys; it opens nothing without the
seal key, which for that reason travels apart (see `appliance.backup`). Taking one needs the
operator's login; putting one back needs an OpenBao that was started anew under the *same* seal key,
and its first root token, which ends with the restore.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx2

from appliance.openbao import OpenBaoSettings, openbao
from meshkit.contract import Refusal
from meshkit.files import read_or_none
from meshkit.https import https_client
from meshkit.vault import VaultDown
from meshkit.vault_http import VaultHttp, VaultSettings, connected_http

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

__all__ = ["OperatorApi", "operator_of", "restore_snapshot"]

_SNAPSHOT = "sys/storage/raft/snapshot"
_TIMEOUT_S = 300.0
_OK = 200
_NO_CONTENT = 204
_STOP_MS = 500
"""After a restore it does not end by itself for long; raft storage takes a kill at any time."""
_HASTY = {"attempts_max": 1, "request_timeout_ms": 500}
_TRIES = 60
_PAUSE_S = 0.25


class OperatorApi:
    """What a backup asks of OpenBao, as its operator."""

    def __init__(self, http: VaultHttp, token: str) -> None:
        self._http = http
        self._token = token

    async def key_versions(self) -> dict[str, int]:
        """Return the newest version of every transit key, so that a rotation shows.

        Raises:
            VaultDown: OpenBao cannot be asked.
        """
        listed = await self._http.call("LIST", "transit/keys", token=self._token)
        versions = {}
        for name in listed.data.get("keys", ()):
            about = await self._http.call("GET", f"transit/keys/{name}", token=self._token)
            versions[str(name)] = int(about.need("latest_version"))
        return versions

    async def snapshot(self, into: Path) -> None:
        """Write a snapshot into a new file, piece by piece.

        Raises:
            VaultDown: OpenBao did not give one.
            OSError: the disk does not take it.
        """
        settings = self._http.settings
        headers = {"X-Vault-Token": self._token, "X-Vault-Request": "true"}
        async with _client(settings) as client:
            try:
                async with client.stream("GET", f"/v1/{_SNAPSHOT}", headers=headers) as reply:
                    if reply.status_code != _OK:
                        raise VaultDown(reply.status_code)
                    with into.open("xb") as file:
                        async for piece in reply.aiter_bytes():
                            await asyncio.to_thread(file.write, piece)
            except httpx2.HTTPError:
                raise VaultDown from None


def _client(settings: VaultSettings) -> httpx2.AsyncClient:
    return https_client(
        settings.ca,
        timeout_s=_TIMEOUT_S,
        base_url=settings.address,
        tls_min=ssl.TLSVersion.TLSv1_3,
    )


@asynccontextmanager
async def operator_of(folder: Path) -> AsyncIterator[OperatorApi]:
    """Log in as the operator of an OpenBao that runs over `folder`; log out at the end.

    Raises:
        VaultDown: it does not run, or does not let us in.
        OSError: there is no configuration or login.
    """
    config = json.loads((folder / "openbao.json").read_text(encoding="utf-8"))
    login = json.loads((folder / "operator.json").read_text(encoding="utf-8"))
    settings = VaultSettings(address=config["api_addr"], ca=folder / "tls" / "ca.pem")
    async with connected_http(settings) as http:
        entered = await http.call("POST", "auth/approle/login", login)
        token = str(entered.body["auth"]["client_token"])
        try:
            yield OperatorApi(http, token)
        finally:
            await _leave(http, token)


async def _leave(http: VaultHttp, token: str) -> None:
    try:
        await http.call("POST", "auth/token/revoke-self", token=token)
    except Refusal:
        return  # it ends by itself within the hour


async def restore_snapshot(folder: Path, snapshot: Path) -> None:
    """Make an OpenBao under `folder`, which has `seal.key` and `operator.json`; stop it again.

    Raises:
        OpenBaoError: it does not start.
        VaultDown: it does not take the snapshot, or does not open it: another seal key.
        OSError: the disk fails.
    """
    async with openbao(OpenBaoSettings(data=folder, stop_ms=_STOP_MS)) as bao:
        root = json.loads(read_or_none(folder / "init.json") or b"{}")
        token = str(root.get("root_token", ""))
        login = json.loads((folder / "operator.json").read_text(encoding="utf-8"))
        await _put_back(bao.vault_settings(), token, snapshot, login)
    (folder / "init.json").unlink(missing_ok=True)  # of an OpenBao that is no more


async def _put_back(
    settings: VaultSettings, token: str, snapshot: Path, login: Mapping[str, str]
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        with snapshot.open("rb") as file:
            while piece := await asyncio.to_thread(file.read, 1 << 20):
                yield piece

    headers = {"X-Vault-Token": token, "X-Vault-Request": "true"}
    async with _client(settings) as client:
        try:
            reply = await client.post(f"/v1/{_SNAPSHOT}-force", content=pieces(), headers=headers)
        except httpx2.HTTPError:
            raise VaultDown from None
    if reply.status_code not in (_OK, _NO_CONTENT):
        raise VaultDown(reply.status_code)
    await _until_restored(settings, login)


async def _until_restored(settings: VaultSettings, login: Mapping[str, str]) -> None:
    """Wait until it serves what was put back: the operator's login is in there.

    That it is up says nothing: it takes the snapshot over behind its answer.

    Raises:
        VaultDown: it did not within some 20 seconds.
    """
    async with connected_http(settings.model_copy(update=_HASTY)) as http:
        for _ in range(_TRIES):
            try:
                entered = await http.call("POST", "auth/approle/login", login)
            except VaultDown:
                await asyncio.sleep(_PAUSE_S)
            else:
                await _leave(http, str(entered.body["auth"]["client_token"]))
                return
    raise VaultDown
