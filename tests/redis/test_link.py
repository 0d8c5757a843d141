"""The line to Redis: TLS, logins, refusals, and what it costs when nobody answers."""

import asyncio
import signal
import ssl
import time
from contextlib import suppress

import pytest
from pydantic import ValidationError

from appliance.redis import RedisError as CannotRun
from appliance.redis import RedisServerSettings, redis_server
from meshkit.counters import counters
from meshkit.redis_link import (
    Breaker,
    RedisAway,
    RedisRefused,
    RedisSettings,
    Script,
    redis_link,
)
from tests.ports import unused_port

KEY = "sealgate:cache:key"


async def test_what_is_set_is_got_byte_for_byte(server) -> None:
    value = bytes(range(256))
    async with server.link("cache") as link:
        await link.call("SET", KEY, value)
        assert await link.call("GET", KEY) == value
        assert await link.call("GET", f"{KEY}:none") is None


FORBIDDEN = [
    ("GET", "sealgate:limits:x"),
    ("GET", "x"),
    ("KEYS", "*"),
    ("SCAN", "0"),
    ("FLUSHALL",),
    ("ACL", "LIST"),
    ("CONFIG", "GET", "*"),
    ("MONITOR",),
    ("SHUTDOWN",),
    ("PUBLISH", "a", "b"),
]


async def test_a_service_may_only_what_it_needs(server) -> None:
    async with server.link("cache") as link:
        for command in FORBIDDEN:
            with pytest.raises(RedisRefused):
                await link.call(*command)


async def test_a_service_may_not_touch_another_s_keys(server) -> None:
    async with server.link("gateway") as link:
        for command in (("GET", KEY), ("SET", KEY, "1"), ("HGET", "sealgate:limits:x", "y")):
            with pytest.raises(RedisRefused):
                await link.call(*command)


async def test_a_script_may_no_more_than_its_user(server) -> None:
    async with server.link("gateway") as link:
        with pytest.raises(RedisRefused):
            await link.run(Script(f"return redis.call('GET', '{KEY}')"), keys=(), args=())
        with pytest.raises(RedisRefused):
            await link.run(Script("return redis.call('FLUSHALL')"), keys=(), args=())


@pytest.mark.parametrize("username", ["default", "gateway", "nobody"])
async def test_a_wrong_user_gets_nothing(server, username) -> None:
    """`gateway` with the password of `cache`, too."""
    async with server.link("cache", username=username) as link:
        with pytest.raises(RedisAway):
            await link.call("GET", KEY)


async def test_a_rotated_password_is_read_for_the_next_connection(server, tmp_path) -> None:
    file = tmp_path / "password"
    file.write_text("not yet")
    async with server.link("cache", password_file=file, hold_off_ms=1) as link:
        with pytest.raises(RedisAway):
            await link.call("GET", KEY)
        file.write_bytes((server.it.data / "users" / "cache.password").read_bytes())
        assert await link.call("GET", KEY) is None


async def test_another_authority_is_not_believed(server, tmp_path) -> None:
    other = RedisServerSettings(data=tmp_path / "other", port=unused_port())
    async with (
        redis_server(other) as second,
        server.link("cache", ca=second.data / "tls" / "ca.pem") as link,
    ):
        with pytest.raises(RedisAway):
            await link.call("GET", KEY)


async def test_tls_1_2_and_plaintext_are_refused(server) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=server.it.data / "tls" / "ca.pem")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(OSError):  # noqa: PT011 -- an alert, or the connection closed
        await asyncio.open_connection("localhost", server.it.port, ssl=context)

    reader, writer = await asyncio.open_connection("localhost", server.it.port)
    writer.write(b"PING\r\n")
    with suppress(ConnectionError):
        assert b"PONG" not in await reader.read(100)
    writer.close()


async def test_nobody_else_may_read_what_redis_keeps(server) -> None:
    async with server.link("cache") as link:
        await link.call("SET", KEY, b"x")
    modes = {p: p.stat().st_mode & 0o077 for p in server.it.data.rglob("*")}

    assert len(modes) > 7
    assert {p for p, mode in modes.items() if mode} == set()


async def test_a_script_is_known_again_after_a_restart(server) -> None:
    script = Script("return ARGV[1]")
    async with server.link("cache", hold_off_ms=1) as link:
        assert await link.run(script, keys=(), args=(b"one",)) == b"one"
        await server.kill()
        await server.start()
        assert await until_answered(link.run, script, keys=(), args=(b"two",)) == b"two"


async def until_answered(call, *args, **named):
    async with asyncio.timeout(20):
        while True:
            try:
                return await call(*args, **named)
            except RedisAway:
                await asyncio.sleep(0.02)


