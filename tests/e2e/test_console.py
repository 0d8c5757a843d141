"""The console of a running appliance: its address, its door, its login page."""

import asyncio
import re
import ssl
from pathlib import Path

import httpx2
import pytest

from tests.e2e.conftest import MODEL


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


async def test_spans_of_a_call_reach_the_waterfall(house) -> None:
    if house.topology == "appliance.mesh":
        assert "console" not in house.facts
        return
    async with house.client() as client:
        result = await client.chat("Say zebrafish.", model=MODEL, max_tokens=4, no_cache=True)
    call = result.receipt.call_id.hex()
    async with httpx2.AsyncClient(
        base_url=house.facts["console"], verify=context(house, "auditor_tls"), trust_env=False
    ) as browser:
        login = (await browser.get("/login")).text
        form = {"csrf": re.search(r'name="csrf" value="([^"]+)"', login)[1], "next": "/"}
        assert (await browser.post("/login/certificate", data=form)).status_code == 303
        async with asyncio.timeout(60):
            while "· generate" not in (shown := (await browser.get(f"/calls/{call}")).text):
                await asyncio.sleep(0.2)
    rows = re.findall(r'<th scope="row" class="depth(\d)">([^<]+)', shown)
    assert rows[0][0] == "0"
    assert rows[0][1].endswith("· released")  # out of the record
    spans = {label.strip(): depth for depth, label in rows if label.startswith("appliance ·")}
    assert spans["appliance · generate"] == spans["appliance · screen"]
    assert "zebrafish" not in shown.lower()
