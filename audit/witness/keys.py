"""A witness's two keys on disk: made once, never in OpenBao, never on the log's host.

With them begins what it remembers: keys without a memory are those of a witness that forgot, and
are not opened.

`keys.pem` holds both as PKCS #8 (Ed25519 first, then ML-DSA-44), mode 0600, encrypted under a
passphrase if there is one. `vkeys` holds their verifier keys, for the policies of those who trust
this witness.
"""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from audit.witness.memory import MEMORY, WitnessMemory
from meshkit.files import write_private
from meshkit.tlog import (
    ED25519_COSIGNATURE,
    MLDSA44_COSIGNATURE,
    CosignerKey,
    cosignature_line,
    cosignature_message,
)

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["KEYS", "VKEYS", "KeysUnusableError", "WitnessKeys"]

KEYS, VKEYS = "keys.pem", "vkeys"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,254}", re.ASCII)
_PEM = re.compile(rb"-----BEGIN [A-Z ]+-----\n.*?-----END [A-Z ]+-----\n", re.DOTALL)


class KeysUnusableError(RuntimeError):
    """Key file or memory is missing, malformed, or under another passphrase. Says which."""


@dataclass(frozen=True, slots=True)
class WitnessKeys:
    """Both keys; signing takes 1 ms of CPU, nearly all of it ML-DSA-44's."""

    name: str
    ed25519: Ed25519PrivateKey
    mldsa44: MLDSA44PrivateKey

    @property
    def vkeys(self) -> tuple[CosignerKey, CosignerKey]:
        """The verifier keys: Ed25519, then ML-DSA-44."""
        classic = self.ed25519.public_key().public_bytes_raw()
        quantum = self.mldsa44.public_key().public_bytes_raw()
        return (
            CosignerKey(self.name, ED25519_COSIGNATURE, classic),
            CosignerKey(self.name, MLDSA44_COSIGNATURE, quantum),
        )

    def cosign(self, text: str, time_s: int) -> str:
        """Return both signature lines over the checkpoint `text`.

        It MUST have been checked against the last one, and persisted, before.
        """
        classic, quantum = self.vkeys
        return cosignature_line(
            classic, time_s, self.ed25519.sign(cosignature_message(classic, text, time_s))
        ) + cosignature_line(
            quantum, time_s, self.mldsa44.sign(cosignature_message(quantum, text, time_s))
        )

    @classmethod
    def make(cls, folder: Path, name: str, passphrase: bytes | None = None) -> WitnessKeys:
        """Make new keys and write them, after an empty memory.

        Args:
            folder: Made if it is not there.
            name: Best a domain of the operator's, as `witness.example.org/north`.
            passphrase: Encrypts the private keys.

        Raises:
            KeysUnusableError: keys are there already, or the name is malformed.
            OSError: the folder cannot be written.
        """
        if not _NAME.fullmatch(name):
            msg = "a witness's name is 1 to 255 letters, digits, dots, hyphens, colons and slashes"
            raise KeysUnusableError(msg)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (folder / KEYS).exists():
            msg = "there are keys already: a witness keeps them for its life"
            raise KeysUnusableError(msg)
        _begin_memory(folder)
        keys = cls(name, Ed25519PrivateKey.generate(), MLDSA44PrivateKey.generate())
        encrypted = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
        pem = b"".join(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encrypted)
            for key in (keys.ed25519, keys.mldsa44)
        )
        write_private(folder / KEYS, pem)
        write_private(folder / VKEYS, "".join(f"{k}\n" for k in keys.vkeys).encode(), mode=0o644)
        return keys

    @classmethod
    def load(cls, folder: Path, passphrase: bytes | None = None) -> WitnessKeys:
        """Read the keys, and see that `vkeys` names the same.

        Raises:
            KeysUnusableError: as it says.
        """
        if (folder / KEYS).exists() and not (folder / MEMORY).exists():
            msg = (
                f"{MEMORY} is gone: a witness that forgot could be made to cosign a fork; make a "
                "new one under another name, and have it put into the policies instead"
            )
            raise KeysUnusableError(msg)
        try:
            first, second = (folder / VKEYS).read_text("utf-8").splitlines()
            pems = _PEM.findall((folder / KEYS).read_bytes())
            ed25519, mldsa44 = (load_pem_private_key(pem, passphrase) for pem in pems)
        except OSError as failure:
            msg = f"cannot read {failure.filename}: make keys with `sealgate audit witness init`"
            raise KeysUnusableError(msg) from None
        except (ValueError, TypeError):
            msg = "key file is malformed, or under another passphrase"
            raise KeysUnusableError(msg) from None
        if not isinstance(ed25519, Ed25519PrivateKey) or not isinstance(mldsa44, MLDSA44PrivateKey):
            msg = "key file holds other keys"
            raise KeysUnusableError(msg)
        keys = cls(first.partition("+")[0], ed25519, mldsa44)
        if [first, second] != [str(key) for key in keys.vkeys]:
            msg = "vkeys are not those of the key file"
            raise KeysUnusableError(msg)
        return keys


def _begin_memory(folder: Path) -> None:
    try:
        WitnessMemory(folder / MEMORY).close()
    except sqlite3.Error:
        msg = f"cannot make {MEMORY}"
        raise KeysUnusableError(msg) from None
