"""What the bootstrap hands out."""

import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID
from pydantic import ValidationError

from appliance.bootstrap import SERVICES, BootstrapSettings
from appliance.openbao_admin import policy_text
from meshkit.vault import vault

ROOT = Path(__file__).parents[2]


def names_of(leaf: x509.Certificate) -> x509.SubjectAlternativeName:
    return leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def usages_of(leaf: x509.Certificate) -> set[x509.ObjectIdentifier]:
    return set(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


async def test_a_clients_files(estate, tmp_path) -> None:
    files = await estate.issue_client("demo", "chat", tmp_path / "tls")

    assert sorted(path.name for path in (tmp_path / "tls").iterdir()) == [
        "ca.pem",
        "client.key",
        "client.pem",
    ]
    assert stat.S_IMODE(files.private_key.stat().st_mode) == 0o600
    (leaf,) = x509.load_pem_x509_certificates(files.cert_chain.read_bytes())
    (root,) = x509.load_pem_x509_certificates(files.peer_ca.read_bytes())
    leaf.verify_directly_issued_by(root)
    uris = names_of(leaf).get_values_for_type(x509.UniformResourceIdentifier)
    assert uris == ["spiffe://sealgate.local/tenant/demo/chat"]
    assert len(list(names_of(leaf))) == 1
    assert usages_of(leaf) == {ExtendedKeyUsageOID.CLIENT_AUTH}, "it can never be a server"
    key = load_pem_private_key(files.private_key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp256r1"


async def test_a_services_files(estate, tmp_path) -> None:
    files = await estate.issue_service("audit", tmp_path)
    (leaf,) = x509.load_pem_x509_certificates(files.cert_chain.read_bytes())
    names = names_of(leaf)

    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        "spiffe://sealgate.local/service/audit"
    ]
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    assert usages_of(leaf) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert (leaf.not_valid_after_utc - leaf.not_valid_before_utc).total_seconds() <= 3_700


async def test_two_workloads_never_share_a_role(estate, tmp_path) -> None:
    """Tenant `a-b` with workload `c`, and tenant `a` with workload `b-c`."""
    await estate.issue_client("a-b", "c", tmp_path / "1")
    await estate.issue_client("a", "b-c", tmp_path / "2")
    first = (await estate.keys.ask("GET", "pki/roles/tenant.a-b.c")).data
    second = (await estate.keys.ask("GET", "pki/roles/tenant.a.b-c")).data

    assert first["allowed_uri_sans"] == ["spiffe://sealgate.local/tenant/a-b/c"]
    assert second["allowed_uri_sans"] == ["spiffe://sealgate.local/tenant/a/b-c"]


@pytest.mark.parametrize("name", ["", "A", "..", "a/b", "a.b", "a*", "a" * 64])
async def test_names_that_no_id_could_bear_are_refused(estate, tmp_path, name) -> None:
    with pytest.raises(ValueError, match="label"):
        await estate.issue_client(name, "chat", tmp_path)
    with pytest.raises(ValueError, match="label"):
        await estate.issue_client("demo", name, tmp_path)
    with pytest.raises(ValueError, match="label"):
        await estate.add_tenant(name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "bad", [{"trust_domain": "Sealgate.local"}, {"trust_domain": "a/b"}, {"tenants": ("a/b",)}]
)
def test_settings_that_no_id_could_bear_are_refused(bad) -> None:
    with pytest.raises(ValidationError):
        BootstrapSettings(**bad)


async def test_every_service_gets_a_login_that_works(estate, bao) -> None:
    logins = await estate.logins()

    assert set(logins) == set(SERVICES)
    for login in logins.values():
        async with vault(bao.vault_settings(), login) as keys:
            token = (await keys.look_up_self()).data
            assert token["policies"] == [token["meta"]["role_name"]]
            assert token["bound_cidrs"] == ["127.0.0.1/32"] or token["bound_cidrs"] == ["127.0.0.1"]


async def test_a_new_tenant_gets_a_key_once(estate, audit) -> None:
    await estate.add_tenant("newcomer")
    made = await audit.datakey("t-newcomer", aad=b"x")
    await estate.add_tenant("newcomer")

    assert await audit.decrypt("t-newcomer", made.wrapped, aad=b"x") == made.plaintext


@pytest.mark.parametrize("name", [*SERVICES, "operator", "keyholder", "model-admin"])
def test_policies_name_what_they_allow(name) -> None:
    """No policy reaches everything, and only the operator may use sudo."""
    text = policy_text(name)

    assert 'path "*"' not in text
    assert 'path "sys/*"' not in text
    assert ("sudo" in text) is (name == "operator")
    assert text.count('path "') >= 4


@pytest.mark.slow
def test_an_installed_wheel_has_the_policies(tmp_path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT / "appliance", source / "appliance")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--wheel-dir", str(tmp_path), str(source)],
        check=True, timeout=120, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("sealgate-*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())

    wanted = {
        f"appliance/openbao_policies/{name}.hcl"
        for name in (*SERVICES, "operator", "keyholder", "model-admin")
    }
    assert wanted <= held
