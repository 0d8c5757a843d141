"""Models signed and sealed by a real OpenBao, and what each login may do about it."""

import asyncio
import json
from pathlib import Path

import pytest

from inference.store.changing import StoreChanger
from inference.store.errors import Fault, ModelFileError
from inference.store.keys import VaultModelKeys
from inference.store.rules import Rules
from inference.store.store import ModelStore
from meshkit.contract import Reason, Refusal
from meshkit.vault import Vault, VaultRejected
from meshkit.vault_http import connected_http
from sealgate.cli import BAD_USAGE, DONE, REFUSED, main
from tests.inference.store_world import CLAIM, NAME, gguf


def keys_of(vault) -> VaultModelKeys:
    return VaultModelKeys(vault, asyncio.get_running_loop())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf())
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "models"
    path.mkdir()
    return path


def store_of(folder: Path, keys: VaultModelKeys) -> ModelStore:
    return ModelStore(folder, keys, Rules(plain_dir=folder.parent))


def read(store: ModelStore) -> bytes:
    with store.open(NAME) as opened:
        return opened.weights[0].read_bytes()


async def test_what_the_model_administrator_signs_and_seals_inference_opens(
    vault_of, folder, source
) -> None:
    async with vault_of("model-admin") as admin, vault_of("inference") as inference:
        keys = keys_of(admin)
        changer = StoreChanger(store_of(folder, keys), keys=keys)
        await asyncio.to_thread(changer.add, source, CLAIM, seal=True)
        store = store_of(folder, keys_of(inference))
        with pytest.raises(ModelFileError) as caught:
            await asyncio.to_thread(store.open, NAME)
        assert caught.value.fault is Fault.UNSIGNED
        await asyncio.to_thread(changer.sign, NAME)

        assert await asyncio.to_thread(read, store) == gguf()
        seal = folder / "store" / NAME / "1" / "sealed.json"
        told = json.loads(seal.read_text())
        seal.write_text(json.dumps(told | {"wrapped": told["wrapped"][:-4] + "AAAA"}))
        with pytest.raises(ModelFileError) as caught:
            await asyncio.to_thread(store.open, NAME)
        assert caught.value.fault is Fault.SEAL
        seal.write_text(json.dumps(told))
        assert await asyncio.to_thread(read, store) == gguf()


async def test_inference_vouches_for_nothing(vault_of, folder, source) -> None:
    async with vault_of("inference") as inference:
        keys = keys_of(inference)
        changer = StoreChanger(store_of(folder, keys), keys=keys)
        await asyncio.to_thread(changer.add, source, CLAIM)
        for change in (
            lambda: changer.sign(NAME),
            lambda: changer.seal(NAME),
            lambda: changer.add(source, CLAIM, seal=True),
        ):
            with pytest.raises(VaultRejected) as refused:
                await asyncio.to_thread(change)
            assert refused.value.forbidden


async def test_a_signature_holds_after_the_key_was_rotated(
    vault_of, estate, folder, source
) -> None:
    async with vault_of("model-admin") as admin:
        keys = keys_of(admin)
        changer = StoreChanger(store_of(folder, keys), keys=keys)
        await asyncio.to_thread(changer.add, source, CLAIM)
        await asyncio.to_thread(changer.sign, NAME)
        await estate.keys.ask("POST", "transit/keys/model-signing/rotate", {})

        assert await asyncio.to_thread(read, store_of(folder, keys)) == gguf()
        await asyncio.to_thread(changer.sign, NAME)
        text = (folder / "store" / NAME / "1" / "signature.json").read_text()
        assert json.loads(text)["version"] >= 2
        assert await asyncio.to_thread(read, store_of(folder, keys)) == gguf()


async def test_openbao_away_closes_the_store(vault_of, bao, folder, source) -> None:
    async with vault_of("model-admin") as admin:
        keys = keys_of(admin)
        changer = StoreChanger(store_of(folder, keys), keys=keys)
        await asyncio.to_thread(changer.add, source, CLAIM, seal=True)
        await asyncio.to_thread(changer.sign, NAME)
    gone = bao.vault_settings(address="https://127.0.0.1:9", attempts_max=1)
    async with vault_of("inference") as inference:
        async with connected_http(gone) as nobody:
            store = store_of(folder, keys_of(Vault(nobody, inference.token)))
            with pytest.raises(Refusal) as caught:
                await asyncio.to_thread(store.open, NAME)
        assert caught.value.reason is Reason.KEYS_DOWN
        assert await asyncio.to_thread(read, store_of(folder, keys_of(inference))) == gguf()


async def test_the_commands_log_in_as_the_model_administrator(
    bao, folder, source, tmp_path, capsys
) -> None:
    """add --sign --seal, verify, sign again: typed on the host, with what the first start left."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "openbao").symlink_to(bao.data)
    places = ("--store", str(folder), "--data", str(data), "--json")

    def typed(*words: str) -> tuple[int, dict]:
        code = main(["models", *words, *places])
        return code, json.loads(capsys.readouterr().out)

    def all_of_it() -> None:
        said = ("--name", NAME, "--licence", "MIT")
        assert typed("add", str(source), *said, "--sign", "--seal")[0] == DONE
        code, told = typed("verify")
        assert (code, told["models"][0]["holds"]) == (DONE, True)
        operator = ("--login", str(bao.data / "operator.json"))
        code, told = typed("verify", *operator)
        assert (code, told["models"][0]["signature"]) == (REFUSED, "ok")
        assert told["models"][0]["files"] != "ok", "the operator opens nothing that is sealed"
        code, told = typed("sign", NAME, *operator)
        assert (code, told["reason"]) == (REFUSED, "DENIED")
        for other in ("{}", "[]", '"x"', "no JSON", '{"role_id": "x"}'):
            (tmp_path / "other.json").write_text(other)
            code, told = typed("sign", NAME, "--login", str(tmp_path / "other.json"))
            assert (code, told["error"]) == (BAD_USAGE, "usage")
        assert typed("sign", NAME)[0] == DONE

    await asyncio.to_thread(all_of_it)
