"""Small models, whole and otherwise, and keys that need no OpenBao."""

import json
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from inference.store.changing import StoreChanger
from inference.store.claims import Claim
from inference.store.rules import Rules
from inference.store.signing import ModelSignature
from inference.store.store import ModelStore
from meshkit.contract import Reason, Refusal
from meshkit.vault import VaultRejected

NAME = "acme-chat"
CLAIM = Claim(name=NAME, licence="Apache-2.0", context_tokens=64)


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def a_field(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def gguf(
    *, data: bytes = bytes(range(96)), kind: str = "llama", offset: int = 0, extra: bytes = b""
) -> bytes:
    """A GGUF with 64 tokens of context, three tokens, and one tensor of 24 fp32 numbers."""
    tokens = b"".join(text(token) for token in ("a", "b", "<|end|>"))
    fields = (
        a_field("general.architecture", 8, text(kind)),
        a_field(f"{kind}.context_length", 4, struct.pack("<I", 64)),
        a_field("tokenizer.ggml.model", 8, text("gpt2")),
        a_field("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 3) + tokens),
        a_field("tokenizer.chat_template", 8, text("{{ messages }}")),
        a_field("general.alignment", 4, struct.pack("<I", 32)),
        a_field("numbers", 9, struct.pack("<IQ3i", 5, 3, 1, 2, 3)),
    )
    tensor = text("w") + struct.pack("<I2QIQ", 2, 8, 3, 0, offset)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(fields)) + b"".join(fields) + tensor
    return head + bytes(-len(head) % 32) + data + extra


def safetensors(header: dict | None = None, data: bytes = bytes(24)) -> bytes:
    """Two tensors, one after another."""
    told = json.dumps(
        header
        or {
            "__metadata__": {"format": "pt"},
            "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
            "b": {"dtype": "I8", "shape": [8], "data_offsets": [16, 24]},
        }
    ).encode()
    return struct.pack("<Q", len(told)) + told + data


def a_folder(top: Path) -> Path:
    """A model as transformers lays it."""
    top.mkdir(parents=True, exist_ok=True)
    (top / "model.safetensors").write_bytes(safetensors())
    config = {"model_type": "llama", "max_position_embeddings": 128}
    (top / "config.json").write_text(json.dumps(config))
    (top / "tokenizer.json").write_text('{"model": {}}')
    (top / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    (top / "LICENSE").write_text("Take it.\n")
    return top


@dataclass
class LocalKeys:
    """Both of the store's keys, in memory: as OpenBao's transit has them."""

    signing: dict[int, Ed25519PrivateKey] = field(
        default_factory=lambda: {1: Ed25519PrivateKey.generate()}
    )
    storage: bytes = field(default_factory=lambda: os.urandom(32))
    away: bool = False

    def _asked(self) -> None:
        if self.away:
            raise Refusal(Reason.KEYS_DOWN)

    def signers(self) -> dict[int, bytes]:
        self._asked()
        return {v: key.public_key().public_bytes_raw() for v, key in self.signing.items()}

    def sign(self, message: bytes) -> ModelSignature:
        self._asked()
        newest = max(self.signing)
        return ModelSignature(newest, self.signing[newest].sign(message))

    def data_key(self, aad: bytes) -> tuple[bytes, str]:
        self._asked()
        key, nonce = os.urandom(32), os.urandom(12)
        wrapped = nonce + AESGCM(self.storage).encrypt(nonce, key, aad)
        return key, "local:v1:" + wrapped.hex()

    def unwrap(self, wrapped: str, *, aad: bytes) -> bytes:
        self._asked()
        try:
            raw = bytes.fromhex(wrapped.removeprefix("local:v1:"))
            return AESGCM(self.storage).decrypt(raw[:12], raw[12:], aad)
        except (ValueError, InvalidTag):
            raise VaultRejected(400) from None


@dataclass(frozen=True)
class World:
    """A store in a folder of its own, and where its models come from."""

    top: Path
    keys: LocalKeys = field(default_factory=LocalKeys)

    @property
    def folder(self) -> Path:
        return self.top / "models"

    @property
    def plain(self) -> Path:
        return self.top / "plain"

    def store(self, **rules: object) -> ModelStore:
        return ModelStore(self.folder, self.keys, Rules(**{"plain_dir": self.plain} | rules))

    def changer(self, limits=None, keys: object = "ours") -> StoreChanger:
        return StoreChanger(self.store(), limits, self.keys if keys == "ours" else keys)

    def source(self, name: str = "model.gguf", content: bytes | None = None) -> Path:
        path = self.top / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gguf() if content is None else content)
        return path

    def home(self, version: str = "1") -> Path:
        return self.folder / "store" / NAME / version

    def added(self, *, sign: bool = True, seal: bool = False, source: Path | None = None):
        """A model in the store, signed."""
        manifest = self.changer().add(source or self.source(), CLAIM, seal=seal)
        if sign:
            self.changer().sign(NAME, manifest.version)
        return manifest

    def still_works(self) -> bool:
        """Whether a sound model can be added, signed and opened after whatever went wrong."""
        manifest = self.added(source=self.source("fine.gguf"))
        with self.store().open(NAME, manifest.version) as opened:
            return opened.weights[0].read_bytes() == gguf()


def world_in(top: Path) -> World:
    made = World(top)
    made.folder.mkdir()
    made.plain.mkdir()
    return made