async def test_a_dead_redis_costs_little_and_is_used_again_when_it_is_back(server) -> None:
    held_off = counters().get("redis.test.held_off", 0)
    async with server.link("cache", failures_max=3, hold_off_ms=200) as link:
        await link.call("GET", KEY)
        await server.kill()
        began = time.perf_counter()
        for _ in range(2_000):
            with pytest.raises(RedisAway):
                await link.call("GET", KEY)
        assert time.perf_counter() - began < 5
        assert link.held_off
        await server.start()
        assert await until_answered(link.call, "GET", KEY) is None
        assert not link.held_off
    assert counters()["redis.test.held_off"] - held_off > 1_900


async def test_a_paused_redis_times_out_once_and_not_for_everyone(server) -> None:
    async with server.link("cache") as patient:
        await patient.call("SET", KEY, b"1")
    async with server.link("cache", timeout_ms=300, hold_off_ms=400, failures_max=2) as link:
        await until_answered(link.call, "GET", KEY)
        server.signal(signal.SIGSTOP)
        began = time.perf_counter()
        results = await asyncio.gather(
            *(link.call("GET", KEY) for _ in range(64)), return_exceptions=True
        )
        assert {type(result) for result in results} == {RedisAway}
        assert time.perf_counter() - began < 10  # one after the other it would be 19 s
        held_off = counters().get("redis.test.held_off", 0)
        for _ in range(50):
            with pytest.raises(RedisAway):
                await link.call("GET", KEY)
        # One in 400 ms tries; the others cost nothing.
        assert counters()["redis.test.held_off"] - held_off >= 40
        server.signal(signal.SIGCONT)
        assert await until_answered(link.call, "GET", KEY) == b"1"


async def test_a_cancelled_call_leaves_no_reply_for_another(server) -> None:
    async with server.link("cache", connections_max=1) as link:
        for number in range(30):
            await link.call("SET", f"{KEY}:{number}", b"%d" % number)
        for number in range(30):
            task = asyncio.create_task(link.call("GET", f"{KEY}:{number}"))
            for _ in range(number % 12):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert await link.call("GET", f"{KEY}:{29 - number}") == b"%d" % (29 - number)


async def test_more_calls_than_connections_take_turns(server) -> None:
    async with server.link("cache", connections_max=2) as link:
        await link.call("SET", KEY, b"1")
        assert set(await asyncio.gather(*(link.call("GET", KEY) for _ in range(100)))) == {b"1"}


async def test_no_value_is_on_disk_and_none_comes_back(server) -> None:
    async with server.link("cache", hold_off_ms=1) as link:
        await link.call("SET", KEY, b"canary")
        await server.stop()
        assert [
            p for p in server.it.data.rglob("*") if p.is_file() and b"canary" in p.read_bytes()
        ] == []
        await server.start()
        assert await until_answered(link.call, "GET", KEY) is None


async def test_what_cannot_run_says_so(tmp_path, server) -> None:
    missing = RedisServerSettings(data=tmp_path / "r", program=tmp_path / "none")
    taken = RedisServerSettings(data=tmp_path / "r", port=server.it.port)
    for settings, word in ((missing, "install"), (taken, "taken")):
        with pytest.raises(CannotRun, match=word):
            async with redis_server(settings):
                pass


@pytest.mark.parametrize(
    "given",
    [
        {"address": "localhost:1"},
        {"address": "localhost:1", "ca": "ca", "username": "u"},
        {"ca": "ca"},
        {"address": "redis://localhost:1", "ca": "c", "username": "u", "password_file": "p"},
    ],
)
def test_half_a_configuration_is_refused(given) -> None:
    with pytest.raises(ValidationError):
        RedisSettings.model_validate(given)


async def test_a_missing_authority_is_told_at_start(tmp_path) -> None:
    settings = RedisSettings(
        address="localhost:1", ca=tmp_path / "none", username="u", password_file=tmp_path / "p"
    )
    with pytest.raises(OSError, match="No such file"):
        async with redis_link(settings, name="test"):
            pass


def test_an_open_breaker_lets_one_try_through_at_a_time() -> None:
    clock = [0.0]
    breaker = Breaker(2, 1.0, lambda: clock[0])
    assert not breaker.failed()
    assert breaker.admits()
    assert breaker.failed()
    assert not breaker.admits()
    clock[0] = 1.0
    assert [breaker.admits() for _ in range(3)] == [True, False, False]
    assert not breaker.failed()
    clock[0] = 2.0
    assert breaker.admits()
    assert breaker.succeeded()
    assert [breaker.admits() for _ in range(3)] == [True, True, True]
