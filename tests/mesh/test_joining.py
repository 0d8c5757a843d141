"""How a service gets in: a login that works once, a certificate of its own, keys that rotate."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.bootstrap import BootstrapSettings, prepared
from appliance.openbao import OpenBaoSettings, openbao
from cache.main import CacheServer
from meshkit.contract import Stage
from meshkit.member import Joining, joined
from meshkit.screening_keys import SECRET, Watching, watched_screening_keys
from meshkit.vault import Interception, VaultRejected
from tests.mesh.conftest import DOMAIN, service_id

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def bao_data(tmp_path_factory):
    return tmp_path_factory.mktemp("openbao")


@pytest.fixture
async def world(bao_data):
    """A real OpenBao, and its operator."""
    async with (
        openbao(OpenBaoSettings(data=bao_data)) as bao,
        prepared(bao, BootstrapSettings()) as estate,
    ):
        yield bao, estate


def settings_of(bao, login, folder):
    (folder / "role_id").write_text(f"{login.role_id}\n")
    (folder / "wrapped").write_text(login.wrapping_token)
    return CacheServer(
        join=Joining(
            openbao=bao.vault_settings(),
            role_id_file=folder / "role_id",
            wrapped_secret_id_file=folder / "wrapped",
            certificate_ttl_s=60,
        ),
        port=0,
    )


async def test_a_service_joins_with_its_own_name_and_spends_its_login(world, tmp_path):
    bao, estate = world
    login = await estate.login("cache")
    settings = settings_of(bao, login, tmp_path)

    async with joined("cache", settings) as member:
        chain = member.certificate.certificate.chain_pem.decode()
        assert 50 < member.certificate.remaining_s <= 60
        assert (await member.keys.secret("cache-keys")).newest
        assert not (tmp_path / "wrapped").exists()

    assert service_id("cache") in _sans(chain)


def _sans(pem):
    from cryptography import x509

    names = x509.load_pem_x509_certificate(pem.encode()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    return names.value.get_values_for_type(x509.UniformResourceIdentifier)


async def test_a_login_that_somebody_opened_first_is_an_alarm(world, tmp_path):
    bao, estate = world
    login = await estate.login("cache")
    settings = settings_of(bao, login, tmp_path)
    async with joined("cache", settings):
        pass
    settings = settings_of(bao, login, tmp_path)

    with pytest.raises(Interception):
        async with joined("cache", settings):
            pass


async def test_a_login_made_for_another_service_is_a_swap(world, tmp_path):
    bao, estate = world
    settings = settings_of(bao, await estate.login("inference"), tmp_path)

    with pytest.raises(Interception):
        async with joined("cache", settings):
            pass


async def test_a_service_gets_no_other_services_keys(world, tmp_path):
    bao, estate = world
    settings = settings_of(bao, await estate.login("compliance"), tmp_path)

    async with joined("compliance", settings) as member:
        with pytest.raises(VaultRejected):
            await member.keys.secret("cache-keys")
        with pytest.raises(VaultRejected):
            await member.keys.issue("service.gateway", uri_sans=(service_id("gateway"),), ttl_s=60)


async def test_a_rotated_key_verifies_before_it_tags(world, tmp_path):
    """So a tag never arrives before its key: whoever tags waits until all have read it."""
    bao, estate = world
    settings = settings_of(bao, await estate.login("compliance"), tmp_path)
    quick = Watching(every_s=0.05, settle_s=2.0)
    async with (
        joined("compliance", settings) as member,
        watched_screening_keys(member.keys, quick) as keys,
    ):
        (first, _) = keys().current()
        fresh = await estate.rotate_secret(SECRET)
        await until(lambda: verifies(keys(), fresh))

        assert keys().current()[0] == first
        await until(lambda: keys().current()[0] == fresh)
        assert verifies(keys(), first)


def verifies(keys, version):
    return version in keys._keys


async def until(holds, seconds=30.0):
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)


async def test_what_was_read_serves_on_while_openbao_is_away(world, tmp_path):
    bao, estate = world
    settings = settings_of(bao, await estate.login("compliance"), tmp_path)
    async with (
        joined("compliance", settings) as member,
        watched_screening_keys(member.keys, Watching(every_s=0.05, settle_s=0.1)) as keys,
    ):
        os.kill(bao.pid, 9)
        await asyncio.sleep(0.3)

        version, tag = keys().tag(
            stage=Stage.SCREENED, text_digest=b"", policy_digest=b"", tenant="", call_id=b""
        )
        assert len(tag) == 32
        assert version == keys().current()[0]


def test_keys_must_settle_longer_than_they_take_to_be_read():
    with pytest.raises(ValueError, match="settle_s"):
        Watching(every_s=10, settle_s=15)


@pytest.mark.parametrize("service", ["gateway", "compliance", "cache", "inference", "audit"])
def test_a_service_that_cannot_join_says_why_and_names_no_value(service, tmp_path):
    prefix = service.upper()
    secret = tmp_path / "wrapped"
    secret.write_text("s.canary0123456789")
    told = start(
        service,
        {
            f"{prefix}_JOIN__OPENBAO__CA": str(tmp_path / "missing.pem"),
            f"{prefix}_JOIN__ROLE_ID_FILE": str(secret),
            f"{prefix}_JOIN__WRAPPED_SECRET_ID_FILE": str(secret),
        },
    )

    assert told.returncode == 1
    assert "Cannot start: " in told.stderr
    assert "Traceback" not in told.stderr
    assert "canary" not in told.stderr


def test_a_misspelt_setting_is_refused(tmp_path):
    told = start(
        "cache",
        {
            "CACHE_JOIN__OPENBAO__CA": "ca.pem",
            "CACHE_JOIN__ROLE_ID_FILE": "a",
            "CACHE_JOIN__WRAPPED_SECRET_ID_FILE": "b",
            "CACHE_L1_BYTE_MAX": "7",
        },
    )

    assert told.returncode == 1
    assert "CACHE_L1_BYTE_MAX" in told.stderr


def test_there_is_no_mode_without_certificates():
    told = start("inference", {})

    assert told.returncode == 1
    assert "join" in told.stderr


def start(service, settings):
    return subprocess.run(
        [sys.executable, "-m", f"{service}.main"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **settings},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_trust_domain_is_one():
    assert BootstrapSettings().trust_domain == DOMAIN
