"""Each service may do its work, and nothing of a neighbour's."""

import pytest

from meshkit.vault import Vault, VaultRejected

AAD = b"v1|demo|2026-11-21|payload"


async def sign(keys: Vault) -> None:
    await keys.sign("audit-checkpoint", b"note")


async def datakey(keys: Vault) -> None:
    await keys.datakey("t-demo", aad=AAD)


async def unwrap(keys: Vault) -> None:
    await keys.ask("POST", "transit/decrypt/t-demo", {"ciphertext": "vault:v1:AAAA"})


async def screening_key(keys: Vault) -> None:
    await keys.secret("screening-mac")


async def cache_key(keys: Vault) -> None:
    await keys.secret("cache-keys")


async def token_key(keys: Vault) -> None:
    await keys.secret("token-keys")


async def pseudonym_key(keys: Vault) -> None:
    await keys.secret("pseudonym-key")


async def lock(keys: Vault) -> None:
    await keys.kv_get("audit/checkpoint-lock")


async def own_certificate(keys: Vault, service: str) -> None:
    await keys.issue(
        f"service.{service}", uri_sans=(f"spiffe://sealgate.local/service/{service}",), ttl_s=60
    )


ALLOWED = {
    "gateway": set(),
    "compliance": {screening_key, token_key},
    "inference": {screening_key},
    "cache": {screening_key, cache_key, datakey, unwrap},
    "audit": {sign, datakey, unwrap, pseudonym_key, lock},
}
ALL = (sign, datakey, unwrap, screening_key, cache_key, token_key, pseudonym_key, lock)


async def status_of(action, keys: Vault) -> int:
    try:
        await action(keys)
    except VaultRejected as refused:
        return refused.status or 0
    return 200


@pytest.mark.parametrize("service", ALLOWED)
async def test_a_service_may_do_its_own_work_only(vault_of, service) -> None:
    async with vault_of(service) as keys:
        statuses = {action.__name__: await status_of(action, keys) for action in ALL}

    allowed = {name for name, status in statuses.items() if status != 403}
    assert allowed == {action.__name__ for action in ALLOWED[service]}


@pytest.mark.parametrize("service", ALLOWED)
async def test_a_service_is_issued_its_own_name_only(vault_of, service) -> None:
    async with vault_of(service) as keys:
        await own_certificate(keys, service)
        for other in set(ALLOWED) - {service}:
            with pytest.raises(VaultRejected) as refused:
                await own_certificate(keys, other)
            assert refused.value.status == 403


@pytest.mark.parametrize(
    "uri",
    [
        "spiffe://elsewhere.example/service/gateway",
        "spiffe://sealgate.local/service/audit",
        "spiffe://sealgate.local/service/gateway/../audit",
        "spiffe://sealgate.local/tenant/demo/chat",
    ],
)
async def test_a_role_issues_one_exact_name(vault_of, uri) -> None:
    async with vault_of("gateway") as keys:
        with pytest.raises(VaultRejected) as refused:
            await keys.issue("service.gateway", uri_sans=(uri,), ttl_s=60)

    assert refused.value.status == 400


@pytest.mark.parametrize(
    "action", [sign, datakey, unwrap, screening_key, cache_key, token_key, lock]
)
async def test_the_operator_has_no_use_of_the_keys(estate, action) -> None:
    assert await status_of(action, estate.keys) == 403


async def test_no_encryption_makes_a_key_on_the_way(estate, audit) -> None:
    upsert = await estate.keys.ask("GET", "transit/config/keys")

    assert upsert.data["disable_upsert"] is True
    with pytest.raises(VaultRejected):
        await audit.datakey("t-nobody", aad=AAD)


async def test_keys_never_leave(estate) -> None:
    for name in ("audit-checkpoint", "t-demo"):
        key = (await estate.keys.ask("GET", f"transit/keys/{name}")).data
        assert (key["exportable"], key["deletion_allowed"]) == (False, False)
        assert key["allow_plaintext_backup"] is False


async def test_a_rotated_secret_keeps_the_version_before(estate, vault_of) -> None:
    async with vault_of("compliance") as keys:
        before = await keys.secret("screening-mac")
        version = await estate.rotate_secret("screening-mac")
        after = await keys.secret("screening-mac")

    assert after.current == version == before.current + 1
    assert set(after.values) == {version, version - 1}
    assert after.values[version - 1] == before.values[before.current]
    assert after.values[version] != after.values[version - 1]
    assert "b'" not in repr(after)


BEYOND = (
    ("GET", "sys/mounts"),
    ("POST", "sys/mounts/other"),
    ("POST", "sys/auth/userpass"),
    ("POST", "sys/policies/acl/{service}"),
    ("GET", "sys/policies/acl/{service}"),
    ("POST", "sys/seal"),
    ("POST", "sys/capabilities-self"),
    ("GET", "auth/approle/role/{service}/role-id"),
    ("POST", "auth/approle/role/{service}/secret-id"),
    ("POST", "auth/token/create"),
    ("POST", "transit/keys/t-new"),
    ("POST", "transit/keys/t-demo/config"),
    ("POST", "transit/keys/t-demo/rotate"),
    ("DELETE", "transit/keys/t-demo"),
    ("GET", "transit/backup/t-demo"),
    ("GET", "transit/export/encryption-key/t-demo"),
    ("POST", "transit/encrypt/t-demo"),
    ("POST", "transit/sign/t-demo"),
    ("POST", "kv/data/screening-mac"),
    ("POST", "kv/data/pseudonym-key"),
    ("DELETE", "kv/data/audit/checkpoint-lock"),
    ("DELETE", "kv/metadata/audit/checkpoint-lock"),
    ("LIST", "kv/metadata/"),
    ("POST", "pki/issue/tenant.demo.assistant"),
    ("POST", "pki/roles/service.{service}"),
    ("POST", "pki/revoke"),
    ("POST", "cubbyhole/x"),
)


@pytest.mark.parametrize("service", ALLOWED)
async def test_a_service_may_do_nothing_beyond(vault_of, service) -> None:
    """Not administer, not prolong its own powers, not use a key in another way than its work."""
    async with vault_of(service) as keys:
        allowed = []
        for method, path in BEYOND:
            try:
                where = path.format(service=service)
                await keys.ask(method, where, {} if method == "POST" else None, maybe=True)
                allowed.append(where)
            except VaultRejected as refused:
                if refused.status != 403:
                    allowed.append(where)
    assert allowed == []
