"""The client against a real OpenBao, with hvac as the second opinion."""

import asyncio
import base64
from dataclasses import replace

import hvac
import hvac.exceptions
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from meshkit.contract import Reason
from meshkit.vault import (
    CasConflict,
    Interception,
    StaticToken,
    Vault,
    VaultDown,
    VaultRejected,
    WrappedAppRole,
    vault,
)

AAD = b"v1|demo|2026-11-21|payload"


def second_opinion(keys: Vault, bao) -> hvac.Client:
    """hvac with the same token, to be asked the same question."""
    return hvac.Client(url=bao.address, token=keys.token.value, verify=str(bao.ca))


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


# --- what both must agree on ------------------------------------------------------------------


async def test_health_and_seal_are_what_hvac_sees(audit, bao) -> None:
    theirs = second_opinion(audit, bao).sys
    health = await audit.health()

    assert health.active
    assert health.version == theirs.read_health_status(method="GET")["version"]
    assert await audit.sealed() is theirs.read_seal_status()["sealed"] is False


async def test_hvac_logs_in_with_what_the_bootstrap_gave(world) -> None:
    login = await world.login_of("audit")
    client = hvac.Client(url=world.bao.address, verify=str(world.bao.ca))

    client.auth.approle.login(login.role_id, login.secret_id)

    assert client.is_authenticated()
    assert client.auth.token.lookup_self()["data"]["policies"] == ["audit"]


async def test_what_we_write_hvac_reads_and_the_other_way_round(audit, bao) -> None:
    theirs = second_opinion(audit, bao).secrets.kv.v2
    path = "audit/checkpoint-lock"
    before = await audit.kv_get(path)
    at = before.version if before else 0

    ours = await audit.kv_put(path, {"note": "a\nb"}, cas=at)
    seen = theirs.read_secret_version(path, mount_point="kv", raise_on_deleted_version=True)
    assert seen["data"]["data"] == {"note": "a\nb"}
    assert seen["data"]["metadata"]["version"] == ours == at + 1

    theirs.create_or_update_secret(path, {"note": "c"}, cas=ours, mount_point="kv")
    entry = await audit.kv_get(path)
    assert entry is not None
    assert (dict(entry.data), entry.version) == ({"note": "c"}, ours + 1)


async def test_signatures_are_plain_ed25519(audit, bao) -> None:
    message = b"sealgate.local/log\n42\nroot\n"
    signature = await audit.sign("audit-checkpoint", message)
    public = (await audit.signing_keys("audit-checkpoint"))[signature.version].public

    Ed25519PublicKey.from_public_bytes(public).verify(signature.value, message)
    with pytest.raises(InvalidSignature):
        Ed25519PublicKey.from_public_bytes(public).verify(signature.value, message + b"!")
    theirs = second_opinion(audit, bao).secrets.transit
    assert theirs.read_key("audit-checkpoint")["data"]["keys"][str(signature.version)][
        "public_key"
    ] == b64(public)
    again = theirs.sign_data("audit-checkpoint", b64(message))["data"]["signature"]
    assert again == f"vault:v{signature.version}:{b64(signature.value)}", "Ed25519 is deterministic"


async def test_a_data_key_opens_in_hvac_too(audit, bao) -> None:
    made = await audit.datakey("t-demo", aad=AAD)
    theirs = second_opinion(audit, bao)

    reply = theirs.adapter.post(
        "/v1/transit/decrypt/t-demo", json={"ciphertext": made.wrapped, "associated_data": b64(AAD)}
    )

    assert base64.b64decode(reply["data"]["plaintext"]) == made.plaintext
    assert len(made.plaintext) == 32
    assert await audit.decrypt("t-demo", made.wrapped, aad=AAD) == made.plaintext
    assert made.plaintext.hex() not in repr(made)
    assert "plaintext" not in repr(made)


