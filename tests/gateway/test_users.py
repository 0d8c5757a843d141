"""Tokens: what is believed, and every way in which one is not."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import ssl
import tempfile
import time
from contextlib import asynccontextmanager

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from gateway.settings import UserSettings
from gateway.users import JwksInvalid, Users, parse_jwks, users
from meshkit.contract import Phase, Reason, Refusal
from meshkit.counters import counters
from tests.gateway.conftest import chat, until
from tests.gateway.test_failures import refused

ISSUER = "https://idp.example"
THUMB = hashlib.sha256(b"certificate").digest()
RSA = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
KEYS = {"r": (RSA, "RS256"), "e": (EC, "ES256"), "d": (ED, "EdDSA")}


def jwk(kid, key, **rest):
    kind = {"r": RSAAlgorithm, "e": ECAlgorithm, "d": OKPAlgorithm}.get(kid[0], RSAAlgorithm)
    return kind.to_jwk(key.public_key(), as_dict=True) | {"kid": kid, "use": "sig"} | rest


def jwks(*keys):
    keys = keys or [jwk(kid, key) for kid, (key, _) in KEYS.items()]
    return json.dumps({"keys": list(keys)}).encode()


def claims(**rest):
    now = int(time.time())
    return {
        "iss": ISSUER,
        "aud": "sealgate",
        "sub": "ada",
        "tenant": "demo",
        "roles": ["data_scientist"],
        "nbf": now - 60,
        "exp": now + 600,
    } | rest


def token(kid="e", *, key=None, algorithm=None, header=None, **rest):
    own, own_algorithm = KEYS[kid]
    made = {k: v for k, v in claims(**rest).items() if v is not None}
    headers = {"kid": kid} | (header or {})
    return jwt.encode(made, key or own, algorithm or own_algorithm, headers=headers)


@pytest.fixture
def verifier(tmp_path):
    settings = UserSettings(issuer=ISSUER, jwks_file=tmp_path / "unused")
    return Users(settings, parse_jwks(jwks()))


async def verify(verifier, given, tenant="demo", thumbprint=THUMB):
    return await verifier.verify(given, tenant=tenant, thumbprint=thumbprint)


@pytest.mark.parametrize("kid", KEYS)
async def test_each_algorithm_of_the_list_is_believed(verifier, kid) -> None:
    user = await verify(verifier, token(kid))

    assert (user.subject, user.roles) == ("ada", {"data_scientist"})


def none_token():
    head = base64.urlsafe_b64encode(b'{"alg":"none","kid":"e"}').rstrip(b"=")
    body = base64.urlsafe_b64encode(json.dumps(claims()).encode()).rstrip(b"=")
    return (head + b"." + body + b".").decode()


def hmac_token():
    """The classic: HS256 with the public key's PEM as the secret."""
    pem = RSA.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"alg": "HS256", "kid": "r"}, claims())
    ]
    signed = b".".join(parts)
    mac = base64.urlsafe_b64encode(hmac.digest(pem, signed, "sha256")).rstrip(b"=")
    return (signed + b"." + mac).decode()


def nested(depth):
    """A parser that recurses would rather fall over than answer."""
    deep = b'{"alg":"ES256","kid":"e","x":' + b"[" * depth + b"]" * depth + b"}"
    head = base64.urlsafe_b64encode(deep).rstrip(b"=").decode()
    return f"{head}.{token().split('.', 1)[1]}"


def tampered():
    head, _, signature = token().split(".")
    other = base64.urlsafe_b64encode(json.dumps(claims(sub="eve")).encode()).rstrip(b"=").decode()
    return f"{head}.{other}.{signature}"


def thumb(raw):
    return {"x5t#S256": base64.urlsafe_b64encode(raw).rstrip(b"=").decode()}


