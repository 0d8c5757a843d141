"""Who gets in, by what, for how long; and what a browser may be made to do."""

import asyncio
import ssl
from contextlib import suppress

import httpx2
import pytest

from audit.console.gate import COOKIE
from meshkit.contract import Reason
from meshkit.tls import probe_tls13_only
from tests.console.world import (
    EVIL,
    Authority,
    House,
    client_context,
    house,
    login_form,
    spiffe,
    token_in,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

PAGES = ("/", "/search", "/search?user=ada", "/verdicts", "/checkpoint", "/subjects")
REFUSED = (httpx2.HTTPError, ssl.SSLError, OSError)


async def test_tls_1_3_alone_is_spoken(console) -> None:
    await probe_tls13_only("127.0.0.1", console.port)


@pytest.mark.parametrize("shown", ["none", "stranger"])
async def test_without_a_certificate_of_ours_there_is_no_handshake(console, shown) -> None:
    stranger = Authority().issue(spiffe("acme", "auditor")) if shown == "stranger" else None
    with pytest.raises(REFUSED):
        async with console.client(stranger) as client:
            await client.get("/login")


@pytest.mark.parametrize(
    "uris",
    [
        (),
        (spiffe("acme", "auditor"), spiffe("globex", "auditor")),
        ("spiffe://elsewhere.local/tenant/acme/auditor",),
        ("spiffe://sealgate.local/service/gateway",),
        ("spiffe://sealgate.local/tenant/acme/../globex/auditor",),
    ],
    ids=["nobody", "two people", "other domain", "a service", "dots"],
)
async def test_a_certificate_that_names_no_workload_does_not_sign_in(console, uris) -> None:
    async with console.client(console.certificate()) as somebody:
        form = await login_form(somebody)
        cookies = dict(somebody.cookies)
    async with console.client(console.authority.issue(*uris)) as client:
        assert "login/certificate" not in (await client.get("/login")).text
        client.cookies.update(cookies)
        reply = await client.post("/login/certificate", data=form)
    assert reply.status_code in {401, 403}
    assert "not authenticated" in reply.text or "policy does not allow" in reply.text
    assert COOKIE not in reply.cookies


async def test_a_workload_without_the_role_is_turned_away_and_that_is_recorded(console) -> None:
    async with console.client(console.certificate(workload="app")) as client:
        reply = await client.post("/login/certificate", data=await login_form(client))
    assert reply.status_code == 403
    assert (await console.recorded("console.login"))[-1]["outcome"] == Reason.DENIED.name


async def test_pages_need_a_session_and_lead_to_the_login(console) -> None:
    async with console.client(console.certificate()) as client:
        for path in PAGES:
            reply = await client.get(path)
            assert reply.status_code == 303
            assert reply.headers["location"].startswith("/login?next=")
        assert (await client.post("/subjects/erase", data={})).status_code == 401
        assert (await client.get("/nowhere")).status_code == 404


async def test_every_answer_bears_the_headers(console) -> None:
    async with console.signed_in() as client:
        for path in (*PAGES, "/nowhere", "/calls/0", "/static/console.css", "/login"):
            headers = (await client.get(path)).headers
            assert headers["content-security-policy"].startswith("default-src 'none'; style-src")
            assert "script" not in headers["content-security-policy"]
            assert headers["strict-transport-security"].startswith("max-age=")
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] in {"no-store", "no-cache"}
            assert headers["server"] == "sealgate"


async def test_the_session_cookie_is_kept_from_scripts_other_sites_and_plain_http(console) -> None:
    async with console.client(console.certificate()) as client:
        reply = await client.post("/login/certificate", data=await login_form(client))
    cookie = reply.headers["set-cookie"]
    assert cookie.startswith("__Host-")
    for part in ("HttpOnly", "Secure", "SameSite=Strict", "Path=/"):
        assert part in cookie
    assert "Domain" not in cookie


async def test_a_stolen_cookie_does_not_open_another_s_connection(console) -> None:
    async with console.signed_in() as client:
        stolen = client.cookies[COOKIE]
        assert (await client.get("/checkpoint")).status_code == 200
    async with console.client(console.certificate(workload="console")) as thief:
        reply = await thief.get("/checkpoint", headers={"Cookie": f"{COOKIE}={stolen}"})
    assert reply.status_code == 303


