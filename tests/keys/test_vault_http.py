"""Retries and timeouts, against a small HTTPS server that misbehaves on demand."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydantic import ValidationError

from appliance.openbao_tls import ensure_listener_tls
from meshkit.contract import Reason
from meshkit.vault import VaultDown, VaultRejected, VaultSettings
from meshkit.vault_http import CasConflict, connected_http

OK = (200, b'{"data":{"answer":"42"}}')


@dataclass
class Moody:
    """Answers with the statuses it was given, in turn; the last one for ever. None: silence."""

    moods: list[tuple[int, bytes] | None]
    seen: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.seen.append(head)
        mood = self.moods.pop(0) if len(self.moods) > 1 else self.moods[0]
        if mood is None:
            await reader.read()
        else:
            status, body = mood
            writer.write(
                f"HTTP/1.1 {status} x\r\ncontent-length: {len(body)}\r\n"
                "connection: close\r\n\r\n".encode()
                + body
            )
            await writer.drain()
        writer.close()


@asynccontextmanager
async def moody(
    folder: Path, *moods: tuple[int, bytes] | None, patience_ms: int = 20_000
) -> AsyncIterator[tuple]:
    ensure_listener_tls(folder)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "server.pem", folder / "server.key")
    server = Moody(list(moods))
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls) as listening:
        port = listening.sockets[0].getsockname()[1]
        yield server, VaultSettings(
            address=f"https://127.0.0.1:{port}", ca=folder / "ca.pem",
            backoff_ms=1, backoff_max_ms=4,
            request_timeout_ms=patience_ms, connect_timeout_ms=20_000,
        )  # fmt: skip


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_a_passing_trouble_is_tried_again(tmp_path, status) -> None:
    async with (
        moody(tmp_path, (status, b""), (status, b""), OK) as (server, settings),
        connected_http(settings) as http,
    ):
        answer = await http.call("GET", "x")

    assert answer.data == {"answer": "42"}
    assert len(server.seen) == 3


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_tries_are_bounded(tmp_path, status) -> None:
    async with (
        moody(tmp_path, (status, b"")) as (server, settings),
        connected_http(settings) as http,
    ):
        with pytest.raises(VaultDown) as down:
            await http.call("GET", "x")

    assert (down.value.reason, down.value.status) == (Reason.KEYS_DOWN, status)
    assert len(server.seen) == settings.attempts_max


@pytest.mark.parametrize("status", [400, 403, 404, 405, 413])
async def test_a_no_is_not_asked_again(tmp_path, status) -> None:
    secret = b'{"errors":["ciphertext of ada@example.org is wrong"]}'
    async with (
        moody(tmp_path, (status, secret)) as (server, settings),
        connected_http(settings) as http,
    ):
        with pytest.raises(VaultRejected) as no:
            await http.call("GET", "x")

    assert len(server.seen) == 1
    assert no.value.status == status
    assert "ada" not in f"{no.value!r} {no.value}"


async def test_silence_ends_in_time_and_is_not_asked_again(tmp_path) -> None:
    async with (
        moody(tmp_path, None, patience_ms=300) as (server, settings),
        connected_http(settings) as http,
    ):
        began = time.monotonic()
        with pytest.raises(VaultDown) as down:
            await http.call("POST", "x", {})
        took = time.monotonic() - began

    assert down.value.status is None
    assert took < 10
    assert len(server.seen) == 1, "a write may have happened: only the caller knows what then"


async def test_nobody_there_is_tried_and_then_down(tmp_path) -> None:
    async with moody(tmp_path, OK) as (_, settings):
        pass
    async with connected_http(settings) as http:
        with pytest.raises(VaultDown) as down:
            await http.call("GET", "x")

    assert down.value.status is None


async def test_an_authority_that_is_not_ours_is_down(tmp_path) -> None:
    (tmp_path / "other").mkdir()
    ensure_listener_tls(tmp_path / "other")
    async with moody(tmp_path, OK) as (server, settings):
        stranger = settings.model_copy(update={"ca": tmp_path / "other" / "ca.pem"})
        async with connected_http(stranger) as http:
            with pytest.raises(VaultDown):
                await http.call("GET", "x", token="s.secret")

    assert server.seen == [], "no token may reach somebody else"


async def test_what_is_sent(tmp_path) -> None:
    async with moody(tmp_path, OK) as (server, settings), connected_http(settings) as http:
        await http.call("POST", "a/b", {"c": 1}, token="s.t", wrap_ttl_s=60)

    head = server.seen[0].lower()
    assert head.startswith("post /v1/a/b ")
    assert "x-vault-request: true" in head
    assert "x-vault-token: s.t" in head
    assert "x-vault-wrap-ttl: 60s" in head


async def test_a_lost_compare_and_swap_has_its_own_type(tmp_path) -> None:
    said = b'{"errors":["check-and-set parameter did not match the current version"]}'
    async with moody(tmp_path, (400, said)) as (_, settings), connected_http(settings) as http:
        with pytest.raises(CasConflict) as lost:
            await http.call("POST", "x", {})

    assert lost.value.reason is Reason.CONFLICT


@pytest.mark.parametrize("body", [b"", b"not json", b"[1]", b'{"data":null}'])
async def test_a_reply_without_what_was_asked_for_is_down(tmp_path, body) -> None:
    async with moody(tmp_path, (200, body)) as (_, settings), connected_http(settings) as http:
        answer = await http.call("GET", "x")
        with pytest.raises(VaultDown):
            answer.need("plaintext")


def test_there_is_no_plaintext_mode(tmp_path) -> None:
    with pytest.raises(ValidationError):
        VaultSettings(address="http://127.0.0.1:8200", ca=tmp_path)
