"""TLS 1.2 is not to be had: by openssl, by sslyze, by our own probe, whatever was forgotten."""

import json
import ssl
import subprocess
import sys
import textwrap
from pathlib import Path

import grpc
import pytest

from meshkit.tls import TlsError, enforce_tls13, probe_tls13_only

ROOT = Path(__file__).parents[2]


async def s_client(kit, port: int, files, *flags: str) -> tuple[int, str]:
    """openssl as a client that has a certificate of ours, so that nothing but TLS can fail."""
    return await kit.run(
        "openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-alpn", "h2",
        "-cert", str(files.client.cert_chain), "-key", str(files.client.private_key),
        "-CAfile", str(files.client.peer_ca), "-cipher", "ALL:@SECLEVEL=0", *flags,
    )  # fmt: skip


@pytest.mark.parametrize("flag", ["-tls1", "-tls1_1", "-tls1_2"])
async def test_openssl_is_refused_before_tls13(kit, files, port, flag) -> None:
    status, said = await s_client(kit, port, files, flag)

    assert status != 0
    assert "BEGIN CERTIFICATE" not in said, "not even a ServerHello"


async def test_openssl_gets_tls13(kit, files, port) -> None:
    status, said = await s_client(kit, port, files, "-tls1_3")

    assert status == 0
    assert "New, TLSv1.3, Cipher is TLS_AES_256_GCM_SHA384" in said
    assert "Verify return code: 0 (ok)" in said


@pytest.mark.slow
async def test_sslyze_finds_tls13_alone(kit, files, port, tmp_path) -> None:
    status, said = await kit.run(str(ROOT / "tests" / "tls" / "install_sslyze.sh"), timeout_s=240)
    assert status == 0, said
    report = tmp_path / "report.json"
    versions = ("sslv2", "sslv3", "tlsv1", "tlsv1_1", "tlsv1_2", "tlsv1_3")
    await kit.run(
        str(ROOT / "var" / "tools" / "sslyze" / "bin" / "sslyze"),
        *(f"--{version}" for version in versions),
        f"--cert={files.client.cert_chain}",
        f"--key={files.client.private_key}",
        f"--json_out={report}",
        f"127.0.0.1:{port}",
        timeout_s=120,
    )

    (server,) = json.loads(report.read_text())["server_scan_results"]
    assert server["connectivity_status"] == "COMPLETED"
    accepted = {}
    for name in ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1", "tls_1_2", "tls_1_3"):
        result = server["scan_result"][f"{name}_cipher_suites"]
        assert result["status"] == "COMPLETED"
        accepted[name] = len(result["result"]["accepted_cipher_suites"])
    assert accepted.pop("tls_1_3") >= 1
    assert set(accepted.values()) == {0}, accepted


async def test_the_probe_catches_an_rsa_certificate(files, kit) -> None:
    """What `Certificate` refuses, forced upon grpc: the floor alone does not hold then."""
    pair = (files.rsa.private_key.read_bytes(), files.rsa.cert_chain.read_bytes())
    careless = grpc.ssl_server_credentials(
        [pair], files.rsa.peer_ca.read_bytes(), require_client_auth=True
    )
    async with kit.serving(careless) as port:
        with pytest.raises(TlsError, match=r"takes TLS 1\.2"):
            await probe_tls13_only("127.0.0.1", port)


async def test_the_probe_needs_an_answer(kit, files) -> None:
    async with kit.serving(files.server.server_credentials()) as port:
        pass
    with pytest.raises(TlsError, match="cannot be reached"):
        await probe_tls13_only("127.0.0.1", port)


async def test_the_probe_wants_tls13_itself(files) -> None:
    """A server of some other kind that refuses everything."""
    import asyncio

    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x15\x03\x03\x00\x02\x02\x28")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        with pytest.raises(TlsError, match=r"does not take TLS 1\.3"):
            await probe_tls13_only("127.0.0.1", server.sockets[0].getsockname()[1])


async def test_a_tls12_server_of_the_usual_kind_is_caught(files) -> None:
    import asyncio

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(files.server.cert_chain, files.server.private_key)
    tls.load_verify_locations(files.server.peer_ca)
    tls.verify_mode = ssl.CERT_REQUIRED

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls) as server:
        with pytest.raises(TlsError, match=r"takes TLS 1\.2"):
            await probe_tls13_only("127.0.0.1", server.sockets[0].getsockname()[1])


def in_a_process_of_its_own(script: str, *arguments: str, env: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        env=env, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.stdout.strip() or done.stderr


FORGETFUL = """
    import asyncio, sys
    import grpc
    from pathlib import Path
    from meshkit.tls import Tls, TlsError, enforce_tls13, probe_tls13_only
    names = [Path(name) for name in sys.argv[1:]]
    tls = Tls(cert_chain=names[0], private_key=names[1], peer_ca=names[2])
    try:
        tls.server_credentials()
    except TlsError as told:
        print("floor:", told)
    async def main():
        server = grpc.aio.server()
        pair = (names[1].read_bytes(), names[0].read_bytes())
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(
            [pair], names[2].read_bytes(), require_client_auth=True))
        await server.start()
        try:
            await probe_tls13_only("127.0.0.1", port)
        except TlsError as told:
            print("probe:", told)
        await server.stop(0)
    asyncio.run(main())
"""


def test_a_process_without_the_floor_cannot_serve(files) -> None:
    """grpc imported first: both the cheap check and the probe say so."""
    names = (files.server.cert_chain, files.server.private_key, files.server.peer_ca)

    said = in_a_process_of_its_own(FORGETFUL, *map(str, names), env={})

    assert "floor: GRPC_SSL_CIPHER_SUITES was not set before grpc was imported" in said
    assert "probe: this server takes TLS 1.2" in said


def test_the_floor_comes_in_time_when_imported_first() -> None:
    script = """
        import meshkit.tls_floor
        from meshkit.tls import enforce_tls13
        enforce_tls13()
        print("in time")
    """
    assert in_a_process_of_its_own(script, env={}) == "in time"


def test_the_floor_from_the_environment_is_in_time_too() -> None:
    script = """
        import grpc
        from meshkit.tls import enforce_tls13
        enforce_tls13()
        print("in time")
    """
    env = {"GRPC_SSL_CIPHER_SUITES": "ECDHE-RSA-AES256-GCM-SHA384"}
    assert in_a_process_of_its_own(script, env=env) == "in time"


def test_the_contract_sets_nothing_in_the_users_process() -> None:
    script = """
        import os
        before = dict(os.environ)
        import meshkit.contract, meshkit.status
        print(dict(os.environ) == before)
    """
    assert in_a_process_of_its_own(script, env={}) == "True"


def test_this_process_has_the_floor() -> None:
    enforce_tls13()
