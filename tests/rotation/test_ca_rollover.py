"""One CA takes over from another under load; what the old one issued is refused afterwards."""

import asyncio
import os
import sys
import time

import pytest
from cryptography import x509

from appliance.bootstrap import BootstrapSettings
from appliance.ca import Stage, advance_rollover, begin_rollover, rollover_of
from appliance.openbao_admin import Issuer
from meshkit.tls import Certificate, CertificateHolder
from meshkit.vault import VaultRejected
from tests.rotation.conftest import code_of, load_on, say_with, shown, until, wanted

SETTINGS = BootstrapSettings()
TTL_S = 6
LIMIT_S = 60
"""For what takes one renewal."""


async def test_no_call_fails_while_a_ca_takes_over(world, tmp_path) -> None:
    """Holders learn each step at their next renewal; each step comes after all have renewed."""
    admin = world.estate.admin
    async with (
        world.ends(server_ttl_s=TTL_S, client_ttl_s=TTL_S) as ends,
        load_on(ends.line) as load,
    ):
        (first,) = roots(ends.client)
        left_behind = await long_lived(ends.keys["gateway"])
        await say_with(ends.port, left_behind.channel_credentials())

        assert (await begin_rollover(admin, SETTINGS)).stage is Stage.ANNOUNCED
        await until(lambda: len(roots(ends.client)) == len(roots(ends.server)) == 2, LIMIT_S)
        assert issuer_of(ends.client) == issuer_of(ends.server) == first

        now = await advance_rollover(admin, SETTINGS, at_once=True)
        assert now.stage is Stage.SWITCHED
        await until(lambda: first not in (issuer_of(ends.client), issuer_of(ends.server)), LIMIT_S)
        files = await world.estate.issue_client("demo", "chat", tmp_path / "tls")
        assert len(x509.load_pem_x509_certificates(files.peer_ca.read_bytes())) == 2
        # What the old one issued is still good.
        by_new_and_old = left_behind.certificate.peer_ca_pem + ends.client.certificate.peer_ca_pem
        trusting = reissued(left_behind, peer_ca=by_new_and_old)
        await say_with(ends.port, trusting.channel_credentials())

        now = await advance_rollover(admin, SETTINGS, at_once=True)
        assert now.stage is Stage.SETTLED
        await until(lambda: first not in (*roots(ends.client), *roots(ends.server)), LIMIT_S)
        assert len(roots(ends.client)) == len(roots(ends.server)) == 1
        refused = await code_of(say_with(ends.port, trusting.channel_credentials()))
        await until(lambda: len(load.presented) >= 4, LIMIT_S)
        async with asyncio.timeout(LIMIT_S):
            while await shown(ends.port) != ends.server.certificate.serial:
                await asyncio.sleep(0.05)  # it was renewed just then

    assert refused == "UNAVAILABLE", "the retired CA's certificate, good by its date, is refused"
    assert load.failed == []
    assert ends.line.swaps >= 3
    (left,) = await admin.issuers()
    assert left.default


async def test_a_step_waits_until_every_certificate_of_before_is_over(world) -> None:
    admin = world.estate.admin
    longest_s = await admin.longest_certificate_s(0)
    assert longest_s >= SETTINGS.service_certificate_ttl_s

    begun = await begin_rollover(admin, SETTINGS)
    assert begun.due_s is not None
    assert begun.due_s - time.time() == pytest.approx(longest_s + 60, abs=5)
    assert await begin_rollover(admin, SETTINGS) == begun, "one at a time"
    assert await advance_rollover(admin, SETTINGS) == begun, "not due yet"

    assert begun.successor is not None
    await admin.rename_issuer(begun.successor.issuer_id, f"takes-over-at-{int(time.time()) - 1}")
    switched = await advance_rollover(admin, SETTINGS)
    assert switched.stage is Stage.SWITCHED
    assert switched.due_s is not None
    assert switched.due_s - time.time() == pytest.approx(longest_s + 60, abs=5)
    assert await advance_rollover(admin, SETTINGS) == switched, "not due yet"

    (old,) = switched.retiring
    await admin.rename_issuer(old.issuer_id, f"retires-at-{int(time.time()) - 1}")
    assert (await advance_rollover(admin, SETTINGS)).stage is Stage.SETTLED
    (left,) = await admin.issuers()
    assert left.issuer_id == begun.successor.issuer_id
    assert left.default


