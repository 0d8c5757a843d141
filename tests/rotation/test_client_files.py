"""A tenant's certificate on disk, renewed while programs read it."""

import asyncio
import stat
import time
from types import SimpleNamespace

import pytest
from cryptography import x509

from appliance.bootstrap import BootstrapSettings, prepared
from meshkit import tls
from meshkit.counters import gauges
from meshkit.files import replace_together
from meshkit.tls import Tls
from tests.rotation.conftest import World, say_with, until

TTL_S = 6


async def test_whoever_reads_the_files_finds_a_pair_that_is_good(bao, tmp_path) -> None:
    settings = BootstrapSettings(client_certificate_ttl_s=TTL_S)
    folder = tmp_path / "tls"
    serials: list[int] = []
    async with prepared(bao, settings) as estate:
        world = World(bao, estate)
        async with (
            world.ends(server_ttl_s=60, client_ttl_s=60) as ends,
            estate.kept_client("demo", "files", folder) as files,
        ):
            until_s = time.monotonic() + 40
            left_at_renewal: list[float] = []
            held = files.load()
            while time.monotonic() < until_s and len(serials) < 2:
                read = files.load()
                if read.serial != held.serial:
                    renewed_s = files.cert_chain.stat().st_mtime
                    left_at_renewal.append(held.not_after_s - renewed_s)
                    serials.append(held.serial)
                held = read
                await say_with(ends.port, files.client_credentials())
                await asyncio.sleep(0.02)
            assert gauges()["tls.remaining_s.tenant.demo.files"] > 0

    assert len(set(serials)) == 2
    assert all(0.1 * TTL_S < left < 0.45 * TTL_S for left in left_at_renewal), left_at_renewal
    assert sorted(path.name for path in folder.iterdir()) == ["ca.pem", "client.key", "client.pem"]
    assert stat.S_IMODE(files.private_key.stat().st_mode) == 0o600


async def test_the_files_bring_both_roots_while_a_ca_takes_over(bao, tmp_path) -> None:
    from appliance.ca import advance_rollover, begin_rollover

    settings = BootstrapSettings(client_certificate_ttl_s=3)
    async with (
        prepared(bao, settings) as estate,
        estate.kept_client("demo", "files", tmp_path) as files,
    ):
        assert roots_in(files) == 1
        await begin_rollover(estate.admin, settings)
        await until(lambda: roots_in(files) == 2, 60)
        for _ in range(2):
            await advance_rollover(estate.admin, settings, at_once=True)
        await until(lambda: roots_in(files) == 1, 60)
        (root,) = x509.load_pem_x509_certificates(files.peer_ca.read_bytes())
        leaf = x509.load_pem_x509_certificates(files.cert_chain.read_bytes())[0]
        leaf.verify_directly_issued_by(root)


def roots_in(files: Tls) -> int:
    return len(x509.load_pem_x509_certificates(files.peer_ca.read_bytes()))


def test_files_that_belong_together_are_replaced_all_or_none(tmp_path, monkeypatch) -> None:
    """The disk is full at the second of two: the first stays what it was."""
    from meshkit import files

    replace_together(tmp_path, {"a": (b"old", 0o600), "b": (b"old", 0o644)})
    synced = 0

    def full(_handle: int) -> None:
        nonlocal synced
        synced += 1
        if synced == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_together(tmp_path, {"a": (b"new", 0o600), "b": (b"new", 0o644)})

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "a": b"old",
        "b": b"old",
    }
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"] == [0o600, 0o644]


async def test_a_reader_who_meets_half_a_replacement_reads_again(
    world, tmp_path, monkeypatch
) -> None:
    first = await world.estate.issue_client("demo", "files", tmp_path / "1")
    second = await world.estate.issue_client("demo", "files", tmp_path / "2")
    first.private_key.write_bytes(second.private_key.read_bytes())
    met: list[float] = []

    def rest(seconds: float) -> None:
        met.append(seconds)
        replace_together(tmp_path / "1", {"client.pem": (second.cert_chain.read_bytes(), 0o644)})

    monkeypatch.setattr(tls, "time", SimpleNamespace(sleep=rest, time=time.time))
    assert first.load().serial == second.load().serial
    assert len(met) == 1
