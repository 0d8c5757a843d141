"""The restore drill of docs/backup.md on a whole appliance with a real OpenBao.

Calls; a backup under load; more calls; the data folder is lost; restored, refused, filled from the
mirror; old and late calls are there again, payloads open, new calls work.
"""

import asyncio
import json
import shutil
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import pytest

from appliance.age import Identity
from appliance.backup import BackupOrder, Made, create
from appliance.backup_check import pieces_of, verify
from appliance.backup_restore import RestoreOrder, restore
from appliance.house import appliance
from appliance.recovering import fill, stopped
from appliance.settings import ApplianceSettings
from audit.mirror.objects import StorePlace
from inference.engines.null import NullEngine
from meshkit.contract import Reason, Refusal
from meshkit.tlog import bundle_path, decode_bundle, parse_checkpoint
from sealgate import AsyncAuditReader, AsyncClient, SealgateError
from sealgate.cli import main as cli
from sealgate.receipts import receipt_to_json

MODEL = "null"


@pytest.fixture
def environment(tmp_path, monkeypatch):
    settings = {
        "AUDIT_MIRROR_URL": str(tmp_path / "mirror"),
        "AUDIT_MIRROR_INTERVAL_MS": "100",
        "AUDIT_PUBLISH_INTERVAL_MS": "50",
        "GATEWAY_TELEMETRY__METRICS_PORT": "0",
        "GATEWAY_SERVING__LAME_DUCK_MS": "0",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)


def settings_of(data):
    ports = {f"{name}_port": 0 for name in ("gateway", "audit", "console")}
    return ApplianceSettings(data_dir=data, console=False, **ports)


@asynccontextmanager
async def running(data):
    """The appliance over `data`: a client, a reader, and the log's verifier key."""
    async with appliance(settings_of(data), engine=NullEngine("an answer", name=MODEL)) as house:
        vkey = (data / "audit" / "vkey").read_text().strip()
        async with (
            AsyncClient.from_folder(f"localhost:{house.port}", house.tls, vkey=vkey) as client,
            AsyncAuditReader.from_folder(
                f"localhost:{house.audit_port}", house.auditor_tls, vkey=vkey
            ) as reader,
        ):
            yield client, reader, vkey


async def asked(client, count, said):
    answers = [await client.chat(f"{said} {n}", model=MODEL, max_tokens=8) for n in range(count)]
    return [answer.receipt for answer in answers]


async def published(data, index):
    async with asyncio.timeout(30):
        while size_of(data) <= index:
            await asyncio.sleep(0.02)


def size_of(data):
    return parse_checkpoint((data / "audit" / "log" / "checkpoint").read_text()).size


@asynccontextmanager
async def load(client):
    """Calls that go on meanwhile; those that were answered, with their receipts."""
    receipts = []

    async def keep_asking(number):
        while True:
            receipts.extend(await asked(client, 1, f"load {number} {len(receipts)}"))

    tasks = [asyncio.create_task(keep_asking(number)) for number in range(4)]
    yield receipts
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError, SealgateError):
            await task


async def test_a_lost_appliance_comes_back_from_backup_and_mirror(
    tmp_path, environment, capsys
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    lived = await a_life(data, out)
    assert lived.seal_key not in (out / lived.made.name).read_bytes()
    assert lived.during, "the backup was made under load"

    shutil.rmtree(data)  # the disaster
    await restored(data, out, lived)
    log = ["--log", str(data / "audit" / "log"), "--vkey", lived.vkey]
    assert cli(["backup", "receipts", *written(tmp_path, lived.before), *log]) == 0
    assert cli(["backup", "receipts", *written(tmp_path, lived.late), *log]) == 1
    assert capsys.readouterr().out.count("PROMISED") == len(lived.late)

    with pytest.raises(Refusal) as refused:  # lock and log are of one moment: the mirror is not
        async with running(data):
            pass
    assert refused.value.reason is Reason.EVIDENCE_LOST

    async with stopped(settings_of(data)) as found:
        recovered = await fill(found, StorePlace(url=str(tmp_path / "mirror")))
    assert recovered.size > recovered.found >= lived.made.size

    after = await a_second_life(data, lived)
    said = actions(data)
    assert said.index("backup.make") < said.index("backup.restore") < said.index("log.recovery")
    everything = [*lived.before, *lived.during, *lived.late, *after]
    assert cli(["backup", "receipts", *written(tmp_path, everything), *log]) == 0
    assert cli(["audit", "verify", *log]) == 0


@dataclass(frozen=True)
class Life:
    """What is left of an appliance in other hands: the backup, its keys, and receipts."""

    key: Identity
    made: Made
    vkey: str
    seal_key: bytes
    before: list
    during: list
    late: list


async def a_life(data, out):
    """Calls; a backup while others go on; calls that only the mirror will know."""
    key = Identity.generate()
    async with running(data) as (client, _, vkey):
        before = await asked(client, 5, "before")
        await published(data, before[-1].index)
        async with load(client) as during:
            made = await create(BackupOrder(data=data, out=str(out), recipients=[key.recipient]))
        late = await asked(client, 5, "late")
    seal_key = (data / "openbao" / "seal.key").read_bytes()
    return Life(key, made, vkey, seal_key, before, during, late)


async def restored(data, out, lived):
    """The backup verifies, and is restored in full."""
    backup = str(out / lived.made.name)
    assert verify(pieces_of(backup), lived.key, vkey=lived.vkey).size == lived.made.size
    order = RestoreOrder(
        pieces=pieces_of(backup),
        opener=lived.key,
        into=data,
        seal_key=lived.seal_key,
        vkey=lived.vkey,
    )
    assert (await restore(order)).size == lived.made.size


async def a_second_life(data, lived):
    """The same log: it knows the calls of the first life, and goes on behind them."""
    async with running(data) as (client, reader, vkey):
        assert vkey == lived.vkey
        some = (lived.before[0], lived.during[0], lived.late[-1])  # reads are limited, and recorded
        for receipt in some:
            records = await reader.records(call_id=receipt.call_id)
            assert records[-1].index == receipt.index
        after = await asked(client, 2, "after")
    assert min(receipt.index for receipt in after) > max(receipt.index for receipt in lived.late)
    return after


def written(folder, receipts):
    paths = [folder / f"receipt-{receipt.index}.json" for receipt in receipts]
    for path, receipt in zip(paths, receipts, strict=True):
        path.write_text(json.dumps(receipt_to_json(receipt)))
    return [str(path) for path in paths]


def actions(data):
    """What the log's NOTEs are about, in their order."""
    log, size, found = data / "audit" / "log", size_of(data), []
    for at in range(0, size, 256):
        width = min(256, size - at)
        leaves = decode_bundle((log / bundle_path(at // 256, width)).read_bytes(), width)
        found += [json.loads(leaf)["event"]["action"] for leaf in leaves]
    return [action for action in found if "." in action]
