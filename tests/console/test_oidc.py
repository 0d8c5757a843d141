"""Signing in at a provider: the way that works, and every way in which it must not."""

import asyncio
import json
import re
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from audit.console.gate import COOKIE
from tests.console.provider import CLIENT, SECRET, providing
from tests.console.world import Authority, a_call, client_context, house

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def both(tmp_path_factory):
    """A provider, and a console that believes it."""
    folder = tmp_path_factory.mktemp("oidc")
    authority = Authority()
    (folder / "ca.pem").write_bytes(authority.pem)
    (folder / "secret").write_text(f"{SECRET}\n")
    async with providing(authority) as provider:
        oidc = {
            "issuer": provider.url,
            "client_id": CLIENT,
            "client_secret_file": folder / "secret",
            "ca_file": folder / "ca.pem",
        }
        async with house(folder / "house", authority=authority, oidc=oidc) as running:
            await a_call(running.log)
            await running.published()
            yield provider, running


@pytest.fixture
def provider(both):
    told = both[0]
    yield told
    told.claims, told.metadata, told.algorithm = {}, {}, "ES256"
    told.signs_with, told.down, told.drips = None, False, False


async def left(client, path="/login/oidc"):
    """Leave for the provider; return where it sends the browser back to."""
    reply = await client.get(path)
    assert reply.status_code == 303, reply.text
    assert "SameSite=Lax" in reply.headers["set-cookie"]
    async with httpx2.AsyncClient(verify=client._context, trust_env=False) as browser:
        back = await browser.get(reply.headers["location"])
    assert back.status_code == 302
    return back.headers["location"]


@pytest_asyncio.fixture(loop_scope="session")
async def client(both):
    running = both[1]
    async with running.client() as client:
        client._context = client_context(running.authority)
        yield client


async def test_a_person_signs_in_reads_and_is_recorded_by_pseudonym(both, provider, client) -> None:
    running = both[1]
    reply = await client.get(await left(client, "/login/oidc?next=/verdicts"))
    assert reply.status_code == 200
    assert "url=/verdicts" in reply.text
    asked = provider.asked[-1]
    assert asked["code_challenge_method"] == "S256"
    assert asked["response_type"] == "code"
    page = await client.get("/")
    assert page.status_code == 200
    assert "ada@example.org" in page.text  # it is themselves
    event = (await running.recorded("console.login"))[-1]
    assert len(event["user"]) == 32
    assert "ada@example.org" not in json.dumps(event)


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"aud": "another-client"},
        {"aud": ["audit-console", "another"]},
        {"azp": "another-client"},
        {"iss": "https://evil.example"},
        {"exp": 1_000_000_000},
        {"exp": None},
        {"exp": "4000000000"},
        {"exp": float("inf")},
        {"exp": True},
        {"nonce": "\ud800"},
        {"iat": None},
        {"nbf": 4_000_000_000},
        {"sub": None},
        {"sub": "a\nb"},
        {"tenant": None},
        {"tenant": "../globex"},
        {"tenant": ["acme"]},
        {"roles": "auditor"},
    ],
    ids=lambda claims: "-".join(f"{name}={value}" for name, value in claims.items())[:40],
)
async def test_a_token_that_is_not_right_signs_nobody_in(both, provider, client, claims) -> None:
    provider.claims = claims
    reply = await client.get(await left(client))
    assert reply.status_code == 401
    assert COOKIE not in reply.cookies


@pytest.mark.parametrize("what", ["discovery", "token"])
async def test_a_provider_that_drips_is_down(both, provider, client, what, monkeypatch) -> None:
    """Each piece comes in time, and the whole never would."""
    back = await left(client) if what == "token" else "/login/oidc"
    oidc = both[1].oidc
    monkeypatch.setattr(oidc, "_provider", oidc._provider if what == "token" else None)
    monkeypatch.setattr("meshkit.jwks.WHOLE_MS", 300)
    monkeypatch.setattr("audit.console.oidc._TIMEOUT_S", 0.3)
    provider.drips = True
    async with asyncio.timeout(30):
        assert (await client.get(back)).status_code == 503


