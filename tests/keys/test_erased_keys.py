"""A wrapped key that was erased does not come back: beside rewrapping, and after crashes."""

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from meshkit import wrapped_keys
from meshkit.sealing import new_key_id
from meshkit.wrapped_keys import FolderWrappedKeys, WrappedKey

DAY = 20_000


def key_of(tenant="acme"):
    return WrappedKey(new_key_id(DAY), tenant, "audit-payload", "vault:v1:x")


def files_below(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("by_day", [False, True], ids=["key", "day"])
async def test_an_erasure_waits_for_a_replacement_and_takes_what_it_wrote(
    tmp_path, monkeypatch, by_day
) -> None:
    """Each has its own object over the folder, as rewrapping and erasing have in the service."""
    rewrapping, erasing, key = FolderWrappedKeys(tmp_path), FolderWrappedKeys(tmp_path), key_of()
    await erasing.put(key)
    seen, go_on = threading.Event(), threading.Event()
    real = wrapped_keys.write_private

    def slow(path, content, **rest):
        seen.set()
        assert go_on.wait(10)
        real(path, content, **rest)

    monkeypatch.setattr(wrapped_keys, "write_private", slow)
    with ThreadPoolExecutor(2) as pool:
        replaced = pool.submit(rewrapping._replace, key, "vault:v2:y")
        assert await asyncio.to_thread(seen.wait, 10)  # it has looked: the key is there
        if by_day:
            erased = pool.submit(erasing._drop, "acme", DAY)
        else:
            erased = pool.submit(erasing._drop_keys, "acme", [key.key_id])
        with pytest.raises(TimeoutError):
            erased.result(0.05)
        go_on.set()
        assert replaced.result(10)
        assert erased.result(10) == 1

    assert await erasing.get("acme", key.key_id) is None
    assert files_below(tmp_path) == []


async def test_what_a_crash_left_beside_a_key_goes_with_it(tmp_path) -> None:
    store, key, other = FolderWrappedKeys(tmp_path), key_of(), key_of()
    await store.put(key)
    await store.put(other)
    file = tmp_path / "acme" / str(DAY) / f"{key.key_id.hex()}.json"
    for pid in (7, os.getpid()):
        file.with_name(f".{file.name}.{pid}.new").write_text('{"wrapped": "vault:v2:y"}')
    others = file.with_name(f".{other.key_id.hex()}.json.7.new")
    others.write_text("{}")

    assert await store.drop_keys("acme", [key.key_id]) == 1

    assert others in files_below(tmp_path)
    assert not [path for path in files_below(tmp_path) if key.key_id.hex() in path.name]
    assert await store.keys("acme") == [other]
    await store.drop_keys("acme", [other.key_id])
    assert files_below(tmp_path) == []


async def test_a_day_without_keys_loses_what_a_crash_left_of_one(tmp_path) -> None:
    store, folder = FolderWrappedKeys(tmp_path), tmp_path / "acme" / str(DAY)
    folder.mkdir(parents=True)
    (folder / ".ab.json.7.new").write_text("{}")

    assert await store.drop("acme", DAY) == 0

    assert files_below(tmp_path) == []


async def test_making_a_key_and_erasing_the_last_one_do_not_meet(tmp_path) -> None:
    """Erasing takes an empty folder away: never from under a key that is being written."""
    store = FolderWrappedKeys(tmp_path)

    async def round_trip():
        key = key_of()
        await store.put(key)
        assert await store.drop_keys("acme", [key.key_id]) == 1

    async def many():
        for _ in range(15):
            await round_trip()

    await asyncio.gather(*(many() for _ in range(4)))
    assert await store.keys("acme") == []
