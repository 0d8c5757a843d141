"""A publisher's signature, made by OpenSSF's own tool, holds for those files and no others.

openssf/model.sig is of `a_folder`, made by model-signing 1.1.1:

    model_signing sign key m --private_key k.pem --signature model.sig
"""

import base64
import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from inference.store.errors import Fault, ModelFileError
from inference.store.manifest import FileDigest
from inference.store.openssf import Published
from tests.inference.store_world import CLAIM, a_folder, world_in

HERE = Path(__file__).parent / "openssf"
PUBLISHED = Published((HERE / "model.sig").read_bytes(), (HERE / "publisher.pem").read_bytes())


@pytest.fixture
def files(tmp_path: Path) -> list[FileDigest]:
    return [
        FileDigest(path.name, sha256(path.read_bytes()).hexdigest(), path.stat().st_size)
        for path in a_folder(tmp_path / "from").iterdir()
    ]


def pem(key) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def refused(published: Published, files: list[FileDigest]) -> bool:
    with pytest.raises(ModelFileError) as caught:
        published.must_cover(files)
    return caught.value.fault is Fault.PUBLISHER


def test_what_openssf_s_tool_signed_holds(files) -> None:
    PUBLISHED.must_cover(files)


def test_it_holds_for_all_of_these_files_and_no_others(files) -> None:
    assert refused(PUBLISHED, files[1:])
    assert refused(PUBLISHED, [*files, FileDigest("more.json", "ab" * 32, 1)])
    assert refused(PUBLISHED, [replace(files[0], sha256="ab" * 32), *files[1:]])
    assert refused(PUBLISHED, [replace(files[0], path="other"), *files[1:]])


def test_another_s_key_is_not_the_publisher_s(files) -> None:
    for key in (
        pem(ec.generate_private_key(ec.SECP256R1())),
        pem(ec.generate_private_key(ec.SECP384R1())),
        pem(ed25519.Ed25519PrivateKey.generate()),
        b"",
    ):
        assert refused(replace(PUBLISHED, public_key_pem=key), files)


def test_a_bundle_that_was_changed_does_not_hold(files) -> None:
    told = json.loads(PUBLISHED.bundle)
    payload = base64.b64decode(told["dsseEnvelope"]["payload"])
    other = payload.replace(files[0].sha256.encode(), b"ab" * 32)
    assert other != payload
    for change in (
        {"payload": base64.b64encode(other).decode()},
        {"payloadType": "text/plain"},
        {"signatures": []},
        {"signatures": told["dsseEnvelope"]["signatures"] * 2},
        {"signatures": [{"sig": "AAAA"}]},
        {"payload": 7},
    ):
        envelope = told["dsseEnvelope"] | change
        bundle = json.dumps(told | {"dsseEnvelope": envelope}).encode()
        assert refused(replace(PUBLISHED, bundle=bundle), files)
    for junk in (b"", b"[]", b"{}", b"[" * 100_000):
        assert refused(replace(PUBLISHED, bundle=junk), files)


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"predicateType": "https://model_signing/Digests/v0.1"},
        {"predicate": {"serialization": {"method": "shards", "hash_type": "sha256"}}},
        {"predicate": {"serialization": {"method": "files", "hash_type": "blake3"}}},
    ],
)
def test_only_whole_files_by_sha_256_are_understood(files, curve, change) -> None:
    told = json.loads(base64.b64decode(json.loads(PUBLISHED.bundle)["dsseEnvelope"]["payload"]))
    predicate = told["predicate"] | change.get("predicate", {})
    payload = json.dumps(told | change | {"predicate": predicate}).encode()
    kind = "application/vnd.in-toto+json"
    signed = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    key = ec.generate_private_key(curve)
    names = {256: "SHA256", 384: "SHA384", 521: "SHA512"}
    algorithm = getattr(hashes, names[curve.key_size])()
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": kind,
        "signatures": [{"sig": base64.b64encode(key.sign(signed, ec.ECDSA(algorithm))).decode()}],
    }
    made = Published(json.dumps({"dsseEnvelope": envelope}).encode(), pem(key))

    if change:
        assert refused(made, files)
    else:
        made.must_cover(files)


def test_a_model_is_added_only_if_its_publisher_s_signature_holds(tmp_path) -> None:
    world = world_in(tmp_path)
    source = a_folder(tmp_path / "from")
    claim = replace(CLAIM, context_tokens=None)

    assert world.changer().add(source, claim, published=PUBLISHED).version == "1"
    (source / "LICENSE").write_text("Take nothing.\n")
    with pytest.raises(ModelFileError) as caught:
        world.changer().add(source, claim, published=PUBLISHED)
    assert caught.value.fault is Fault.PUBLISHER