async def test_signing_out_ends_the_session_for_good(console) -> None:
    async with console.signed_in() as client:
        cookie = client.cookies[COOKIE]
        token = token_in((await client.get("/checkpoint")).text)
        assert (await client.post("/logout", data={"csrf": token})).status_code == 303
        reply = await client.get("/checkpoint", headers={"Cookie": f"{COOKIE}={cookie}"})
    assert reply.status_code == 303


async def test_signing_in_again_ends_the_session_before(console) -> None:
    async with console.signed_in() as client:
        before = client.cookies[COOKIE]
        await client.post("/login/certificate", data=await login_form(client))
        assert client.cookies[COOKIE] != before
        assert (await client.get("/checkpoint")).status_code == 200
        reply = await client.get("/checkpoint", headers={"Cookie": f"{COOKIE}={before}"})
    assert reply.status_code == 303


@pytest.mark.parametrize("wrong", ["none", "empty", "another session's", "origin", "cross-site"])
async def test_a_form_from_elsewhere_does_nothing(console, wrong) -> None:
    async with console.signed_in() as other:
        others = token_in((await other.get("/checkpoint")).text)
    async with console.signed_in() as client:
        own = token_in((await client.get("/checkpoint")).text)
        data = {"csrf": {"empty": "", "another session's": others}.get(wrong, own)}
        headers = {
            "origin": {"Origin": "https://evil.example"},
            "cross-site": {"Sec-Fetch-Site": "cross-site"},
        }.get(wrong, {})
        reply = await client.post("/logout", data={} if wrong == "none" else data, headers=headers)
        assert reply.status_code == 403
        assert (await client.get("/checkpoint")).status_code == 200  # still signed in


async def test_a_login_form_from_elsewhere_signs_nobody_in(console) -> None:
    async with console.client(console.certificate()) as client:
        reply = await client.post("/login/certificate", data={"csrf": "0" * 64, "next": "/"})
        assert reply.status_code == 403


@pytest.mark.parametrize(
    "there",
    [
        *("//evil.example", "https://evil.example", "/\\evil.example", "/.//evil.example", "evil"),
        *("/search\r\nSet-Cookie: a=b", "/login", "/logout", "/a/../../b", "/%0d%0a", EVIL),
    ],
)
async def test_nobody_is_sent_elsewhere(console, there) -> None:
    async with console.client(console.certificate()) as client:
        form = await login_form(client, next=there)
        reply = await client.post("/login/certificate", data=form)
    assert reply.headers["location"] == "/"


async def test_a_role_taken_away_counts_at_once(tmp_path) -> None:
    async with house(tmp_path) as running, running.signed_in() as client:
        assert (await client.get("/checkpoint")).status_code == 200
        entities = running.authorizer.folder / "entities.json"
        entities.write_text(entities.read_text().replace("/acme/auditor", "/acme/someone-else"))
        assert running.authorizer.reload()
        assert (await client.get("/checkpoint")).status_code == 403


async def test_a_renewed_certificate_and_other_roots_count_from_the_next_handshake(
    tmp_path,
) -> None:
    async with house(tmp_path) as running:
        before = running.certificate()
        fresh = Authority()
        running.holder.replace(fresh.issue("spiffe://sealgate.local/service/audit"))
        after = House(fresh, *list(vars(running).values())[1:])
        async with after.signed_in() as client:
            assert (await client.get("/checkpoint")).status_code == 200
        context = client_context(fresh, before)
        with pytest.raises(REFUSED):
            async with httpx2.AsyncClient(verify=context, trust_env=False) as client:
                await client.get(f"{running.url}/login")


async def test_a_rotated_log_key_shows_beside_the_one_before(tmp_path) -> None:
    async with house(tmp_path) as running, running.signed_in() as client:
        signer = running.log.parts.signer
        old = signer.vkey
        signer.rotate()
        await running.published()
        assert (await client.get("/vkey")).text.split() == signer.vkey.split()
        page = (await client.get("/checkpoint")).text
        assert old in page.replace("&#43;", "+")
        assert "NOT hold" not in page
        signer.retire()
        assert (await client.get("/vkey")).text.split() == [signer.vkey]
        assert signer.vkey != old