BAD = {
    "alg none": none_token,
    "HS256 with the public key": hmac_token,
    "RS512": lambda: token("r", algorithm="RS512"),
    "PS256": lambda: token("r", algorithm="PS256"),
    "claims swapped": tampered,
    "signed by another key": lambda: token(key=ec.generate_private_key(ec.SECP256R1())),
    "another key of the set": lambda: token(header={"kid": "d"}),
    "kid unknown": lambda: token(header={"kid": "unheard-of"}),
    "no kid": lambda: jwt.encode(claims(), EC, "ES256"),
    "wrong tenant": lambda: token(tenant="other"),
    "no tenant": lambda: token(tenant=None),
    "expired": lambda: token(exp=int(time.time()) - 30),
    "no exp": lambda: token(exp=None),
    "not yet": lambda: token(nbf=int(time.time()) + 60),
    "wrong issuer": lambda: token(iss="https://idp.example.evil"),
    "no issuer": lambda: token(iss=None),
    "wrong audience": lambda: token(aud="other"),
    "no audience": lambda: token(aud=None),
    "no subject": lambda: token(sub=None),
    "subject with a space": lambda: token(sub="ada lovelace"),
    "subject with a line end": lambda: token(sub="ada\n"),
    "roles no list": lambda: token(roles="model_admin"),
    "roles not strings": lambda: token(roles=[1]),
    "bound to another certificate": lambda: token(cnf=thumb(b"x" * 32)),
    "bound in a way we cannot check": lambda: token(cnf={"jkt": "abc"}),
    "binding is no object": lambda: token(cnf="abc"),
    "not ASCII": lambda: "é" * 20,
    "no token": lambda: "-",
    "header nested too deeply": lambda: nested(2_000),
    "too long": lambda: token(filler="x" * 9_000),
}


@pytest.mark.parametrize("made", BAD.values(), ids=BAD)
async def test_whatever_is_wrong_with_it_it_is_not_believed(verifier, made) -> None:
    with pytest.raises(Refusal) as caught:
        await verify(verifier, made())

    assert caught.value.reason is Reason.UNAUTHENTICATED


async def test_a_bound_token_is_believed_from_its_certificate_only(verifier) -> None:
    bound = token(cnf=thumb(THUMB))

    assert (await verify(verifier, bound)).subject == "ada"
    with pytest.raises(Refusal):
        await verify(verifier, bound, thumbprint=b"y" * 32)


async def test_what_is_remembered_is_remembered_for_its_tenant_until_it_ends(verifier) -> None:
    now = [time.time()]
    verifier.clock = lambda: now[0]
    given = token()
    first = await verify(verifier, given)

    assert await verify(verifier, given) is first
    with pytest.raises(Refusal):
        await verify(verifier, given, tenant="other")
    now[0] += 601
    assert await verify(verifier, given) is not first  # asked again: the library's clock decides


async def test_another_key_set_forgets_what_the_old_one_vouched_for(verifier) -> None:
    given = token("e")
    await verify(verifier, given)
    verifier.replace_keys(parse_jwks(jwks(jwk("d", ED))))

    with pytest.raises(Refusal):
        await verify(verifier, given)


async def test_the_memory_is_bounded(tmp_path) -> None:
    settings = UserSettings(issuer=ISSUER, jwks_file=tmp_path / "unused", memo_max=3)
    small = Users(settings, parse_jwks(jwks()))
    for n in range(10):
        await verify(small, token("d", jti=str(n)))

    assert len(small._memo) <= 3


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b'{"keys": {}}',
        b'{"keys": []}',
        jwks({"kty": "oct", "k": "c2VjcmV0", "kid": "h"}),
        jwks(jwk("e", EC), jwk("e", EC)),
        jwks(jwk("r", rsa.generate_private_key(public_exponent=65_537, key_size=1_024))),
        jwks(jwk("e", ec.generate_private_key(ec.SECP384R1()))),
        jwks(jwk("e", EC, use="enc")),
        jwks(jwk("e", EC, alg="HS256")),
        jwks({"kty": "EC", "crv": "P-256", "kid": "e", "x": "AA", "y": "AA"}),
    ],
)
def test_a_set_without_a_usable_key_is_refused(raw) -> None:
    with pytest.raises(JwksInvalid):
        parse_jwks(raw)


async def test_a_file_that_changes_is_read_again_and_a_bad_one_is_not_taken(tmp_path) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks(jwk("e", EC)))
    settings = UserSettings(issuer=ISSUER, jwks_file=path, jwks_every_s=0.02)
    async with users(settings) as verifier:
        with pytest.raises(Refusal):
            await verify(verifier, token("d"))
        refused = counters().get("users.jwks_refused", 0)
        path.write_bytes(b"garbage")
        await until(lambda: counters().get("users.jwks_refused", 0) > refused)
        assert (await verify(verifier, token("e"))).subject == "ada"
        path.write_bytes(jwks())
        await until(lambda: "d" in verifier.keys)
        assert (await verify(verifier, token("d"))).subject == "ada"


@pytest.mark.parametrize(
    "given",
    [
        {"issuer": ISSUER},
        {"issuer": ISSUER, "jwks_file": "f", "jwks_url": "https://idp.example/keys"},
        {"issuer": ISSUER, "jwks_url": "http://idp.example/keys"},
    ],
)
def test_keys_come_from_one_place_and_never_in_the_clear(given) -> None:
    with pytest.raises(ValueError, match="jwks"):
        UserSettings(**given)