async def test_the_ca_is_the_one_hvac_reads(audit, bao) -> None:
    theirs = second_opinion(audit, bao).secrets.pki.read_ca_certificate(mount_point="pki")

    assert (await audit.ca_chain()).strip() == theirs.strip()


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "aad"), [("t-demo", b"v1|demo|2026-11-22|payload"), ("t-acme", AAD), ("t-demo", b"")]
)
async def test_a_data_key_opens_only_where_it_belongs(audit, key, aad) -> None:
    made = await audit.datakey("t-demo", aad=AAD)

    with pytest.raises(VaultRejected) as refused:
        await audit.decrypt(key, made.wrapped, aad=aad)

    assert refused.value.reason is Reason.KEYS_DOWN
    assert refused.value.status == 400


async def test_of_two_writers_one_wins(audit) -> None:
    path = "audit/checkpoint-lock"
    entry = await audit.kv_get(path)
    at = entry.version if entry else 0

    results = await asyncio.gather(
        *(audit.kv_put(path, {"writer": str(n)}, cas=at) for n in range(8)), return_exceptions=True
    )

    assert [one for one in results if one == at + 1] == [at + 1]
    assert sum(isinstance(one, CasConflict) for one in results) == 7


async def test_the_lock_cannot_be_written_without_naming_a_version(audit) -> None:
    with pytest.raises(VaultRejected):
        await audit.kv_put("audit/checkpoint-lock", {"note": "x"})


async def test_a_secret_that_is_not_there_is_none(audit) -> None:
    entry = await audit.kv_get("audit/checkpoint-lock", version=999)

    assert entry is None


async def test_a_wrapped_login_opens_once(estate, bao) -> None:
    wrapped = await estate.login("audit")
    async with vault(bao.vault_settings(), wrapped) as keys:
        assert await keys.ready()

    with pytest.raises(Interception):
        async with vault(bao.vault_settings(), wrapped):
            pass


async def test_a_wrapped_reply_from_elsewhere_is_an_alarm(estate, bao) -> None:
    wrapped = await estate.login("gateway")
    swapped = replace(wrapped, creation_path="auth/approle/role/audit/secret-id")

    with pytest.raises(Interception):
        async with vault(bao.vault_settings(), swapped):
            pass


async def test_a_wrapped_login_must_be_opened_in_time(estate, bao) -> None:
    hasty = replace(estate, settings=estate.settings.model_copy(update={"wrap_ttl_s": 1}))
    wrapped = await hasty.login("audit")
    await asyncio.sleep(1.5)

    with pytest.raises(Interception):
        async with vault(bao.vault_settings(), wrapped):
            pass


async def test_hvac_finds_a_wrapped_login_spent(estate, bao) -> None:
    wrapped = await estate.login("audit")
    assert isinstance(wrapped, WrappedAppRole)
    async with vault(bao.vault_settings(), wrapped):
        client = hvac.Client(url=bao.address, verify=str(bao.ca))
        with pytest.raises(hvac.exceptions.InvalidRequest):
            client.sys.unwrap(wrapped.wrapping_token)


async def test_new_logins_end_the_old_ones(estate, bao) -> None:
    old = await estate.admin.login("inference")
    logins = await estate.logins()

    with pytest.raises(VaultDown):
        async with vault(bao.vault_settings(), old):
            pass
    async with vault(bao.vault_settings(), logins["inference"]) as keys:
        assert await keys.ready()


async def test_a_wrong_token_is_keys_down(bao) -> None:
    async with vault(bao.vault_settings(), StaticToken("s.wrong")) as keys:
        with pytest.raises(VaultDown) as refused:
            await keys.datakey("t-demo", aad=AAD)

    assert refused.value.reason is Reason.KEYS_DOWN
    assert "wrong" not in f"{refused.value!r}"


def test_secrets_do_not_show() -> None:
    assert "s.abc" not in repr(StaticToken("s.abc"))
    assert "s.abc" not in repr(WrappedAppRole("role", "s.abc", "path"))