async def test_roles_that_the_tenant_does_not_give_do_not_count(both, provider, client) -> None:
    provider.claims = {"roles": ["model_admin", "application"]}
    reply = await client.get(await left(client))
    assert reply.status_code == 403
    provider.claims = {"tenant": "globex"}  # which lets its people be nothing
    assert (await client.get(await left(client))).status_code == 403
    provider.claims = {"tenant": "unheard-of"}
    assert (await client.get(await left(client))).status_code == 403


async def test_none_other_keys_and_shared_secrets_are_no_signature(both, provider, client) -> None:
    provider.algorithm = "none"
    assert (await client.get(await left(client))).status_code == 401
    provider.algorithm = "ES256"
    provider.signs_with = ec.generate_private_key(ec.SECP256R1())
    assert (await client.get(await left(client))).status_code == 401
    # The public key as an HMAC secret: the oldest of tricks.
    public = provider.key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    provider.algorithm, provider.signs_with = "HS256", public
    assert (await client.get(await left(client))).status_code == 401


async def test_keys_that_were_changed_are_read_again(both, provider, client) -> None:
    provider.key, provider.kid = ec.generate_private_key(ec.SECP256R1()), "k2"
    assert (await client.get(await left(client))).status_code == 200


@pytest.mark.parametrize("wrong", ["state", "iss", "code", "no code", "twice", "other browser"])
async def test_a_way_back_that_does_not_fit_signs_nobody_in(both, provider, client, wrong) -> None:
    back = await left(client)
    asked = {name: values[0] for name, values in parse_qs(urlsplit(back).query).items()}
    if wrong == "twice":
        assert (await client.get(back)).status_code == 200
    if wrong in {"state", "iss", "code"}:
        asked[wrong] = "x" * 43
    if wrong == "no code":
        del asked["code"]
        asked["error"] = "<script>alert(1)</script>"
    if wrong == "other browser":
        client.cookies.clear()
    reply = await client.get("/login/oidc/back", params=asked)
    assert reply.status_code == 401
    assert "<script" not in reply.text


async def test_a_way_back_counts_once_though_the_provider_would_go_on(
    both, provider, client
) -> None:
    back = await left(client)
    cookie = client.headers.get("Cookie") or "; ".join(
        f"{name}={value}" for name, value in client.cookies.items()
    )
    assert (await client.get(back)).status_code == 200
    provider.codes["code-again"] = provider.asked[-1]
    again = re.sub(r"code=[^&]+", "code=code-again", back)
    client.cookies.clear()
    reply = await client.get(again, headers={"Cookie": cookie})
    assert reply.status_code == 401


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example"},
        {"token_endpoint": "http://localhost/token"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"jwks_uri": 7},
    ],
)
async def test_a_provider_that_is_another_or_speaks_in_the_clear_is_not_asked(
    both, provider, client, metadata
) -> None:
    running = both[1]
    provider.metadata = metadata
    async with _forgetful(running):
        assert (await client.get("/login/oidc")).status_code == 503
    provider.metadata, provider.down = {}, True
    async with _forgetful(running):
        assert (await client.get("/login/oidc")).status_code == 503


@asynccontextmanager
async def _forgetful(running):
    """Have the console forget what it knows of its provider."""
    kept, running.oidc._provider = running.oidc._provider, None
    yield
    running.oidc._provider = kept


@pytest.mark.parametrize("there", ["//evil.example", "https://evil.example/", "/\\evil.example"])
async def test_a_provider_s_way_back_leads_nowhere_else(both, provider, client, there) -> None:
    back = await left(client, f"/login/oidc?next={there}")
    assert 'content="0;url=/"' in (await client.get(back)).text
