"""The console of a running appliance: its address, its door, its login page."""

import ssl
from pathlib import Path

import httpx2
import pytest


def context(house, folder: str | None) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(Path(house.facts["auditor_tls"]) / "ca.pem"))
    if folder is not None:
        tls = Path(house.facts[folder])
        made.load_cert_chain(tls / "client.pem", tls / "client.key")
    return made


def test_the_auditor_s_certificate_opens_the_console(house) -> None:
    if house.topology == "appliance.mesh":
        assert "console" not in house.facts  # off, unless settings name a port
        return
    with httpx2.Client(verify=context(house, "auditor_tls"), trust_env=False) as client:
        reply = client.get(f"{house.facts['console']}/login")
    assert reply.status_code == 200
    assert "/tenant/demo/auditor" in reply.text
    assert "Sign in with this certificate" in reply.text


def test_without_a_certificate_nobody_gets_to_the_console(house) -> None:
    if house.topology == "appliance.mesh":
        assert "console" not in house.facts
        return
    with (
        pytest.raises((httpx2.HTTPError, ssl.SSLError, OSError)),
        httpx2.Client(verify=context(house, None), trust_env=False) as client,
    ):
        client.get(f"{house.facts['console']}/login")
