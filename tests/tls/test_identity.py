"""SPIFFE ids have one spelling, and a connection is TLS 1.3 or nobody's."""

from dataclasses import dataclass

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from meshkit.contract import Connection, Reason, Refusal
from meshkit.identity import (
    ServiceIdentity,
    TenantIdentity,
    connection_of,
    identity_of,
    is_trust_domain,
    parse_spiffe_id,
    peer_ip,
)

TD = "sealgate.local"
labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
modest = settings(max_examples=100, deadline=None)


@dataclass
class Peer:
    facts: dict[str, list[bytes]]
    name: str = "ipv4:192.0.2.7:50514"

    def auth_context(self) -> dict[str, list[bytes]]:
        return self.facts

    def peer(self) -> str:
        return self.name


@modest
@given(labels, labels)
def test_an_id_is_read_as_it_is_written(tenant, workload) -> None:
    caller = TenantIdentity(TD, tenant, workload)
    service = ServiceIdentity(TD, workload)

    assert parse_spiffe_id(caller.spiffe_id, trust_domain=TD) == caller
    assert parse_spiffe_id(service.spiffe_id, trust_domain=TD) == service


@modest
@given(labels, labels, st.text(max_size=4), st.data())
def test_there_is_one_spelling(tenant, workload, noise, data) -> None:
    """Put anything anywhere: it is refused, or it is an id and spelt just so."""
    honest = TenantIdentity(TD, tenant, workload).spiffe_id
    at = data.draw(st.integers(0, len(honest)), label="at")
    text = honest[:at] + noise + honest[at:]
    try:
        identity = parse_spiffe_id(text, trust_domain=TD)
    except Refusal:
        assume(noise)
    else:
        assert identity.spiffe_id == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "spiffe://",
        f"spiffe://{TD}",
        f"spiffe://{TD}/",
        f"spiffe://{TD}/tenant",
        f"spiffe://{TD}/tenant/demo",
        f"spiffe://{TD}/tenant/demo/",
        f"spiffe://{TD}/tenant//chat",
        f"spiffe://{TD}//tenant/demo/chat",
        f"spiffe://{TD}/tenant/demo/chat/",
        f"spiffe://{TD}/tenant/demo/chat/x",
        f"spiffe://{TD}/tenant/../chat",
        f"spiffe://{TD}/tenant/./chat",
        f"spiffe://{TD}/tenant/demo/..",
        f"spiffe://{TD}/service/..",
        f"spiffe://{TD}/service/gateway/",
        f"spiffe://{TD}/service/gateway/../audit",
        f"spiffe://{TD}/service/gateway?x",
        f"spiffe://{TD}/service/gateway#x",
        f"spiffe://{TD}/service/gate%77ay",
        f"spiffe://{TD}/Service/gateway",
        f"spiffe://{TD}/service/Gateway",
        f"spiffe://{TD}/service/gate_way",
        f"spiffe://{TD}/service/-gateway",
        f"spiffe://{TD}/service/gateway-",
        f"spiffe://{TD}/service/gateway\n",
        f"spiffe://{TD}/service/{'a' * 64}",
        f"spiffe://{TD}:443/service/gateway",
        f"spiffe://user@{TD}/service/gateway",
        f"SPIFFE://{TD}/service/gateway",
        f"spiffe://{TD.upper()}/service/gateway",
        f"spiffe://{TD}./service/gateway",
        f"spiffe://x{TD}/service/gateway",
        f"spiffe://{TD}.x/service/gateway",
        "spiffe://elsewhere.example/service/gateway",
        f"https://{TD}/service/gateway",
        f"spiffe:/{TD}/service/gateway",
        f"{TD}/service/gateway",
        "service/gateway",
        "tenant/demo/chat",
        f" spiffe://{TD}/service/gateway",
        f"spiffe://{TD}/service/gatew\u0430y",
    ],
)
def test_any_other_spelling_is_refused(text) -> None:
    with pytest.raises(Refusal) as refused:
        parse_spiffe_id(text, trust_domain=TD)

    assert refused.value.reason is Reason.UNAUTHENTICATED
    assert str(refused.value) == "UNAUTHENTICATED", "nothing of a stranger's text"


@pytest.mark.parametrize(
    "uris",
    [
        [],
        [b"spiffe://sealgate.local/service/a", b"spiffe://sealgate.local/service/b"],
        [b"spiffe://sealgate.local/service/a\xff"],
        [b"spiffe://sealgate.local/service/" + b"a" * 3_000],
    ],
)
def test_a_certificate_bears_one_uri(uris) -> None:
    with pytest.raises(Refusal):
        identity_of(Peer({"peer_uri": uris}), trust_domain=TD)


def test_no_certificate_is_nobody() -> None:
    with pytest.raises(Refusal):
        identity_of(Peer({}), trust_domain=TD)


@pytest.mark.parametrize(
    "domain", ["", ".", "a..b", "A", "a_b", "a.b.", "x" * 64, "a." * 130 + "a"]
)
def test_a_malformed_trust_domain_admits_nobody(domain) -> None:
    assert not is_trust_domain(domain)
    with pytest.raises(Refusal):
        parse_spiffe_id(f"spiffe://{domain}/service/gateway", trust_domain=domain)


@pytest.mark.parametrize(
    "versions", [[], [b""], [b"TLSv1.2"], [b"TLSv1.3", b"TLSv1.2"], [b"tlsv1.3"]]
)
def test_only_tls13_is_a_connection(versions) -> None:
    with pytest.raises(Refusal) as refused:
        connection_of(Peer({"ssl_tls_version": versions}))

    assert refused.value.reason is Reason.UNAUTHENTICATED


def test_a_connection_is_told_for_the_record() -> None:
    facts = {"ssl_tls_version": [b"TLSv1.3"]}
    group = {"ssl_negotiated_key_exchange_group": [b"X25519MLKEM768"]}

    assert connection_of(Peer(facts | group)) == Connection(
        tls_version="TLSv1.3", key_exchange_group="X25519MLKEM768", peer_ip="192.0.2.7"
    )
    assert connection_of(Peer(facts, "unix:/x")).peer_ip == ""


@pytest.mark.parametrize(
    ("peer", "ip"),
    [
        ("ipv4:127.0.0.1:50514", "127.0.0.1"),
        ("ipv6:%5B2001:db8::1%5D:50514", "2001:db8::1"),
        ("ipv6:[::1]:50514", "::1"),
        ("unix:/run/x", ""),
        ("ipv4:evil:1", ""),
        ("", ""),
    ],
)
def test_where_a_peer_is(peer, ip) -> None:
    assert peer_ip(peer) == ip
