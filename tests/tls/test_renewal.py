"""A server whose certificate OpenBao renews while it serves."""

import asyncio
import os
import signal

from appliance.bootstrap import BootstrapSettings, prepared
from appliance.openbao import OpenBaoSettings, openbao
from meshkit.counters import counters
from meshkit.tls_renewal import WantedCertificate, renewed_certificate
from meshkit.vault import vault

WANTED = WantedCertificate(
    role="service.gateway",
    spiffe_id="spiffe://sealgate.local/service/gateway",
    dns_names=("localhost",),
    ip_addresses=("127.0.0.1",),
    ttl_s=5,
    retry_s=0.1,
)


async def test_a_certificate_is_renewed_under_a_running_server(kit, tmp_path) -> None:
    """Calls go on over several lives of a 5 s certificate, and OpenBao's end is noticed."""
    async with openbao(OpenBaoSettings(data=tmp_path / "bao")) as bao:
        async with prepared(bao, BootstrapSettings()) as estate:
            login = await estate.admin.login("gateway")
            client = await estate.issue_client("demo", "chat", tmp_path / "client")
        async with (
            vault(bao.vault_settings(attempts_max=1), login) as keys,
            renewed_certificate(keys, WANTED) as holder,
            kit.serving(holder.server_credentials()) as port,
        ):
            serials = set()
            async with asyncio.timeout(60):
                while len(serials) < 3:
                    assert (await kit.say(port, client.client_credentials()))[-1] == "hello"
                    serials.add(holder.certificate.serial)
                    await asyncio.sleep(0.3)
            assert holder.remaining_s > 0

            os.kill(bao.pid, signal.SIGKILL)
            await failed_again()
            last = holder.certificate.serial
            await failed_again()
            assert holder.certificate.serial == last, "the old one stays"


async def failed_again():
    """Wait until another renewal has failed."""
    before = counters().get("tls.renewal_failed", 0)
    async with asyncio.timeout(60):
        while counters().get("tls.renewal_failed", 0) == before:
            await asyncio.sleep(0.02)