async def test_limits_hold(tmp_path) -> None:
    limits = {"requests_per_minute": 1, "requests_burst": 6, "body_bytes_max": 1_024}
    async with house(tmp_path, **limits) as running, running.signed_in() as client:
        token = token_in((await client.get("/checkpoint")).text)
        big = await client.post("/logout", data={"csrf": token, "more": "x" * 4_096})
        assert big.status_code == 413
        long = await client.get("/checkpoint", headers={"X-Long": "x" * 20_000})
        assert long.status_code == 400
        told = [(await client.get("/checkpoint")).status_code for _ in range(6)]
        assert told[-1] == 429


async def ended(reader) -> bytes:
    """What a connection still says until it is closed."""
    async with asyncio.timeout(30):
        try:
            return await reader.read()
        except OSError:
            return b""


async def closed(writer):
    """Close a connection and wait until it is: the other end may have broken it off."""
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


def connected(running):
    """Open a connection to a console, as somebody with a certificate."""
    context = client_context(running.authority, running.certificate())
    there = {"host": "127.0.0.1", "port": running.port}
    return asyncio.open_connection(**there, ssl=context, server_hostname="localhost")


async def test_who_sends_slowly_is_told_so(tmp_path) -> None:
    async with house(tmp_path, body_s=0.2) as running:
        reader, slow = await connected(running)
        kind = b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n"
        slow.write(b"POST /login/certificate HTTP/1.1\r\nHost: localhost\r\n" + kind + b"\r\ncsrf=")
        async with asyncio.timeout(30):
            assert b" 408 " in await reader.readuntil(b"\r\n\r\n")
        await closed(slow)
        async with running.client(running.certificate()) as client:
            assert (await client.get("/login")).status_code == 200


async def test_who_does_not_end_what_he_began_does_not_stay(tmp_path) -> None:
    async with house(tmp_path, connection_life_s=0.6) as running:
        reader, head = await connected(running)
        head.write(b"GET /login HTTP/1.1\r\nHost: local")
        assert await ended(reader) == b""
        await closed(head)


async def test_who_says_nothing_at_all_does_not_stay(tmp_path) -> None:
    """Three wait for their handshake, and the others are turned away at once."""
    async with house(tmp_path, handshake_s=1, connections_max=3) as running:
        there = {"host": "127.0.0.1", "port": running.port}
        silent = [await asyncio.open_connection(**there) for _ in range(6)]
        assert [await ended(reader) for reader, _ in silent] == [b""] * 6
        for _, writer in silent:
            await closed(writer)
        async with running.client(running.certificate()) as client:
            assert (await client.get("/login")).status_code == 200


async def test_a_door_counts_connections_that_do_not_shake_hands(tmp_path) -> None:
    async with house(tmp_path, connections_max=2, handshake_s=60) as running:
        silent = [await asyncio.open_connection("127.0.0.1", running.port) for _ in range(5)]
        over = [await ended(reader) for reader, _ in silent[2:]]
        assert over == [b""] * 3
        for _, writer in silent:
            await closed(writer)


@pytest.mark.parametrize(
    "kind",
    [
        "application/x-www-form-urlencoded; charset=unicode_escape",
        "application/x-www-form-urlencoded; charset=no-such",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
    ],
)
async def test_a_form_is_utf_8_and_anything_else_is_told_so(console, kind) -> None:
    async with console.client(console.certificate()) as client:
        await client.get("/login")
        reply = await client.post(
            "/login/certificate", content=b"csrf=\xff\\ud800", headers={"Content-Type": kind}
        )
    assert reply.status_code == 400


async def test_an_audit_log_that_cannot_record_a_read_shows_nothing(tmp_path) -> None:
    async with house(tmp_path) as running, running.signed_in() as client:
        running.log.close(Reason.AUDIT_DOWN)
        for path in ("/", "/search?user=ada", "/verdicts"):
            reply = await client.get(path)
            assert reply.status_code == 503
            assert "<table" not in reply.text
