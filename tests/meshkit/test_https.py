"""A client of the mesh leaves no connection open, whenever its request is given up."""

import asyncio
import gc
import ssl
import warnings

import httpx2
import pytest

from meshkit.https import _Opened, https_client
from tests.audit.witness_world import make_certificates

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


@pytest.fixture
async def served(tmp_path):
    """A server over TLS 1.3; its port, and the CA to trust."""
    ca, chain, key = make_certificates(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(chain, key)

    async def answer(reader, writer):
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(_ANSWER)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has gone
        finally:
            writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/", ca


async def test_a_request_is_answered_under_its_own_ca_and_under_no_other(served, tmp_path):
    url, ca = served
    async with https_client(ca, timeout_s=10, tls_min=ssl.TLSVersion.TLSv1_3) as client:
        assert (await client.get(url)).text == "ok"
    (tmp_path / "other").mkdir()
    other = make_certificates(tmp_path / "other")[0]
    async with https_client(other, timeout_s=10) as client:
        with pytest.raises(httpx2.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await client.get(url)


async def test_a_request_cancelled_at_any_step_leaves_no_socket_open(served, monkeypatch):
    """A TLS handshake in particular: httpx2 forgets the connection below it."""
    url, ca = served
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()  # what tests before this one left is not looked at
    unclosed = []
    monkeypatch.setattr("sys.unraisablehook", lambda told: unclosed.append(told.exc_value))
    finished = False
    for steps in range(200):
        async with https_client(ca, timeout_s=10) as client:
            request = asyncio.create_task(client.get(url))
            for _ in range(steps):
                await asyncio.sleep(0)
            finished = request.done()
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ResourceWarning)
            gc.collect()
        assert not unclosed, f"after {steps} steps"
        if finished:
            break
    assert finished


async def test_a_connection_that_came_about_is_not_closed_with_a_later_one():
    class Stream:
        closed = False

        async def aclose(self):
            self.closed = True

    opened, first, second = _Opened(), Stream(), Stream()
    await opened.told("connection.connect_tcp.complete", {"return_value": first})
    await opened.told("connection.start_tls.complete", {})
    await opened.told("connection.connect_tcp.complete", {"return_value": second})
    await opened.told("connection.start_tls.failed", {})
    assert (first.closed, second.closed) == (False, True)
