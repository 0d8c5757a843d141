"""Certificates renewed at two thirds, on both ends, while calls and streams go on."""

import asyncio
import time

from meshkit.counters import counters, gauges
from tests.rotation.conftest import code_of, load_on, room_at, say_with, shown, until, wanted

TTL_S = 9


def seen_twice(load, served, swaps) -> bool:
    """Whether both ends' certificates were renewed twice and seen to be, with calls between."""
    calls = sum(load.presented.values())
    return min(len(load.presented), len(served), swaps + 1) >= 3 and min(calls, load.frames) > 150


async def test_no_call_fails_while_both_ends_renew(world) -> None:
    before = counters().get("tls.renewed", 0)
    served: set[int] = set()
    left_at_renewal: list[float] = []
    async with (
        world.ends(server_ttl_s=TTL_S, client_ttl_s=TTL_S) as ends,
        load_on(ends.line) as load,
    ):
        held, left = ends.client.certificate, ends.client.remaining_s
        until_s = time.monotonic() + 60
        while time.monotonic() < until_s and not seen_twice(load, served, ends.line.swaps):
            await asyncio.sleep(0.1)
            served.add(await shown(ends.port))
            assert gauges()["tls.remaining_s.service.gateway"] > 0
            if ends.client.certificate is not held:
                left_at_renewal.append(left)
            held, left = ends.client.certificate, ends.client.remaining_s

    assert load.failed == []
    assert len(load.presented) >= 3, "the server saw each of the client's certificates"
    assert len(served) >= 3, "clients saw each of the server's"
    assert ends.line.swaps >= 2
    assert counters()["tls.renewed"] - before >= 4
    assert len(left_at_renewal) >= 2
    assert all(0.15 * TTL_S < left < 0.42 * TTL_S for left in left_at_renewal), left_at_renewal
    assert "tls.remaining_s.service.gateway" not in gauges()


async def test_a_call_over_an_old_connection_fails_once_its_certificate_is_over(world) -> None:
    """Of every service, by the wrapper around its methods; the gateway's door says the same."""
    async with world.ends(server_ttl_s=60, client_ttl_s=60) as ends:
        short = await issued(ends.keys["gateway"], ttl_s=3)
        import grpc

        from tests.rotation.conftest import RoomStub

        credentials = grpc.ssl_channel_credentials(
            short.ca_pem.encode(), short.private_key_pem.encode(), short.chain_pem.encode()
        )
        async with grpc.aio.secure_channel(f"localhost:{ends.port}", credentials) as channel:
            stub = RoomStub(channel)
            await stub.say(b"", timeout=5)
            await until(lambda: time.time() > short.not_after_s, 60)

            assert await code_of(stub.say(b"", timeout=5)) == "UNAUTHENTICATED"
        # A new connection does not even come so far.
        assert await code_of(say_with(ends.port, credentials)) == "UNAVAILABLE"


async def test_a_server_whose_certificate_is_over_is_not_believed(world) -> None:
    from meshkit.tls import Certificate, CertificateHolder

    async with world.ends(server_ttl_s=60, client_ttl_s=60) as ends:
        short = await issued(ends.keys["audit"], service="audit", ttl_s=4)
        stale = CertificateHolder(
            Certificate.from_pem(
                chain=short.chain_pem.encode(),
                key=short.private_key_pem.encode(),
                peer_ca=short.ca_pem.encode(),
            )
        )
        async with room_at(stale.server_credentials()) as port:
            await say_with(port, ends.client.channel_credentials())
            # OpenSSL knows whole seconds: in its last one a certificate is good.
            await until(lambda: stale.remaining_s < -1, 60)

            assert await code_of(say_with(port, ends.client.channel_credentials())) == "UNAVAILABLE"


async def issued(keys, *, service: str = "gateway", ttl_s: int):
    asked = wanted(service, ttl_s)
    return await keys.issue(
        asked.role, uri_sans=(asked.spiffe_id,), dns_names=("localhost",), ttl_s=ttl_s
    )
