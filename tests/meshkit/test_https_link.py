"""One server's connections stay open, carry one request at a time, and are none too many."""

import asyncio
import gc
import ssl
import warnings
from contextlib import asynccontextmanager

import pytest

from meshkit.https_link import BrokenOffError, LinkLimits, NotReachedError, https_link
from tests.audit.witness_world import make_certificates

PATIENT = LinkLimits(connect_s=20, request_s=20, connections_max=2)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """Answers each request with the next of `replies`, the last one for ever; b"" closes."""

    def __init__(self, *replies):
        self.replies = list(replies)
        self.connections = self.open = self.open_max = 0
        self.asked = []
        self.writers = []

    async def serve(self, reader, writer):
        self.connections += 1
        self.open += 1
        self.open_max = max(self.open_max, self.open)
        self.writers.append(writer)
        try:
            while True:
                self.asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
                await asyncio.sleep(0.01)
                reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
                if not reply:
                    break
                writer.write(reply)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has gone
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def linked(folder, server, limits=PATIENT):
    """Serve on TLS 1.3, and hold a link to it."""
    ca, chain, key = make_certificates(folder)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain, key)
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context) as listening:
        port = listening.sockets[0].getsockname()[1]
        async with https_link(f"https://127.0.0.1:{port}", ca, limits) as link:
            yield link


async def test_requests_follow_one_another_on_one_connection(tmp_path):
    server = Server(OK)
    async with linked(tmp_path, server) as link:
        for _ in range(3):
            assert await link.request("GET", "/a?b=1", [("X-Own", "1")]) == (200, b"ok")
    assert server.connections == 1
    head = server.asked[2].lower()
    assert head.startswith("get /a?b=1 http/1.1\r\nhost: 127.0.0.1:")
    assert "x-own: 1\r\n" in head


async def test_no_more_connections_than_may_be(tmp_path):
    server = Server(OK)
    async with linked(tmp_path, server) as link:
        asked = (link.request("POST", "/", [], b"{}") for _ in range(8))
        assert set(await asyncio.gather(*asked)) == {(200, b"ok")}
    assert server.open_max == server.connections == PATIENT.connections_max


async def test_who_finds_no_connection_free_in_time_has_asked_nothing(tmp_path):
    limits = LinkLimits(connect_s=20, request_s=1, connections_max=1)
    server = Server(b"HTTP/1.1 200 OK\r\n")  # and nothing follows
    async with linked(tmp_path, server, limits) as link:
        asked = (link.request("GET", "/", []) for _ in range(2))
        first, second = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(first, BrokenOffError)
    assert isinstance(second, (NotReachedError, BrokenOffError))
    assert len(server.asked) <= 2


@pytest.mark.parametrize(
    ("reply", "body"),
    [
        (CHUNKED + b"1\r\no\r\n1\r\nk\r\n0\r\n\r\n", b"ok"),
        (b"HTTP/1.1 204 None\r\n\r\n", b""),
        (b"HTTP/1.1 103 Hints\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", b"ok"),
    ],
    ids=["chunked", "empty", "hints", "last"],
)  # fmt: skip
async def test_replies_of_every_form_are_read_and_another_follows(tmp_path, reply, body):
    async with linked(tmp_path, Server(reply, OK)) as link:
        assert (await link.request("GET", "/", []))[1] == body
        assert await link.request("GET", "/", []) == (200, b"ok")


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok",
        b"no HTTP at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
    ],
    ids=["closed", "short", "none", "endless"],
)
async def test_what_is_no_whole_reply_breaks_off_and_its_connection_is_used_no_more(
    tmp_path, reply
):
    server = Server(reply, b"", OK)
    limits = LinkLimits(connect_s=20, request_s=2, connections_max=2)
    async with linked(tmp_path, server, limits) as link:
        for _ in range(2):
            with pytest.raises(BrokenOffError):
                await link.request("GET", "/", [])
        assert await link.request("GET", "/", []) == (200, b"ok")
    assert server.connections == 3


async def test_bytes_that_nobody_asked_for_are_nobodys_reply(tmp_path):
    forged = OK.replace(b"ok", b"no")
    server = Server(OK + forged, OK)
    async with linked(tmp_path, server) as link:
        assert (await link.request("GET", "/", []))[1] == b"ok"
        assert (await link.request("GET", "/", []))[1] == b"ok"
        server.writers[-1].write(forged)
        while server.open:  # until it was dropped
            await asyncio.sleep(0.01)
        assert (await link.request("GET", "/", []))[1] == b"ok"
    assert server.connections == 3


async def test_a_connection_that_the_server_closed_is_replaced(tmp_path):
    server = Server(OK)
    async with linked(tmp_path, server) as link:
        await link.request("GET", "/", [])
        server.writers[0].close()
        while link._idle[0][1].usable:
            await asyncio.sleep(0.01)
        assert await link.request("GET", "/", []) == (200, b"ok")
    assert server.connections == 2


async def test_a_connection_that_nobody_used_for_a_while_is_not_trusted(tmp_path, monkeypatch):
    server = Server(OK)
    async with linked(tmp_path, server) as link:
        await link.request("GET", "/", [])
        monkeypatch.setattr("meshkit.https_link._IDLE_S", -1.0)
        await link.request("GET", "/", [])
    assert server.connections == 2


async def test_an_idle_connection_holds_nothing_of_what_it_brought(tmp_path):
    async with linked(tmp_path, Server(OK.replace(b"ok", b"k!"))) as link:
        assert (await link.request("GET", "/", []))[1] == b"k!"
        ((_, connection),) = link._idle
        assert (connection._parts, connection._reply) == ([], None)


async def test_a_request_that_outlives_the_link_leaves_no_connection(tmp_path):
    server = Server(OK)
    async with linked(tmp_path, server) as link:
        asking = asyncio.create_task(link.request("GET", "/", []))
        while not server.asked:
            await asyncio.sleep(0.001)
        link.close()
        assert await asking == (200, b"ok")
        assert link._idle == []


@pytest.mark.parametrize("header", ["a\r\nX-Other: b", "\u20ac"])
async def test_a_header_that_is_none_or_would_be_two_is_not_sent(tmp_path, header):
    server = Server(OK)
    async with linked(tmp_path, server) as link:
        with pytest.raises(BrokenOffError):
            await link.request("GET", "/", [("X-Vault-Token", header)])
    assert server.asked == []


async def test_a_request_cancelled_at_any_step_leaves_no_socket_open(tmp_path, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()  # what tests before this one left is not looked at
    unclosed = []
    monkeypatch.setattr("sys.unraisablehook", lambda told: unclosed.append(told.exc_value))
    limits = LinkLimits(connect_s=20, request_s=20, connections_max=1)
    server = Server(OK)
    async with linked(tmp_path, server, limits) as link:
        for steps in range(200):
            asking = asyncio.create_task(link.request("GET", "/", []))
            for _ in range(steps):
                await asyncio.sleep(0)
            if asking.done():
                break
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            link.close()
        assert await link.request("GET", "/", []) == (200, b"ok")  # its place was given back
    gc.collect()
    assert unclosed == []