# --- at the door -------------------------------------------------------------------------------


@pytest.fixture
def believing(start, tmp_path):
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks())
    return lambda **rest: start(users={"issuer": ISSUER, "jwks_file": path}, **rest)


async def test_a_user_is_named_in_the_record_and_has_a_cache_of_its_own(believing) -> None:
    async with believing() as house, house.caller() as stub:
        bearer = (("authorization", f"Bearer {token()}"),)
        await stub.Chat(chat(), metadata=bearer)
        await stub.Chat(chat())

        first, second = house.audit.of(Phase.OUTCOME)
        assert (first.actor.user, first.actor.roles) == ("ada", {"data_scientist"})
        assert (second.actor.user, second.actor.roles) == (None, {"application"})
        assert [event.cache_tier for event in (first, second)] == ["miss", "miss"]


@pytest.mark.parametrize("header", ["Bearer x", "Basic x", "Bearer", ""])
async def test_a_token_that_cannot_be_believed_is_never_as_none(believing, header) -> None:
    async with believing() as house, house.caller() as stub:
        refusal, _ = await refused(stub.Chat(chat(), metadata=(("authorization", header),)))

        assert refusal.reason is Reason.UNAUTHENTICATED
        assert house.audit.outcomes == ["UNAUTHENTICATED"]


async def test_where_there_are_no_users_a_token_is_refused(start) -> None:
    async with start() as house, house.caller() as stub:
        bearer = (("authorization", f"Bearer {token()}"),)
        refusal, _ = await refused(stub.Chat(chat(), metadata=bearer))

        assert refusal.reason is Reason.UNAUTHENTICATED


async def test_a_role_the_tenant_does_not_allow_is_no_role(believing) -> None:
    async with believing() as house, house.caller() as stub:
        bearer = (("authorization", f"Bearer {token(roles=['model_admin'])}"),)
        refusal, _ = await refused(stub.Chat(chat(), metadata=bearer))

        assert refusal.reason is Reason.DENIED


async def test_a_stream_ends_with_its_token(believing) -> None:
    async with believing() as house, house.caller() as stub:
        house.inference.endless, house.inference.token_s = True, 0.01
        bearer = (("authorization", f"Bearer {token(exp=int(time.time()) + 2)}"),)
        request = chat(parameters={"max_tokens": 4_000})
        refusal, _ = await refused(stub.Chat(request, metadata=bearer, timeout=20))

        assert refusal.reason is Reason.UNAUTHENTICATED
        assert refusal.receipt is not None
        assert house.inference.running == 0


@asynccontextmanager
async def key_server(authority, body, status="200 OK", more=()):
    """Serve one answer over https, as often as it is asked for."""

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *more]
        writer.write("\r\n".join([*head, "", ""]).encode() + body)
        await writer.drain()
        writer.close()

    certificate = authority.issue("spiffe://sealgate.local/service/idp")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as chain:
        chain.write(certificate.chain_pem + certificate.key_pem)
        chain.flush()
        context.load_cert_chain(chain.name)
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}/keys"


@pytest.fixture
def ca_file(authority, tmp_path):
    path = tmp_path / "ca.pem"
    path.write_bytes(authority.pem)
    return path


async def test_keys_come_by_https_too(authority, ca_file) -> None:
    async with key_server(authority, jwks()) as url:
        settings = UserSettings(issuer=ISSUER, jwks_url=url, jwks_ca_file=ca_file)
        async with users(settings) as verifier:
            assert (await verify(verifier, token())).subject == "ada"


@pytest.mark.parametrize(
    ("body", "status", "more"),
    [
        (jwks(), "500 Internal Server Error", ()),
        (b"", "302 Found", ("Location: https://localhost:1/keys",)),
        (jwks() + b" " * 300_000, "200 OK", ()),
    ],
    ids=["error", "redirect", "too long"],
)
async def test_nothing_but_a_plain_answer_is_taken(authority, ca_file, body, status, more) -> None:
    async with key_server(authority, body, status, more) as url:
        settings = UserSettings(issuer=ISSUER, jwks_url=url, jwks_ca_file=ca_file)
        with pytest.raises((JwksInvalid, httpx2.HTTPError)):
            await users(settings).__aenter__()


async def test_a_server_nobody_vouches_for_is_not_asked(authority) -> None:
    async with key_server(authority, jwks()) as url:
        with pytest.raises(httpx2.HTTPError):
            await users(UserSettings(issuer=ISSUER, jwks_url=url)).__aenter__()
