"""Who gets in, over real sockets, with certificates that a real OpenBao issued."""

import datetime as dt

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from meshkit.tls import Certificate, CertificateHolder, Tls, TlsError


async def test_a_tenants_workload_gets_in_over_tls13(files, kit, port) -> None:
    spiffe_id, version, group, ip, text = await kit.say(port, files.client.client_credentials())

    assert spiffe_id == "spiffe://sealgate.local/tenant/demo/chat"
    assert (version, ip, text) == ("TLSv1.3", "127.0.0.1", "hello")
    assert group == "X25519MLKEM768", "post-quantum hybrid by default"


async def test_a_service_gets_in(files, kit, port) -> None:
    spiffe_id, *_ = await kit.say(port, files.server.client_credentials())

    assert spiffe_id == "spiffe://sealgate.local/service/gateway"


async def test_a_name_that_is_not_ours_is_refused(files, kit, port, wrong_name) -> None:
    """Our own CA vouches for the certificate, but its name is no id in its one spelling."""
    bad = files.wrong[wrong_name]

    assert await kit.refusal(port, bad.client_credentials()) == (
        "UNAUTHENTICATED",
        "UNAUTHENTICATED",
    )


async def test_another_authority_is_refused(files, kit, port, tmp_path) -> None:
    name = "spiffe://sealgate.local/tenant/demo/chat"
    stranger = kit.foreign(tmp_path, files.client, name)

    code, _ = await kit.refusal(port, stranger.client_credentials())

    assert code == "UNAVAILABLE", "the handshake fails: Python is never asked"


async def test_no_client_certificate_is_refused(files, kit, port) -> None:
    bare = grpc.ssl_channel_credentials(files.client.peer_ca.read_bytes())

    code, _ = await kit.refusal(port, bare)

    assert code == "UNAVAILABLE"


async def test_a_client_refuses_a_server_of_another_authority(files, kit, port) -> None:
    elsewhere = files.client.model_copy(update={"peer_ca": files.folder / "bao" / "tls" / "ca.pem"})

    code, _ = await kit.refusal(port, elsewhere.client_credentials())

    assert code == "UNAVAILABLE"


async def test_plaintext_is_refused(kit, port) -> None:
    async with grpc.aio.insecure_channel(f"localhost:{port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary("/test.Echo/Say")(b"hello", timeout=5)

    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_an_rsa_server_certificate_is_refused_at_load(files) -> None:
    with pytest.raises(TlsError, match="not ECDSA"):
        files.rsa.load()
    with pytest.raises(TlsError, match="not ECDSA"):
        files.rsa.server_credentials()


def test_another_certificates_key_is_refused(files) -> None:
    mixed = files.server.model_copy(update={"private_key": files.client.private_key})

    with pytest.raises(TlsError, match="not the certificate's"):
        mixed.load()


@pytest.mark.parametrize("part", ["cert_chain", "private_key", "peer_ca"])
@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_files_that_are_none_are_told(files, tmp_path, part, content) -> None:
    path = tmp_path / "x.pem"
    if content is not None:
        path.write_bytes(content)
    broken: Tls = files.server.model_copy(update={part: path})

    with pytest.raises(TlsError, match=r"cannot read|not readable PEM"):
        broken.load()


def test_a_key_does_not_show(files) -> None:
    assert "PRIVATE" not in repr(files.server.load())


async def test_a_new_certificate_is_shown_without_a_restart(files, kit) -> None:
    first, second = files.server.load(), files.wrong["two"].load()
    holder = CertificateHolder(first)

    async def shown(port: int) -> int:
        _, said = await kit.run(
            "openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-alpn", "h2"
        )
        pem = said[said.index("-----BEGIN") : said.index("-----END CERTIFICATE-----")]
        return Certificate.from_pem(
            chain=f"{pem}-----END CERTIFICATE-----\n".encode(),
            key=second.key_pem if holder.certificate is second else first.key_pem,
            peer_ca=first.peer_ca_pem,
        ).serial

    async with kit.serving(holder.server_credentials()) as port:
        assert await shown(port) == first.serial
        holder.replace(second)
        assert await shown(port) == second.serial
        assert await shown(port) == second.serial
        holder.replace(first)
        assert await shown(port) == first.serial
        assert 0 < holder.remaining_s <= 3_600


@pytest.mark.parametrize("curve", [ec.SECP521R1(), ec.SECP256K1()])
def test_only_the_two_curves_that_every_peer_has(files, curve) -> None:
    now = dt.datetime.now(dt.UTC)
    key = ec.generate_private_key(curve)
    certificate = (
        x509.CertificateBuilder(x509.Name([]), x509.Name([]), key.public_key(), 1)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    with pytest.raises(TlsError, match="not ECDSA P-256 or P-384"):
        Certificate.from_pem(
            chain=certificate.public_bytes(Encoding.PEM),
            key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            peer_ca=files.server.peer_ca.read_bytes(),
        )


def test_a_certificate_that_is_over_is_refused(files) -> None:
    now = dt.datetime.now(dt.UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder(x509.Name([]), x509.Name([]), key.public_key(), 1)
        .not_valid_before(now - dt.timedelta(hours=2))
        .not_valid_after(now - dt.timedelta(seconds=1))
        .sign(key, hashes.SHA256())
    )
    with pytest.raises(TlsError, match="is over"):
        Certificate.from_pem(
            chain=certificate.public_bytes(Encoding.PEM),
            key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            peer_ca=files.server.peer_ca.read_bytes(),
        )
