"""docs/console.md: its commands work, its pictures are there and small."""

import re
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import pkcs12

from audit.console.settings import ConsoleSettings
from audit.settings import AuditSettings

PAGE = Path(__file__).parent.parent.parent / "docs" / "console.md"
TEXT = PAGE.read_text()
PASSWORD = b"a password"


@pytest.mark.asyncio(loop_scope="session")
async def test_the_file_to_import_signs_a_browser_in(console, chromium, tmp_path) -> None:
    """The command of the page, but for the password, which people are asked for."""
    certificate = console.certificate()
    (tmp_path / "client.pem").write_bytes(certificate.chain_pem)
    (tmp_path / "client.key").write_bytes(certificate.key_pem)
    command = re.search(r"openssl pkcs12 -export [^`]+", TEXT)[0].replace("\\\n", " ")
    command = command.replace("var/appliance/tls-auditor", str(tmp_path))
    command = command.replace("auditor.p12", str(tmp_path / "auditor.p12"))
    told = subprocess.run(
        ["bash", "-c", f"{command.strip()} -passout stdin"],
        input=PASSWORD,
        capture_output=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    raw = (tmp_path / "auditor.p12").read_bytes()
    key, read, _ = pkcs12.load_key_and_certificates(raw, PASSWORD)
    assert read.serial_number == certificate.serial
    assert key.public_key() == read.public_key()
    context = await chromium.new_context(
        ignore_https_errors=True,
        client_certificates=[{"origin": console.url, "pfx": raw, "passphrase": PASSWORD.decode()}],
    )
    page = await context.new_page()
    await page.goto(f"{console.url}/login")
    assert "/tenant/acme/auditor" in await page.inner_text("main")
    await context.close()


def test_the_pictures_are_there_and_small() -> None:
    pictures = re.findall(r"!\[[^\]]+\]\((images/[^)]+)\)", TEXT)
    assert len(pictures) == 6
    for picture in pictures:
        raw = (PAGE.parent / picture).read_bytes()
        assert raw.startswith(b"\x89PNG")
        assert len(raw) < 150_000


def test_the_settings_it_names_exist() -> None:
    assert isinstance(AuditSettings().console, ConsoleSettings)
    named = set(re.findall(r"AUDIT_CONSOLE__(?:OIDC__)?([A-Z_]+[A-Z])", TEXT))
    oidc = type(ConsoleSettings().oidc).model_fields
    known = {name.upper() for name in (*ConsoleSettings.model_fields, *oidc)}
    assert len(named) > 5
    assert named <= known
