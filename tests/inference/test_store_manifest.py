"""A manifest says one thing, in one way, of files that cannot lead anywhere else."""

import json
from contextlib import suppress
from dataclasses import fields, replace
from hashlib import sha256
from pathlib import PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.store.errors import Fault, ModelFileError
from inference.store.manifest import SCHEMA, FileDigest, Manifest, is_name, is_path, is_version
from inference.store.store import packaged_manifests

SOUND = Manifest(
    name="acme-chat",
    version="1",
    files=(FileDigest("model.gguf", "ab" * 32, 7), FileDigest("a/config.json", "cd" * 32, 0)),
    format="gguf",
    precision="Q4_1",
    context_tokens=64,
    licence="Apache-2.0",
    source="here",
    languages=("en", "zh-Hans"),
    intended_use="Tests.",
)
CHANGED = {
    "name": "acme-chat-2",
    "version": "2",
    "files": SOUND.files[:1],
    "format": "safetensors",
    "precision": "bf16",
    "kind": "embedding",
    "base": "ab" * 32,
    "architecture": "llama",
    "context_tokens": 65,
    "licence": "MIT",
    "source": "there",
    "languages": ("en",),
    "intended_use": "None.",
    "risk_class": "high",
    "classification": "restricted",
    "template_sha256": "ef" * 32,
    "tokenizer_sha256": "ef" * 32,
    "default_system": "Be kind.",
}


def told(**changes: object) -> bytes:
    return json.dumps(json.loads(SOUND.canonical()) | changes).encode()


def test_the_digest_is_of_the_canonical_form() -> None:
    text = SOUND.canonical()

    assert json.loads(text)["schema"] == SCHEMA == "sealgate/model/v3"
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":")).encode()
    assert SOUND.digest == sha256(text).digest()
    assert Manifest.parse(json.dumps(json.loads(text), indent=2).encode()) == SOUND


def test_each_field_is_in_the_digest() -> None:
    assert set(CHANGED) == {field.name for field in fields(Manifest)}
    digests = {replace(SOUND, **{name: value}).digest for name, value in CHANGED.items()}
    assert len(digests | {SOUND.digest}) == len(CHANGED) + 1


def test_packaged_manifests_are_sound() -> None:
    found = packaged_manifests()

    assert "smollm2-135m-instruct" in {one.name for one in found}
    for one in found:
        assert Manifest.parse(one.canonical()) == one
        assert one.weights
        assert one.licence


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        told(schema="sealgate/model/v2"),
        told(other=1),
        told(name="../x"),
        told(name="Upper"),
        told(name=""),
        told(name="a" * 65),
        told(version="../1"),
        told(version=""),
        told(version=1),
        told(files=[]),
        told(files={}),
        told(files=[{"path": "a.gguf"}]),
        told(files=[{"path": "a.gguf", "sha256": "ab" * 32, "bytes": 1, "mode": 7}]),
        told(files=[{"path": "a.gguf", "sha256": "AB" * 32, "bytes": 1}]),
        told(files=[{"path": "a.gguf", "sha256": "ab" * 32, "bytes": -1}]),
        told(files=[{"path": "a.gguf", "sha256": "ab" * 32, "bytes": 1.0}]),
        told(files=[{"path": "a.gguf", "sha256": "ab" * 32, "bytes": True}]),
        told(files=[{"path": "../a.gguf", "sha256": "ab" * 32, "bytes": 1}]),
        told(format="pickle"),
        told(format=["gguf"]),
        told(kind="code"),
        told(risk_class="none"),
        told(classification="secret"),
        told(context_tokens=-1),
        told(context_tokens="64"),
        told(context_tokens=1 << 40),
        told(languages="en"),
        told(languages=["english language"]),
        told(languages=[1]),
        told(licence="x" * 5_000),
        told(default_system="\ud800"),
        told(template_sha256="ab"),
        SOUND.canonical().replace(b'"licence"', b'"license"'),
    ],
)
def test_what_is_no_manifest_is_refused(text) -> None:
    with pytest.raises(ModelFileError) as caught:
        Manifest.parse(text)
    assert caught.value.fault is Fault.MANIFEST


@pytest.mark.parametrize(
    "paths", [("a.json", "A.json"), ("a.json", "a.json"), ("a", "a/b.json"), ("A/b", "a")]
)
def test_names_that_some_disk_takes_for_one_are_refused(paths) -> None:
    files = [{"path": path, "sha256": "ab" * 32, "bytes": 1} for path in paths]
    with pytest.raises(ModelFileError) as caught:
        Manifest.parse(told(files=files))
    assert caught.value.fault is Fault.DUPLICATE


@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from("ab.A_-/\\\0~ é:+1"), max_size=20))
def test_no_path_leads_up_or_out(path: str) -> None:
    if is_path(path):
        parts = PurePosixPath(path).parts
        assert "/".join(parts) == path, "one spelling for one file"
        assert not PurePosixPath(path).is_absolute()
        assert not any(part.startswith((".", "~", "-")) for part in parts)
        assert path.isascii()
        assert "\\" not in path
    assert not (is_name(path) and ("/" in path or ".." in path or path != path.lower()))
    assert not (is_version(path) and ("/" in path or ".." in path or path.startswith(".")))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60) | st.integers(0, len(SOUND.canonical()) - 1))
def test_any_bytes_are_a_manifest_or_refused(junk: bytes | int) -> None:
    text = SOUND.canonical()
    if isinstance(junk, int):
        junk = text[:junk] + bytes((text[junk] ^ 1,)) + text[junk + 1 :]
    with suppress(ModelFileError):
        assert Manifest.parse(junk) != SOUND
