"""The desk that carries out orders about keys goes on, whatever lies in its folder."""

import asyncio
import json
import os
import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from audit.keys import orders as key_orders
from audit.keys.orders import FOLDER, KeyDesk, order
from audit.keys.pseudonym_keys import pseudonym_keys
from meshkit.background import running
from meshkit.contract import Reason, Refusal
from meshkit.envelope import FolderWrappedKeys, keyring
from tests.audit.custody_world import KeysInMemory


@asynccontextmanager
async def desk_over(data: Path):
    service, store = KeysInMemory(), FolderWrappedKeys(data / "keys")
    async with (
        keyring(service, store) as payloads,
        pseudonym_keys(service, data / "pseudonyms", life_days=30) as naming,
    ):
        yield KeyDesk(
            vault=service,
            payloads=payloads,
            payload_keys=store,
            naming=naming,
            folder=data / FOLDER,
            every_s=0.01,
        )


@pytest_asyncio.fixture
async def desk(tmp_path):
    async with desk_over(tmp_path) as desk:
        desk.folder.mkdir()
        yield desk


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[]", b"7", b'{"what": ["held"]}', b'{"what": "look"}',
     b'{"what": "drop", "tenant": 7}', b'{"what": "drop", "tenant": "../x"}'],
)  # fmt: skip
async def test_nonsense_is_refused_and_the_next_order_is_carried_out(desk, raw) -> None:
    (desk.folder / "a.order.json").write_bytes(raw)
    async with running(desk.run(), "desk"):
        assert await order(desk.folder.parent, "held", within_s=10) is not None
    assert "refused" in json.loads((desk.folder / "a.done.json").read_bytes())
    assert list(desk.folder.glob("*.order.json")) == []


async def test_an_order_that_is_withdrawn_while_it_is_looked_at_stops_nothing(
    desk, monkeypatch
) -> None:
    real = key_orders._ordered
    monkeypatch.setattr(key_orders, "_ordered", lambda at: [at / "gone.order.json", *real(at)])
    async with running(desk.run(), "desk"):
        assert await order(desk.folder.parent, "held", within_s=10) is not None


async def test_a_full_disk_stops_it_for_a_while_only(desk, monkeypatch) -> None:
    real, failed = key_orders.write_private, asyncio.Event()

    def full(path, content):
        if path.name.endswith(".done.json") and not failed.is_set():
            failed.set()
            raise OSError(28, "no space")
        real(path, content)

    monkeypatch.setattr(key_orders, "write_private", full)
    async with running(desk.run(), "desk"):
        assert await order(desk.folder.parent, "held", within_s=10) is not None
    assert failed.is_set()


async def test_an_answer_that_nobody_came_for_is_dropped_in_the_end(desk) -> None:
    old, fresh = (desk.folder / f"{name}.done.json" for name in ("a", "b"))
    for path in (old, fresh):
        path.write_text("{}")
    os.utime(old, (time.time() - 7_200,) * 2)
    await desk.work()
    assert list(desk.folder.iterdir()) == [fresh]


async def test_a_refusal_reaches_who_ordered(desk) -> None:
    async with running(desk.run(), "desk"):
        with pytest.raises(Refusal) as caught:
            await order(desk.folder.parent, "no-such-thing", within_s=10)
    assert caught.value.reason is Reason.INVALID_FIELD