async def test_a_step_that_was_cut_short_is_finished_by_the_next(world) -> None:
    """The old CA renamed, the new one not yet the default."""
    admin = world.estate.admin
    await begin_rollover(admin, SETTINGS)
    (default,) = (issuer for issuer in await admin.issuers() if issuer.default)
    await admin.rename_issuer(default.issuer_id, f"retires-at-{int(time.time())}")

    assert rollover_of(await admin.issuers()).stage is Stage.ANNOUNCED
    assert (await advance_rollover(admin, SETTINGS, at_once=True)).stage is Stage.SWITCHED
    assert (await advance_rollover(admin, SETTINGS, at_once=True)).stage is Stage.SETTLED
    assert default.issuer_id not in [issuer.issuer_id for issuer in await admin.issuers()]


def test_a_ca_that_somebody_else_brought_is_left_alone() -> None:
    brought = Issuer("1", "corporate", "k1", default=False)

    assert rollover_of([brought, Issuer("2", "root", "k2", default=True)]).stage is Stage.SETTLED


async def test_the_command_says_where_things_are(world) -> None:
    environment = {**os.environ, "APPLIANCE_DATA_DIR": str(world.bao.data.parent)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "appliance.ca", "state",
        env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    said, _ = await process.communicate()

    assert (process.returncode, said) == (0, b"settled\n")


@pytest.mark.parametrize("service", ["gateway", "compliance", "cache", "inference", "audit"])
async def test_a_service_can_move_no_ca(world, service) -> None:
    (root, *_) = await world.estate.admin.issuers()
    attempts = [
        ("POST", "pki/root/generate/internal"),
        ("POST", "pki/root/rotate/internal"),
        ("POST", "pki/config/issuers"),
        ("POST", f"pki/issuer/{root.issuer_id}"),
        ("POST", f"pki/issuer/{root.issuer_id}/revoke"),
        ("DELETE", f"pki/issuer/{root.issuer_id}"),
        ("DELETE", f"pki/key/{root.key_id}"),
        ("POST", f"pki/roles/service.{service}"),
        ("POST", f"pki/sign/service.{service}"),
    ]
    async with world.vault_of(service) as keys:
        for method, path in attempts:
            with pytest.raises(VaultRejected) as refused:
                await keys.ask(method, path, {} if method == "POST" else None)
            assert refused.value.status == 403, path


async def test_the_operator_cannot_sign_with_the_ca_but_by_a_role(world) -> None:
    (root, *_) = await world.estate.admin.issuers()
    paths = [
        "pki/root/sign-intermediate",
        "pki/root/generate/exported",
        "pki/sign-verbatim",
        f"pki/issuer/{root.issuer_id}/sign-verbatim",
    ]
    for path in paths:
        with pytest.raises(VaultRejected) as refused:
            await world.estate.keys.ask("POST", path, {})
        assert refused.value.status == 403, path


def roots(holder) -> list[bytes]:
    """The key ids of those that a holder's peers may come from."""
    certificates = x509.load_pem_x509_certificates(holder.certificate.peer_ca_pem)
    kind = x509.SubjectKeyIdentifier
    return [one.extensions.get_extension_for_class(kind).value.digest for one in certificates]


def issuer_of(holder) -> bytes:
    leaf = x509.load_pem_x509_certificates(holder.certificate.chain_pem)[0]
    kind = x509.AuthorityKeyIdentifier
    return leaf.extensions.get_extension_for_class(kind).value.key_identifier


async def long_lived(keys) -> CertificateHolder:
    """A gateway's certificate that outlasts the whole test."""
    asked = wanted("gateway", 600)
    made = await keys.issue(asked.role, uri_sans=(asked.spiffe_id,), ttl_s=600)
    return CertificateHolder(
        Certificate.from_pem(
            chain=made.chain_pem.encode(),
            key=made.private_key_pem.encode(),
            peer_ca=made.ca_pem.encode(),
        )
    )


def reissued(holder: CertificateHolder, *, peer_ca: bytes) -> CertificateHolder:
    """The same certificate, believing others."""
    held = holder.certificate
    return CertificateHolder(
        Certificate.from_pem(chain=held.chain_pem, key=held.key_pem, peer_ca=peer_ca)
    )
